"""Xception with aligned features (v3+, Sec. 3.2; https://arxiv.org/abs/1610.02357).

Every max pooling is a strided separable convolution, so that atrous convolution can take its
place.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import layers

from deeplab_tf.backbones.stride_tracker import StrideTracker
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import (
    BatchNormSettings,
    activate,
    conv_bn_act,
    separable_conv_bn_act,
)

BATCH_NORM = BatchNormSettings(epsilon=1e-3, momentum=0.9997)
_STDDEV = 0.09


@dataclasses.dataclass(frozen=True)
class Block:
    """Modules of the same kind.

    Attributes:
        scope: where its layers are.
        filters: of a module's three separable convolutions.
        strides: of the third one.
        modules: how many.
        shortcut: "conv", "sum" or "none".
        endpoint: "res2", "res3" or "res4" if a decoder may take this block's features.
    """

    scope: str
    filters: tuple[int, int, int]
    strides: int = 2
    modules: int = 1
    shortcut: str = "conv"
    endpoint: str = ""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One Xception: its name, and the blocks between the stem and the exit flow."""

    scope: str
    blocks: tuple[Block, ...]


def _entry(number: int, filters: int, strides: int = 2, endpoint: str = "") -> Block:
    return Block(f"entry_flow.block{number}", (filters,) * 3, strides, endpoint=endpoint)


def _middle(modules: int) -> Block:
    return Block("middle_flow.block1", (728,) * 3, 1, modules, shortcut="sum")


_SHORT_ENTRY = (_entry(1, 128), _entry(2, 256, endpoint="res2"), _entry(3, 728, endpoint="res3"))
_LONG_ENTRY = (
    _entry(1, 128),
    _entry(2, 256, strides=1),
    _entry(3, 256, endpoint="res2"),
    _entry(4, 728, strides=1),
    _entry(5, 728, endpoint="res3"),
)
_EXIT = (
    Block("exit_flow.block1", (728, 1024, 1024), endpoint="res4"),
    Block("exit_flow.block2", (1536, 1536, 2048), strides=1, shortcut="none"),
)

XCEPTION_41 = Variant("xception_41", (*_SHORT_ENTRY, _middle(8), *_EXIT))
XCEPTION_65 = Variant("xception_65", (*_SHORT_ENTRY, _middle(16), *_EXIT))
XCEPTION_71 = Variant("xception_71", (*_LONG_ENTRY, _middle(16), *_EXIT))


def _module(x, block: Block, *, strides: int, rates: Sequence[int], bounded: bool, name: str):
    """[B, H, W, C] -> (the module's output, its second separable convolution)."""
    relu = "relu6" if bounded else "relu"
    linear = "clip6" if bounded else None
    shared: dict[str, Any] = dict(batch_norm=BATCH_NORM)
    shortcut = x
    if block.shortcut == "conv":
        shortcut = conv_bn_act(
            x,
            block.filters[-1],
            1,
            strides=strides,
            activation=linear,
            initializer=_STDDEV,
            **shared,
            name=f"{name}.shortcut",
        )
    after_two = None
    for i, (filters, rate) in enumerate(zip(block.filters, rates, strict=True), start=1):
        scope = f"{name}.separable_conv{i}"
        # The last block is the one whose convolutions carry their activations themselves.
        if block.shortcut != "none":
            x = activate(x, relu, name=f"{scope}.{relu}")
        x = separable_conv_bn_act(
            x,
            filters,
            3,
            strides=strides if i == 3 else 1,
            dilation_rate=rate,
            activation=relu if block.shortcut == "none" else linear,
            padding="same" if bounded else "explicit",
            initializers=(_STDDEV, _STDDEV),
            **shared,
            name=scope,
        )
        if i == 2:
            after_two = x
    if block.shortcut != "none":
        x = layers.Add(name=f"{name}.add")([x, shortcut])
        # Bounded summands have a bounded sum only if it is cut as well; an identity shortcut is
        # such a sum and needs no clipping of its own.
        x = activate(x, relu if bounded else None, name=f"{name}.{relu}")
    return x, after_two


def xception(
    variant: Variant,
    x,
    *,
    output_stride: int,
    multi_grid: Sequence[int] | None = None,
    use_bounded_activation: bool = False,
) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 2048 channels.

    Args:
        variant: which one.
        x: normalised pixels.
        output_stride: 8, 16 or 32.
        multi_grid: rates of the last module's three convolutions; None is all ones.
        use_bounded_activation: ReLU6 instead of ReLU, and [-6, 6] where there is no activation:
            ranges that quantise well. Padding is TensorFlow's "same" then.

    Raises:
        InputError: a multi grid of another length than 3.
    """
    grid = tuple(multi_grid or (1, 1, 1))
    if len(grid) != 3:
        raise InputError(
            f"multi_grid of {variant.scope} has 3 numbers, one per convolution of its last "
            f"module; got {list(grid)}."
        )
    relu = "relu6" if use_bounded_activation else "relu"
    tracker = StrideTracker(output_stride)
    for number, (filters, stride) in enumerate(((32, 2), (64, 1)), start=1):
        x = conv_bn_act(
            x,
            filters,
            3,
            strides=tracker.next(stride)[0],
            activation=relu,
            batch_norm=BATCH_NORM,
            padding="explicit",
            initializer=_STDDEV,
            name=f"{variant.scope}.entry_flow.conv1_{number}",
        )
    endpoints = {}
    for block in variant.blocks:
        units = grid if block.shortcut == "none" else (1, 1, 1)
        for module in range(1, block.modules + 1):
            strides, rate = tracker.next(block.strides)
            x, after_two = _module(
                x,
                block,
                strides=strides,
                rates=[rate * unit for unit in units],
                bounded=use_bounded_activation,
                name=f"{variant.scope}.{block.scope}.unit_{module}.xception_module",
            )
        if block.endpoint:
            endpoints[block.endpoint] = after_two
    return {**endpoints, "res5": x}
