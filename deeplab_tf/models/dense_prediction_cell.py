"""The dense prediction cell: a searched head in place of ASPP.

Paper: "Searching for Efficient Multi-Scale Architectures for Dense Image Prediction",
https://arxiv.org/abs/1809.04184.

A cell is a list of branches, as in the official JSON files: each applies one operation to the
encoder's output (input -1) or to an earlier branch (its number), and all are concatenated.

    {"op": "conv", "input": -1, "kernel": 3, "rate": [1, 6]}
    {"op": "pyramid_pooling", "input": 0, "grid_size": [2, 2]}

Kernel, rate and grid are (vertical, horizontal). A grid divides the map into windows to pool over.
"""

import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json
from deeplab_tf.layers.conv import conv_bn_act, separable_conv_bn_act
from deeplab_tf.layers.pooling import WindowPooling
from deeplab_tf.layers.resize import ResizeLike, scale_dimension

# The best cell of the paper, found on Cityscapes.
DPC_CITYSCAPES: tuple[dict[str, Any], ...] = (
    {"op": "conv", "kernel": 3, "rate": [1, 6], "input": -1},
    {"op": "conv", "kernel": 3, "rate": [18, 15], "input": 0},
    {"op": "conv", "kernel": 3, "rate": [6, 3], "input": 1},
    {"op": "conv", "kernel": 3, "rate": [1, 1], "input": 0},
    {"op": "conv", "kernel": 3, "rate": [6, 21], "input": 0},
)
_KEYS = {
    "conv": ("op", "input", "kernel", "rate"),
    "pyramid_pooling": ("op", "input", "grid_size"),
}
# What no map is large enough for.
_LARGEST = {"kernel": 99, "rate": 999, "grid_size": 999}
_MOST_BRANCHES = 100


def read_cell(given: Sequence[dict] | str | os.PathLike) -> list[dict[str, Any]]:
    """The branches of a cell as plain JSON values.

    Args:
        given: the branches, or the path of a JSON file with them.

    Raises:
        InputError: these make no cell; names the branch and what is wrong with it.
    """
    source, cell = "dense_prediction_cell_config", given
    if isinstance(given, str | os.PathLike):
        source, cell = str(given), read_json(given)
    if not isinstance(cell, list | tuple) or not 1 <= len(cell) <= _MOST_BRANCHES:
        raise InputError(
            f"{source}: a cell is a list of 1 to {_MOST_BRANCHES} branches; "
            f"got {reprlib.repr(cell)}."
        )
    for number, entry in enumerate(cell):
        _check_branch(entry, number, f"{source}, branch {number}")
    return [
        {key: list(value) if isinstance(value, tuple) else value for key, value in entry.items()}
        for entry in cell
    ]


def _check_branch(entry: Any, number: int, place: str) -> None:
    """Raises an InputError that names the key which is wrong."""
    if not isinstance(entry, Mapping) or entry.get("op") not in [*_KEYS]:
        raise InputError(
            f"{place}: a branch has an op, {' or '.join(_KEYS)}; got {reprlib.repr(entry)}."
        )
    keys = _KEYS[entry["op"]]
    unknown = [key for key in entry if key not in keys]
    pointwise = "kernel" in entry and _pair(entry["kernel"]) == (1, 1)
    missing = [key for key in keys if key not in entry and not (key == "rate" and pointwise)]
    if unknown or missing:
        wrong = f"{missing[0]} is missing" if missing else f"there is no {reprlib.repr(unknown[0])}"
        raise InputError(f"{place}: {wrong}; {entry['op']} has {', '.join(keys)}.")
    if type(entry["input"]) is not int or not -1 <= entry["input"] < number:
        earlier = f" or an earlier branch, up to {number - 1}" if number else ""
        raise InputError(
            f"{place}: input is -1, the encoder's output{earlier}; "
            f"got {reprlib.repr(entry['input'])}."
        )
    for key, largest in _LARGEST.items():
        if key not in entry:
            continue
        pair = _pair(entry[key], number_too=key == "kernel")
        if pair is None or max(pair) > largest:
            alone = "one or " if key == "kernel" else ""
            raise InputError(
                f"{place}: {key} is {alone}two whole numbers from 1 to {largest}, [vertical, "
                f"horizontal]; got {reprlib.repr(entry[key])}."
            )


def _pair(value, number_too: bool = True) -> tuple[int, int] | None:
    """(vertical, horizontal) from a pair or, as kernels have it, a number; else None."""
    if number_too and type(value) is int:
        value = (value, value)
    if isinstance(value, list | tuple) and len(value) == 2:
        vertical, horizontal = value
        if type(vertical) is type(horizontal) is int and min(value) >= 1:
            return vertical, horizontal
    return None


