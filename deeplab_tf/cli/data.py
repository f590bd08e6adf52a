"""`deeplab-tf data`."""

import sys
from pathlib import Path

import click

from deeplab_tf.cli.places import check_place
from deeplab_tf.errors import InputError

# What `train --config` to suggest for records of that name.
_CONFIGS = {"portrait": "portrait", "camvid": "camvid", "oxford_iiit_pet": "pet"}
_CLASSES = click.option(
    "--classes",
    metavar="FILE|LIST",
    help="A class file elsewhere, or a known list: binary, portrait, camvid, voc, coco_stuff, "
    "cityscapes_panoptic, coco_panoptic, ade20k_panoptic.",
)
_ANNOTATIONS = click.option(
    "--annotations",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A panoptic JSON file elsewhere.",
)
_DIVISOR = click.option(
    "--label-divisor",
    metavar="N",
    type=click.IntRange(2),
    help="Panoptic labels are class * N + instance. [default: that of the data, or one that fits]",
)


@click.group(short_help="Check a folder of pictures and masks; build, list and show records.")
def command():
    """Turn a folder of pictures and masks into records for training.

    \b
    A folder:
      images/ID.jpg    pictures, JPEG or PNG
      masks/ID.png     of the same size: class values (0, 1, …), a palette, or colours
      classes.csv      index,name[,red,green,blue]; not needed for masks of black and white
      train.txt        an ID a line, as val.txt and test.txt; else every tenth is for validation

    \b
    One whose instances are told apart has one of these besides:
      instances/ID.png number of each instance, 0 for none; classes.csv then has a column thing,
                       1 or 0, or a file segments.json lists categories instead of it
      panoptic/ID.png  segment ids as COCO writes them, and panoptic.json beside
      gtFine/          Cityscapes as published, beside leftImg8bit/
      annotations_instance/
                       ADE20K as published, beside annotations/ and images/training/; or
                       ade20k_panoptic_train.json with its folder
    """


@command.command(short_help="List all that is wrong with pictures, masks or records.")
@click.argument("target", type=click.Path(path_type=Path))
@_CLASSES
@_ANNOTATIONS
@_DIVISOR
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all of it here.")
def check(target, classes, annotations, label_divisor, json_path):
    """Look through TARGET before training does: a folder of pictures and masks, or of records.

    Opens every file, shows which label values there are and how many pixels they have, and lists
    all that is wrong, each with its fix: values or colours that no class has, sizes that differ,
    files that can't be read, classes that never occur, splits that share pictures; of instances, a
    wrong divisor, stuff with instances, things without, and PNGs and JSON that don't fit together.

    Exit code 1 if anything is wrong, 2 if there is nothing to check.

    \b
    Examples:
      deeplab-tf data check my_pictures
      deeplab-tf data check records --json report.json
    """
    if json_path:
        check_place(json_path)
    with _quiet():
        from deeplab_tf.datasets.audit import check as look
    from deeplab_tf.files import write_json

    report = look(
        target, classes=classes, annotations=annotations, label_divisor=label_divisor, quiet=False
    )
    _show_report(report)
    if json_path:
        write_json(json_path, report.to_json())
        click.echo(f"wrote {json_path}")
    if report.problems:
        sys.exit(1)
    if report.form == "folder":
        click.echo(f"next: deeplab-tf data build {target} --out RECORDS")


@command.command(short_help="Write records of a folder, tfds:NAME or synthetic.")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where records go.")
@_CLASSES
@_ANNOTATIONS
@_DIVISOR
@click.option("--records-per-shard", default=512, show_default=True, type=click.IntRange(1))
def build(source, out, classes, annotations, label_divisor, records_per_shard):
    """Write the records of SOURCE.

    SOURCE is a folder of images/, masks/ and, for more than two classes, classes.csv; or
    tfds:oxford_iiit_pet, fetched with TensorFlow Datasets; or synthetic, which are drawn shapes.
    `deeplab-tf data --help` shows the folders, those with instances too.

    Every file is checked on the way. After an interruption run the same command again: what is
    whole stays.

    \b
    Examples:
      deeplab-tf data build my_pictures --out records
      deeplab-tf data build voc --classes voc --out records
      deeplab-tf data build tfds:oxford_iiit_pet --out pets
    """
    check_place(out)
    with _quiet():
        from deeplab_tf.datasets import build_folder

    try:
        descriptor = build_folder(
            source,
            out,
            classes=classes,
            annotations=annotations,
            label_divisor=label_divisor,
            records_per_shard=records_per_shard,
        )
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    _describe(descriptor)
    if descriptor.label_divisor is not None:
        click.echo(f"next: deeplab-tf data show {out}")
        return
    config = _CONFIGS.get(descriptor.name, "portrait" if descriptor.num_classes == 2 else "camvid")
    click.echo(f"next: deeplab-tf train --config {config} data={out}")


@command.command(short_help="Say what records hold.")
@click.argument("records", type=click.Path(path_type=Path))
def info(records):
    """Say what a folder of RECORDS holds: splits, classes, shares.

    \b
    Example:
      deeplab-tf data info records
    """
    with _quiet():
        from deeplab_tf.datasets import DatasetDescriptor

    _describe(DatasetDescriptor.load(records))


