"""Cells of searched networks: PNASNet-5 and Auto-DeepLab are stacks of one such cell.

Papers: https://arxiv.org/abs/1712.00559 and https://arxiv.org/abs/1901.02985. Layers have no
biases, and a batch norm is named beside its convolution, not below it. Drop path is left out: its
official default keeps every path.
"""

import dataclasses
from typing import Any

from keras import initializers, layers

from deeplab_tf.backbones.genotype import Genotype
from deeplab_tf.layers.conv import explicit_padding
from deeplab_tf.layers.normalization import BatchNorm
from deeplab_tf.layers.resize import ResizeLike


@dataclasses.dataclass(frozen=True)
class Map:
    """Features [B, H, W, C] and how their size came about: maps of equal `steps` match in size."""

    tensor: Any
    steps: str


def _fan_in():
    """A new initializer at each call: a shared one would repeat its values."""
    return initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def batch_norm(x, name: str):
    """[B, H, W, C] -> [B, H, W, C]."""
    return BatchNorm(epsilon=1e-3, momentum=0.9997, name=name)(x)


def relu(x, name: str):
    """[B, H, W, C] -> [B, H, W, C]."""
    return layers.ReLU(name=f"{name}.relu")(x)


def conv(x, filters: int, kernel_size: int, *, strides: int = 1, rate: int = 1, name: str):
    """Convolution without bias, padded alike on both sides: [B, H, W, C] -> [B, H', W', filters]"""
    padding = "same"
    if strides > 1 and kernel_size > 1:
        x = explicit_padding(x, kernel_size, rate, name=f"{name}.pad")
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=rate,
        use_bias=False,
        kernel_initializer=_fan_in(),
        name=name,
    )(x)


def _separable(x, filters: int, size: int, repeats: int, strides: int, scope: str):
    """ReLU, fused separable convolution, batch norm, repeated; only the first is strided."""
    for number in range(1, repeats + 1):
        name = f"{scope}.separable_{size}x{size}_{number}"
        x = relu(x, name)
        padding = "same"
        if strides > 1:
            x = explicit_padding(x, size, name=f"{name}.pad")
            padding = "valid"
        x = layers.SeparableConv2D(
            filters,
            size,
            strides=strides,
            padding=padding,
            use_bias=False,
            depthwise_initializer=_fan_in(),
            pointwise_initializer=_fan_in(),
            name=name,
        )(x)
        x = batch_norm(x, f"{scope}.bn_sep_{size}x{size}_{number}")
        strides = 1
    return x


def _atrous(x, filters: int, size: int, strides: int, scope: str):
    """Atrous convolution of rate 2; where the cell has a stride, resize to half and rate 1."""
    name = f"{scope}.atrous_{size}x{size}"
    x = relu(x, name)
    if strides > 1:
        x = ResizeLike(1 / strides, name=f"{name}.resize")([x, x])
    x = conv(x, filters, size, rate=1 if strides > 1 else 2, name=name)
    return batch_norm(x, f"{scope}.bn_atr_{size}x{size}")


def _apply(operation: str, x, filters: int, strides: int, scope: str):
    """One operation, like "separable_5x5_2": [B, H, W, filters] -> [B, H', W', filters]."""
    kind, *rest = operation.split("_")
    if kind == "separable":
        return _separable(x, filters, int(rest[0][0]), int(rest[1]), strides, scope)
    if kind == "atrous":
        return _atrous(x, filters, int(rest[0][0]), strides, scope)
    if kind in ("max", "avg"):
        pool = layers.MaxPooling2D if kind == "max" else layers.AveragePooling2D
        return pool(int(rest[1][0]), strides, padding="same", name=f"{scope}.{operation}")(x)
    # What is left is "none".
    if strides == 1:
        return x
    x = conv(relu(x, f"{scope}.1x1"), filters, 1, strides=strides, name=f"{scope}.1x1")
    return batch_norm(x, f"{scope}.bn_1")


def nas_cell(
    genotype: Genotype, newer: Map, older: Map, *, filters: int, strides: int, scope: str
) -> Map:
    """Two maps -> one map of `filters` channels per concatenated state."""
    x, previous = newer.tensor, older.tensor
    if older.steps != newer.steps:
        previous = ResizeLike(name=f"{scope}.prev_resize")([previous, x])
    if previous.shape[-1] != filters:
        previous = conv(relu(previous, f"{scope}.prev_1x1"), filters, 1, name=f"{scope}.prev_1x1")
        previous = batch_norm(previous, f"{scope}.prev_bn")
    x = conv(relu(x, f"{scope}.1x1"), filters, 1, name=f"{scope}.1x1")
    states = [batch_norm(x, f"{scope}.beginning_bn"), previous]
    for i in range(len(genotype.operations) // 2):
        sides = []
        for side, k in (("left", 2 * i), ("right", 2 * i + 1)):
            source = genotype.inputs[k]
            # Combinations are at the cell's output size already.
            stride = strides if source < 2 else 1
            place = f"{scope}.comb_iter_{i}.{side}"
            sides.append(_apply(genotype.operations[k], states[source], filters, stride, place))
        states.append(layers.Add(name=f"{scope}.comb_iter_{i}.combine")(sides))
    outputs = [states[k] for k in genotype.outputs]
    joined = layers.Concatenate(name=f"{scope}.cell_output")(outputs)
    return Map(joined, newer.steps + "d" * (strides > 1))