def dense_prediction_cell(
    x,
    cell: Sequence[dict],
    *,
    output_stride: int,
    filters: int = 256,
    image_pooling_crop_size: Sequence[int] | None = None,
    dropout_rate: float = 0.1,
    align_corners: bool = True,
    scope: str = "meta_architecture",
):
    """[B, H, W, C] -> [B, H, W, filters].

    Args:
        x: encoder output.
        cell: see `read_cell`.
        output_stride: 16, or 8, which doubles the rates.
        filters: channels of each branch and of the projection.
        image_pooling_crop_size: (height, width) of the training crop, if pooling windows shall
            stay those of training; None divides the picture at hand.
        dropout_rate: before the projection, in training.
        align_corners: see `resize_bilinear`.
        scope: the layers' first name.

    Raises:
        InputError: another output stride.
    """
    if output_stride not in (8, 16):
        raise InputError(
            "dense_prediction_cell_config: its rates are those of output_stride 16, doubled for "
            f"8; got output_stride {output_stride}."
        )
    outputs: list[Any] = []
    for number, entry in enumerate(cell):
        source = x if entry["input"] < 0 else outputs[entry["input"]]
        name = f"{scope}.branch{number}"
        if entry["op"] == "conv":
            y = _conv(source, entry, 16 // output_stride, filters, name)
        else:
            y = _mean(source, entry["grid_size"], output_stride, image_pooling_crop_size, name)
            y = conv_bn_act(y, filters, 1, name=name)
            y = ResizeLike(align_corners=align_corners, name=f"{name}.resize")([y, x])
        outputs.append(y)
    y = layers.Concatenate(name=f"{scope}.concat")(outputs) if len(outputs) > 1 else outputs[0]
    y = layers.Dropout(dropout_rate, name=f"{scope}.concat_projection_dropout")(y)
    return conv_bn_act(y, filters, 1, name=f"{scope}.concat_projection")


def _conv(x, entry: Mapping[str, Any], multiplier: int, filters: int, name: str):
    """One convolution, atrous and separable if larger than 1x1: -> [B, H, W, filters]."""
    kernel = _pair(entry["kernel"])
    if kernel == (1, 1):
        return conv_bn_act(x, filters, 1, name=name)
    rate = tuple(multiplier * n for n in entry["rate"])
    spatial: dict[str, Any] = dict(kernel_size=kernel, dilation_rate=rate)
    return separable_conv_bn_act(x, filters, **spatial, name=name)


def _mean(x, grid: Sequence[int], output_stride: int, crop: Sequence[int] | None, name: str):
    """Means over the windows of a grid, of the map at hand or of the training crop's."""
    if crop is None:
        return GridPooling((grid[0], grid[1]), name=f"{name}.mean")(x)
    height, width = (
        scale_dimension(side, 1 / (output_stride * n)) for side, n in zip(crop, grid, strict=True)
    )
    return WindowPooling((height, width), name=f"{name}.mean")(x)


@keras.saving.register_keras_serializable(package="deeplab_tf")
class GridPooling(layers.Layer):
    """Means over the windows of a grid: [B, H, W, C] -> [B, h, w, C].

    A window is as large as the map divided by the grid, and moves by one pixel inside the map. A
    side of n pixels divided by g makes it (n - 1) // g + 1 wide: from corner to corner, as
    everywhere here.

    Args:
        grid: (rows, columns); (1, 1) gives the mean of the whole map.
    """

    def __init__(self, grid: tuple[int, int], **kwargs):
        super().__init__(**kwargs)
        self.grid = tuple(grid)

    def call(self, inputs):
        sides = ops.shape(inputs)[1:3]
        windows = tuple(_window(side, n) for side, n in zip(sides, self.grid, strict=True))
        if None not in inputs.shape[1:3]:
            return ops.average_pool(inputs, windows, 1, "valid")
        rows, columns = (
            ops.cast(_mean_weights(side, window), inputs.dtype)
            for side, window in zip(sides, windows, strict=True)
        )
        means = ops.einsum("ih,bhwc->biwc", rows, inputs)
        return ops.einsum("jw,biwc->bijc", columns, means)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [
            None if side is None else side - _window(side, n) + 1
            for side, n in zip(sides, self.grid, strict=True)
        ]
        return (batch, *sides, channels)

    def get_config(self):
        return {**super().get_config(), "grid": self.grid}


def _window(side, parts: int):
    return (side - 1) // parts + 1


def _mean_weights(side, window):
    """[side - window + 1, side]: row i averages the pixels from i to i + window - 1.

    A pooling operation needs its window beforehand; in an open graph it is a tensor.
    """
    pixels = ops.arange(side, dtype="int32")
    offset = pixels[None] - pixels[: side - window + 1, None]
    inside = ops.logical_and(offset >= 0, offset < window)
    return ops.cast(inside, "float32") / ops.cast(window, "float32")
