"""The `deeplab-tf` command: a group that imports a command's module only when it is asked for."""

import importlib
import os
import sys

import click

from deeplab_tf.errors import InputError

# What TensorFlow's native code prints when it starts says nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Command -> one line for the overview. Kept here so that `--help` imports no command.
COMMANDS = {
    "demo": "See what it does: segment, export to int8, compare; offline.",
    "predict": "Segment pictures: label map, overlay, cut-out, background blur.",
    "data": "Check a folder of pictures and masks; build, list and show records.",
    "train": "Train a model from a config; resume an interrupted run.",
    "evaluate": "Score a model on records: IoU per class, warnings, worst pictures.",
    "crf-search": "Search the CRF's parameters for a model on validation pictures.",
    "export": "Write a verified TFLite file or SavedModel.",
    "convert": "Turn an official checkpoint into a preset folder.",
    "models": "List the presets: size, cost, score, where their weights are.",
    "bench": "Time a model file or preset on this machine.",
}


class _LazyGroup(click.Group):
    """Commands live in modules of their own; `deeplab-tf predict` must not load TensorFlow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = cmd_name.replace("-", "_")
        return importlib.import_module(f"deeplab_tf.cli.{module}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deeplab-tf", prog_name="deeplab-tf")
def main() -> None:
    """DeepLab in Keras 3: segment, train, evaluate and export.

    First steps, all offline:

    \b
      deeplab-tf demo                                      a photo, its mask, an int8 model
      deeplab-tf predict photo.jpg                         the same with yours
      deeplab-tf data build my_pictures --out records      check them and write records
      deeplab-tf train --config portrait data=records      train on them
      deeplab-tf export --help                             to a phone
    """
