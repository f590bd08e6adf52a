"""`deeplab-tf data`."""

from pathlib import Path

import click


@click.group(short_help="Build and describe records.")
def command():
    """Turn a folder of pictures and masks into records for training."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where records go.")
@click.option("--records-per-shard", default=512, show_default=True, type=click.IntRange(1))
def build(folder, out, records_per_shard):
    """Write the records of FOLDER: images/, masks/ and, for more than two classes, classes.csv.

    Every file is checked on the way. After an interruption run the same command again: what is
    whole stays.

    \b
    Example:
      deeplab-tf data build my_pictures --out records
    """
    from deeplab_tf.datasets import build_folder

    descriptor = build_folder(folder, out, records_per_shard=records_per_shard)
    _describe(descriptor)
    click.echo(f"next: deeplab-tf train --config portrait data={out}")


@command.command()
@click.argument("records", type=click.Path(path_type=Path))
def info(records):
    """Say what a folder of RECORDS holds: splits, classes, shares.

    \b
    Example:
      deeplab-tf data info records
    """
    from deeplab_tf.datasets import DatasetDescriptor

    _describe(DatasetDescriptor.load(records))


def _describe(descriptor):
    splits = ", ".join(f"{name} {count}" for name, count in descriptor.splits.items())
    click.echo(f"{descriptor.name}: {splits}; value to ignore: {descriptor.ignore_label}")
    for value, name in enumerate(descriptor.classes):
        share = descriptor.pixel_share[value] if descriptor.pixel_share else 0.0
        click.echo(f"  {value:3d} {name:20s} {share:7.2%} of the training pixels")
