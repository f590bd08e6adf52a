"""`deeplab-tf convert`."""

from pathlib import Path

import click

from deeplab_tf.cli.places import check_place
from deeplab_tf.errors import InputError


@click.command(short_help="Turn an official checkpoint into a preset folder.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--model",
    required=True,
    metavar="PRESET|FOLDER|JSON|BACKBONE",
    help="Which model CHECKPOINT is of: a preset's name (`deeplab-tf models` lists them), a "
    "preset folder of that architecture, or a JSON file like a preset's config.json. For an "
    "image classifier, its backbone's name.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The preset folder to write."
)
@click.option(
    "--classes",
    metavar="NAMES|FILE",
    help="Names of the classes, if not the preset's: separated by commas, or a file with one a "
    "line, background included.",
)
@click.option(
    "--num-classes",
    type=click.IntRange(2),
    metavar="N",
    help="The same without names. If CHECKPOINT has another number, the last layer is made anew.",
)
@click.option(
    "--output-stride",
    type=click.Choice(["8", "16", "32"]),
    help="If not the preset's; the same weights serve any.",
)
@click.option("--names", is_flag=True, help="Print the whole map: name in the file, our path.")
def command(checkpoint, model, out, classes, num_classes, output_stride, names):
    """Turn an official checkpoint into a preset folder.

    CHECKPOINT is recognised by its content: a TF1 checkpoint (its folder, its prefix or one of
    its files), a frozen graph (.pb), a float TFLite file of an official model, a .caffemodel of
    DeepLabv1 or v2, or a PyTorch state dict (.pth, .pt, .safetensors), for which PyTorch isn't
    needed and of which nothing is run. Unpack archives first, but not a .pth.

    Every variable must be found and must fit; anything missing, extra or misshapen is named, and
    nothing is written. The converted model then labels a stored picture, and where CHECKPOINT
    itself can be run, both must give the same labels: the exit code is 1 if they don't.

    The folder gets config.json and weights.npz, report.json with every variable, and answer.png.

    A classifier trained on ImageNet becomes a folder from which training starts (init=FOLDER); it
    takes the backbone. CHECKPOINT itself will do there too.

    \b
    Examples:
      deeplab-tf convert deeplabv3_257_mv_gpu.tflite \\
          --model deeplab_v3_mobilenet_v2_dm05_voc --out voc257
      deeplab-tf convert deeplabv3_mnv2_pascal_train_aug/ \\
          --model deeplab_v3_mobilenet_v2_voc --out voc --names
      deeplab-tf convert deeplabv3_resnet50_coco-cd0a2569.pth \\
          --model deeplab_v3_resnet_50_torch_coco --out coco
      deeplab-tf convert my_model.ckpt-30000 \\
          --model deeplab_v3_mobilenet_v2_voc --classes background,cat,dog --out pets
      deeplab-tf convert xception_65/model.ckpt --model xception_65 --out imagenet
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from deeplab_tf.inference.intact import check_intact
    from deeplab_tf.inference.litert import quiet_stderr
    from deeplab_tf.inference.runner import is_lite_file

    check_place(out)
    if checkpoint.is_file() and is_lite_file(checkpoint):
        # Its own answer is asked for later, and a damaged file could take the process down.
        check_intact(checkpoint.read_bytes(), str(checkpoint))
    with quiet_stderr():  # TensorFlow, as it starts
        from deeplab_tf.checkpoints.convert import AnswerDiffersError, convert

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            task = progress.add_task("start")
            conversion = convert(
                checkpoint,
                model,
                out,
                num_classes=num_classes,
                classes=_class_names(classes),
                output_stride=int(output_stride) if output_stride else None,
                step=lambda text: progress.update(task, description=text),
            )
    except AnswerDiffersError as error:
        click.echo(f"error: {error}", err=True)
        click.get_current_context().exit(1)
    if names:
        _print_names(conversion.loaded)
    _print_summary(conversion)


def _class_names(text: str | None) -> list[str] | None:
    """["background", "cat"] from "background,cat" or from a file with one a line."""
    if text is None:
        return None
    path = Path(text)
    if path.is_file():
        try:
            parts = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--classes {path}: can't be read as text ({error}).") from None
    else:
        parts = text.split(",")
    names = [part.strip() for part in parts if part.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"--classes {text}: at least two names, each once; got {len(names)}.")
    return names


def _print_names(loaded) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("in the file", "our path", "shape", box=box.SIMPLE)
    for variable in loaded.variables:
        table.add_row(variable.source, variable.path, "x".join(map(str, variable.shape)))
    for path in loaded.new:
        table.add_row("(made anew)", path, "")
    # Names are there to be searched and compared: wide enough that none is cut.
    Console(markup=False, highlight=False, width=1000).print(table)


def _print_summary(conversion) -> None:
    answer, out = conversion.answer, conversion.folder
    classifies = answer.labels is None
    click.echo(f"{conversion.loaded} Nothing missing, nothing extra.")
    shares = answer.shares(conversion.model.info.classes).items()
    text = ", ".join(f"{name} {share:.2%}" for name, share in shares)
    drawn = "" if classifies else f" ({out / 'answer.png'})"
    click.echo(f"the stored picture{drawn}: {text}")
    if answer.agreement is None:
        click.echo(f"not compared with the file's own answer: {answer.reason}")
    else:
        click.echo(f"the file's own labels are the same in {answer.agreement:.2%} of the pixels")
    if answer.difference is not None:
        click.echo(f"its logits differ by {answer.difference:.1e} of the largest at most")
    if classifies:
        backbone = conversion.model.get_config()["backbone"]
        click.echo(
            f"{out} is an image classifier; next: deeplab-tf train --config NAME data=RECORDS "
            f"model.arguments.backbone={backbone} init={out}"
        )
    else:
        click.echo(f"{out} is a preset; next: deeplab-tf predict photo.jpg --model {out}")
