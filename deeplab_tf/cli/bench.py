"""`deeplab-tf bench`."""

from pathlib import Path

import click

from deeplab_tf.cli.options import Size


@click.command(short_help="Time a model file or preset on this machine.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--threads", default="1,2", show_default=True, help="For .tflite files.")
@click.option("--size", type=Size(), metavar="N|HxW", help="Picture size. [the model's own]")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.01))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def command(models, threads, size, seconds, as_json):
    """Time .tflite files, SavedModels and presets: median milliseconds for one picture.

    A .tflite file runs in LiteRT with XNNPACK and loads no TensorFlow. Of a panoptic one the
    network is timed, and beside it the merge of its maps, for 16 drawn instances.

    \b
    Examples:
      deeplab-tf bench portrait_int8.tflite portrait_float32.tflite
      deeplab-tf bench portrait --size 256
      deeplab-tf bench served/mine/1 --json
    """
    import json

    from deeplab_tf.errors import InputError

    if not all(part.strip().isdigit() and int(part) > 0 for part in threads.split(",")):
        raise InputError(f"--threads is a list of numbers, like 1,2,4; got {threads!r}.")
    counts = tuple(int(part) for part in threads.split(","))
    results = []
    for name in models:
        result = {"model": name, **_measure(name, counts, size, seconds)}
        results.append(result)
        if not as_json:
            _show(result)
    if as_json:
        click.echo(json.dumps(results, indent=2))


def _measure(name: str, threads: tuple[int, ...], size, seconds: float) -> dict:
    """What is to be said of one model; only what it needs is imported."""
    path = Path(name)
    if path.suffix == ".tflite":
        from deeplab_tf.export.benchmark import measure_lite_file

        return measure_lite_file(path, threads=threads, seconds=seconds)
    if (path / "saved_model.pb").is_file():
        from deeplab_tf.export.timing import measure_saved_model

        return measure_saved_model(path, size=size, seconds=seconds)
    from deeplab_tf.inference.litert import quiet_stderr

    with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
        from deeplab_tf.export.timing import measure_model
        from deeplab_tf.models.presets import from_preset

    return measure_model(from_preset(name), size=size, seconds=seconds)


def _show(result: dict) -> None:
    click.echo(result["model"])
    click.echo(f"  size       {result['bytes'] / 1000:.0f} kB")
    click.echo(f"  picture    {result['size'][0]}x{result['size'][1]}")
    for threads, ms in result["latency_ms"].items():
        plural = "" if threads == "1" else "s"
        click.echo(f"  latency    {ms:.2f} ms with {threads} thread{plural}")
    if result.get("merge_ms") is not None:
        click.echo(f"  merge      {result['merge_ms']:.2f} ms beside it")
    if "operators" in result:
        parts = result["partitions"]
        click.echo(f"  XNNPACK    {parts} part{'' if parts == 1 else 's'} of the graph")
        operators = ", ".join(f"{name} {count}" for name, count in result["operators"].items())
        click.echo(f"  operators  {operators}")
