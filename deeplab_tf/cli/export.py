"""`deeplab-tf export`."""

import sys
from pathlib import Path

import click

from deeplab_tf.cli.options import Size
from deeplab_tf.cli.places import check_place

QUANTIZE = ("float32", "float16", "dynamic", "int8", "int16x8", "qat")


@click.command(short_help="Write a verified TFLite file or SavedModel.")
@click.option("--model", "preset", required=True, metavar="PRESET|FOLDER", help="What to export.")
@click.option("--to", type=click.Choice(["tflite", "saved_model"]), default="tflite")
@click.option("--quantize", type=click.Choice(QUANTIZE), default="float32", show_default=True)
@click.option("--size", type=Size(), metavar="N|HxW", help="Picture size. [the model's own]")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="FILE.tflite, or a folder."
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FOLDER|RECORDS",
    help="Pictures to measure value ranges on and to compare with; int8 and int16x8 need them.",
)
@click.option(
    "--labels",
    type=click.Choice(["probabilities", "argmax"]),
    default="probabilities",
    show_default=True,
    help="What comes out: a probability per class, or the class.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Share of pixels that must get the model's class. [by --quantize]",
)
@click.option(
    "--panoptic-threshold",
    type=click.FloatRange(0, 1),
    help="Panoptic quality that segments must have against the model's own. [by --quantize]",
)
@click.option("--report", type=click.Path(path_type=Path), help="[report.json beside the output]")
@click.option("--seed", default=0, show_default=True, help="Of the choice of pictures.")
def command(preset, out, report, **options):
    """Write a model for phones, browsers or servers.

    The same pictures go through the model and through what came of it. Only if their classes
    agree does it get its name; otherwise the exit code is 1 and what was there stays.

    A panoptic model's segments must agree too. Its SavedModel merges inside: a picture in, the
    panoptic map and the list of segments out. Its .tflite file gives probabilities, centres and
    offsets at the decoders' stride; `predict`, `evaluate` and the Python class LiteRTRunner merge
    them. MediaPipe's segmenter can't read it.

    \b
    Examples:
      deeplab-tf export --model portrait --quantize int8 --calibration my_pictures --out p.tflite
      deeplab-tf export --model runs/mine/best --quantize float16 --size 256 --out mine.tflite
      deeplab-tf export --model runs/mine/best --labels argmax --size 144x256 --out mine.tflite
      deeplab-tf export --model runs/mine/best --to saved_model --out served/mine/1
    """
    from deeplab_tf.inference.litert import quiet_stderr

    for place in (out, report):
        if place:
            check_place(place)
    with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
        from deeplab_tf.export import VerificationError, export_model
        from deeplab_tf.models.presets import from_preset

    model = from_preset(preset)
    try:
        result = export_model(model, out, report=report, **options)
    except VerificationError as error:
        _show(error.report)
        click.echo(f"failed: {error} {out} is as it was before.", err=True)
        sys.exit(1)
    _show(result)
    click.echo(f"wrote {out}")
    if options["to"] == "tflite":
        click.echo(f"next: deeplab-tf predict --model {out} photo.jpg")


def _show(report: dict) -> None:
    """The report in a few lines."""
    error = ""
    if report["max_error"] is not None:
        error = f", probabilities differ by {report['mean_error']:.5f} (at most "
        error += f"{report['max_error']:.3f})"
    click.echo(
        f"agreement  {report['agreement']:.5f} of the pixels, IoU {report['mean_iou']:.5f}, "
        f"on {report['pictures']} pictures{error}"
    )
    if report.get("encoded_agreement") is not None:
        share = report["encoded_agreement"]
        click.echo(f"encoded    {share:.5f} of the pixels from PNG and JPEG files")
    if "panoptic_quality" in report:
        counts = ", ".join(f"{count} {name}" for name, count in report["segments"].items())
        click.echo(
            f"segments   panoptic quality {report['panoptic_quality']:.5f} against the model's "
            f"own, things {report['panoptic_quality_things']:.5f} ({counts})"
        )
    click.echo(f"size       {report['bytes'] / 1000:.0f} kB")
    latency = ", ".join(
        f"{ms:.2f} ms with {threads} thread{'' if threads == '1' else 's'}"
        for threads, ms in report["latency_ms"].items()
    )
    click.echo(f"latency    {latency}, this machine")
    if report.get("merge_ms") is not None:
        click.echo(f"merge      {report['merge_ms']:.2f} ms beside it, for 16 instances")
    if "operators" in report:
        operators = ", ".join(f"{name} {count}" for name, count in report["operators"].items())
        kind = "builtin only" if report["builtin_only"] else "not all builtin"
        click.echo(f"operators  {operators} ({kind})")
