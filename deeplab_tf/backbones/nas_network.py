"""Networks of searched cells: a stem, one cell per level, an optional head.

Papers: https://arxiv.org/abs/1712.00559 and https://arxiv.org/abs/1901.02985.
"""

from typing import Any

from deeplab_tf.backbones.genotype import Genotype
from deeplab_tf.backbones.nas_cell import Map, batch_norm, conv, nas_cell, relu
from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import ResizeLike

_OPTIONS: dict[str, Any] = {
    "nas_stem_output_num_conv_filters": 20,
    "nas_use_classification_head": False,
    "nas_remove_os32_stride": False,
    "nas_genotype": None,
    "nas_levels": None,
}
# Channels of the classification head's strided convolutions, by the stride they lead to.
_HEAD_FILTERS = {8: 256, 16: 512, 32: 1024}


def nas_options(given: dict | None) -> dict[str, Any]:
    """The official `nas_architecture_options` and the two of our own, with their defaults.

    Raises:
        InputError: no options, one that there isn't, or a value that is none.
    """
    if given is not None and not isinstance(given, dict):
        raise InputError(
            f"nas_architecture_options is a dictionary of {', '.join(_OPTIONS)}; got {given!r}."
        )
    unknown = sorted(set(given or {}) - set(_OPTIONS))
    if unknown:
        raise InputError(
            f"nas_architecture_options has no {unknown[0]!r}; it has: {', '.join(_OPTIONS)}."
        )
    options = {**_OPTIONS, **(given or {})}
    filters = options["nas_stem_output_num_conv_filters"]
    if type(filters) is not int or filters < 1:
        raise InputError(f"nas_stem_output_num_conv_filters is at least 1; got {filters!r}.")
    for name in ("nas_use_classification_head", "nas_remove_os32_stride"):
        if not isinstance(options[name], bool):
            raise InputError(f"{name} is True or False; got {options[name]!r}.")
    return options


def nas_network(
    x,
    genotype: Genotype,
    levels: tuple[int, ...],
    *,
    output_stride: int,
    options: dict[str, Any],
    scope: str,
) -> tuple[Any, list]:
    """[B, H, W, 3] -> (encoder's output, [stem, cell 0, …]).

    Args:
        x: normalised pixels.
        genotype: of every cell.
        levels: each cell's; level n has stride 4 * 2 ** n, and the stem is level 0.
        output_stride: of the encoder's output.
        options: see `nas_options`. Filters are those of a cell's operations at level 0; they
            double with the level. Without the stride of level 3 it stays at stride 16.
        scope: the layers' first name.

    Raises:
        InputError: these cells don't lead to `output_stride`.
    """
    keep_size = options["nas_remove_os32_stride"]
    stride = 4 * 2 ** (min(levels[-1], 2) if keep_size else levels[-1])
    _check_stride(output_stride, stride, levels[-1], options, scope)
    maps = _stem(x, scope)
    before = 0
    for number, level in enumerate(levels):
        name = f"{scope}.cell_{number}"
        newer = maps[-1]
        same_size = keep_size and max(level, before) == 3
        if level < before and not same_size:
            bigger = ResizeLike(2.0, name=f"{name}.resize")([newer.tensor, newer.tensor])
            newer = Map(bigger, newer.steps + "u")
        strides = 2 if level > before and not same_size else 1
        width = options["nas_stem_output_num_conv_filters"] * 2**level
        maps.append(nas_cell(genotype, newer, maps[-2], filters=width, strides=strides, scope=name))
        before = level
    x = relu(maps[-1].tensor, scope)
    if options["nas_use_classification_head"]:
        x = _classification_head(x, levels[-1], output_stride // stride, scope)
    return x, [m.tensor for m in maps[1:]]


def _check_stride(output_stride: int, stride: int, level: int, options: dict, scope: str) -> None:
    """Raises if the last cell's stride isn't the output stride, nor the head can get there."""
    convolutions = 3 - level if options["nas_use_classification_head"] else 0
    possible = [stride * 2**n for n in range(convolutions + 1)]
    if output_stride not in possible:
        hint = "" if level == 3 or convolutions else " (nas_use_classification_head adds more)"
        raise InputError(
            f"output_stride of nas_{scope} with its last cell at stride {stride} is one of "
            f"{possible}{hint}; got {output_stride}."
        )


def _stem(x, scope: str) -> list[Map]:
    """[B, H, W, 3] -> [[B, H/2, W/2, 64], [B, H/4, W/4, 128]], neither with its ReLU yet."""
    x = conv(x, 64, 3, strides=2, name=f"{scope}.conv0")
    x = relu(batch_norm(x, f"{scope}.conv0_bn"), f"{scope}.conv0")
    half = batch_norm(conv(x, 64, 3, name=f"{scope}.conv1"), f"{scope}.conv1_bn")
    x = conv(relu(half, f"{scope}.conv1"), 128, 3, strides=2, name=f"{scope}.conv2")
    return [Map(half, "d"), Map(batch_norm(x, f"{scope}.conv2_bn"), "dd")]


def _classification_head(x, level: int, downsampling: int, scope: str):
    """[B, H, W, C] -> [B, H / downsampling, W / downsampling, 2048].

    What ImageNet training puts on top of the cells: strided convolutions down to stride 32 and a
    wide one. A convolution that loses its stride takes the doubled rate itself, unlike those of
    the other backbones: that is the official code.
    """
    rate = 1
    for stride, filters in _HEAD_FILTERS.items():
        if stride <= 4 * 2**level:
            continue
        strides = 2 if downsampling > 1 else 1
        downsampling //= strides
        rate *= 2 // strides
        name = f"{scope}.downsample_os{stride}"
        x = conv(x, filters, 3, strides=strides, rate=rate, name=f"{name}_conv")
        x = relu(batch_norm(x, f"{name}_bn"), name)
    name = f"{scope}.classification_head"
    x = conv(x, 2048, 1, name=f"{name}_conv")
    return relu(batch_norm(x, f"{name}_bn"), name)
