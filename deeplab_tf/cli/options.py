"""Options that several commands share: how a picture is run through a model."""

from collections.abc import Callable
from typing import Any

import click

from deeplab_tf.errors import InputError


class Numbers(click.ParamType):
    """Numbers between commas."""

    name = "numbers"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            raise InputError(
                f"{param.opts[0]} {value} isn't a list of numbers, like 0.5,1,1.75."
            ) from None


class Size(click.ParamType):
    """A side of a square, or HEIGHTxWIDTH."""

    name = "size"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        sides = str(value).lower().split("x")
        if len(sides) > 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
            raise InputError(
                f"{param.opts[0]} {value} is neither a side, like 256, nor HEIGHTxWIDTH, like "
                "144x256."
            )
        return int(sides[0]), int(sides[-1])


_OPTIONS = (
    click.option(
        "--scales",
        type=Numbers(),
        metavar="LIST",
        help="Average over sizes of the picture, like 0.5,1,1.75.  [1]",
    ),
    click.option("--flip", is_flag=True, help="Average with the mirror image's answer."),
    click.option(
        "--window",
        type=Size(),
        metavar="N|HxW",
        help="Run parts of this size, at the picture's own resolution.  [the whole at once]",
    ),
    click.option(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="Of a window that the next one covers too.  [0.25]",
    ),
    click.option(
        "--output-stride",
        type=int,
        metavar="N",
        help="Of a preset or folder: 8 is finer and slower than 16.  [its own]",
    ),
)
_NAMES = ("scales", "flip", "window", "overlap", "output_stride", "crf")
# Apart from the others: what searches parameters of the CRF runs the model without it.
crf_option = click.option(
    "--crf",
    metavar="NAME|FILE",
    help="Sharpen with the CRF: deeplab_v1_large_fov, deeplab_v2_resnet_101, or a file of "
    "crf-search.",
)


_SCORED = (
    click.option(
        "--model",
        required=True,
        metavar="PRESET|FOLDER|FILE",
        help="A preset's name, a folder from train, convert or export, or a .tflite file.",
    ),
    click.option(
        "--data", required=True, metavar="FOLDER", help="Records, or a folder of images and masks."
    ),
    click.option("--split", default="val", show_default=True, help="Which part of the data."),
)


def scored_options(command: Callable) -> Callable:
    """Adds what is scored, and on what: `model`, `data` and `split`."""
    return _with(command, _SCORED)


def inference_options(command: Callable) -> Callable:
    """Adds the options; the command gets them as keyword arguments."""
    return _with(command, _OPTIONS)


def _with(command: Callable, options: tuple) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given, as arguments of `load_runner`."""
    given = {name: options[name] for name in _NAMES if name in options}
    # Not `in (None, False)`: an overlap of 0 equals False.
    return {
        name: value for name, value in given.items() if value is not None and value is not False
    }