@command.command(short_help="Draw samples: picture, label, both.")
@click.argument("target")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("samples.jpg"), show_default=True
)
@click.option("--split", default="train", show_default=True)
@click.option("--count", default=12, show_default=True, type=click.IntRange(1, 200))
@click.option("--seed", default=0, show_default=True, help="Another one shows others.")
@_CLASSES
@_ANNOTATIONS
@_DIVISOR
def show(target, out, split, count, seed, classes, annotations, label_divisor):
    """Draw samples of TARGET on one page: picture, label in its colours, one over the other.

    Instances have shades of their class's colour and an outline.

    TARGET is a folder of pictures and masks, or of records. Have a look before you train.

    \b
    Examples:
      deeplab-tf data show records
      deeplab-tf data show my_pictures --split val --count 30 --out val.png
    """
    from deeplab_tf.pictures import is_image, save_image

    if not is_image(out):
        raise InputError(f"{out}: name a picture to write, ending in .png or .jpg.")
    check_place(out)
    with _quiet():
        from deeplab_tf.datasets.sheet import draw_samples

    sheet = draw_samples(
        target,
        split,
        count=count,
        seed=seed,
        classes=classes,
        annotations=annotations,
        label_divisor=label_divisor,
    )
    save_image(out, sheet.page)
    for mistake in sheet.mistakes:
        click.echo(f"left out: {mistake}", err=True)
    click.echo(f"wrote {out}: {len(sheet.shown)} pictures of {split}")


@command.command(short_help="Write dataset.json for records of other code.")
@click.argument("records", type=click.Path(path_type=Path))
@click.option("--classes", required=True, metavar="FILE|LIST", help="What label values mean.")
@_DIVISOR
def describe(records, classes, label_divisor):
    """Write dataset.json for RECORDS that other code wrote, once they are found good.

    Names and features must be the official ones: train-00000-of-00010.tfrecord, image/encoded,
    image/segmentation/class/encoded. Labels of the format "raw" are panoptic: the classes then say
    which are things, in the column thing of a class file.

    \b
    Examples:
      deeplab-tf data describe tfrecord --classes voc
      deeplab-tf data describe tfrecord --classes cityscapes_panoptic
      deeplab-tf data describe tfrecord --classes my_classes.csv --label-divisor 1000
    """
    with _quiet():
        from deeplab_tf.datasets.audit_records import describe_records

    _describe(describe_records(records, classes, label_divisor=label_divisor, quiet=False))


def _quiet():
    """TensorFlow logs on being imported, before it knows its log level."""
    from deeplab_tf.inference.litert import quiet_stderr

    return quiet_stderr()


def _describe(descriptor):
    splits = ", ".join(f"{name} {count}" for name, count in descriptor.splits.items())
    click.echo(f"{descriptor.name}: {splits}; value to ignore: {descriptor.ignore_label}")
    kinds = dict.fromkeys(descriptor.thing_classes, "thing")
    if descriptor.label_divisor is not None:
        count, divisor = len(kinds), descriptor.label_divisor
        click.echo(f"  {count} things, labels are class * {divisor} + instance")
        kinds[descriptor.ignore_label] = "ignored"
    for value, name in enumerate(descriptor.classes):
        share = descriptor.pixel_share[value] if descriptor.pixel_share else 0.0
        kind = kinds.get(value, "stuff") if kinds else ""
        click.echo(f"  {value:3d} {name:20s} {share:7.2%} of the training pixels  {kind}".rstrip())


# Places of one problem that are printed; --json has them all.
_PLACES = 5


def _show_report(report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    splits = ", ".join(f"{name} {count}" for name, count in report.splits.items())
    click.echo(f"{report.target}: {sum(report.splits.values())} pictures looked at ({splits})")
    table = Table()
    table.add_column("value", justify="right")
    table.add_column("class")
    for name in ("pixels", "share", "pictures"):
        table.add_column(name, justify="right")
    for row in _shortened(report.values):
        style = "bold red" if row.meaning == "(no class)" or not row.pixels else ""
        cells = (str(row.value), row.meaning, f"{row.pixels:,}", f"{row.share:.2%}")
        table.add_row(*map(Text, (*cells, str(row.pictures))), style=style)
    Console(width=None).print(table)
    for note in report.notes:
        click.echo(f"note: {note}")
    for problem in report.problems:
        click.echo(f"problem: {len(problem.places)} x {problem.what}")
        for place in problem.places[:_PLACES]:
            click.echo(f"  {place}")
        if len(problem.places) > _PLACES:
            click.echo(f"  … and {len(problem.places) - _PLACES} more; --json lists all")
        click.echo(f"  fix: {problem.fix}")
    count = len(report.problems)
    click.echo(f"{count} kind{'s' if count > 1 else ''} of problem" if count else "all is well")


def _shortened(rows):
    """Grey levels taken for labels would fill the screen."""
    strange = [row for row in rows if row.meaning == "(no class)"]
    hidden = {row.value for row in strange[10:]}
    return [row for row in rows if row.value not in hidden]
