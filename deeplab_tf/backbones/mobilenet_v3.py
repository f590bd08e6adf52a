"""MobileNetV3 (https://arxiv.org/abs/1905.02244), and MobileNet EdgeTPU.

In the `_seg` networks the last block has half the width: the paper's Sec. 6.4 finds that
segmentation doesn't miss the rest.
"""

import dataclasses
from typing import Any

from deeplab_tf.backbones.inverted_residual import inverted_residual
from deeplab_tf.backbones.stride_tracker import StrideTracker
from deeplab_tf.layers.channels import make_divisible
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, conv_bn_act

BATCH_NORM = BatchNormSettings(epsilon=1e-3, momentum=0.997)


@dataclasses.dataclass(frozen=True)
class _Block:
    """One inverted residual: expansion factor, channels, kernel, stride and extras."""

    expansion: float
    channels: int
    kernel: int = 3
    stride: int = 1
    se: bool = False
    swish: bool = False
    fused: bool = False
    residual: bool = True


def _last_blocks(expansion: float, channels: int) -> tuple[_Block, ...]:
    """Those at stride 32, alike in both networks; the first one's expansion is given."""
    shared: dict[str, Any] = dict(se=True, swish=True)
    later = _Block(6, channels, 5, **shared)
    return (_Block(expansion, channels, 5, 2, **shared), later, later)


# Tables 1 and 2 of the paper, up to stride 16.
_LARGE = (
    _Block(1, 16),
    _Block(4, 24, stride=2),
    _Block(3, 24),
    _Block(3, 40, 5, 2, se=True),
    _Block(3, 40, 5, se=True),
    _Block(3, 40, 5, se=True),
    _Block(6, 80, stride=2, swish=True),
    _Block(2.5, 80, swish=True),
    _Block(184 / 80, 80, swish=True),
    _Block(184 / 80, 80, swish=True),
    _Block(6, 112, se=True, swish=True),
    _Block(6, 112, se=True, swish=True),
)
_SMALL = (
    _Block(1, 16, stride=2, se=True),
    _Block(72 / 16, 24, stride=2),
    _Block(88 / 24, 24),
    _Block(4, 40, 5, 2, se=True, swish=True),
    _Block(6, 40, 5, se=True, swish=True),
    _Block(6, 40, 5, se=True, swish=True),
    _Block(3, 48, 5, se=True, swish=True),
    _Block(3, 48, 5, se=True, swish=True),
)
_EDGETPU = (
    _Block(1, 16, fused=True),
    _Block(8, 32, stride=2, fused=True),
    *[_Block(4, 32, fused=True)] * 3,
    _Block(8, 48, stride=2, fused=True),
    *[_Block(4, 48, fused=True)] * 3,
    _Block(8, 96, stride=2),
    *[_Block(4, 96)] * 3,
    _Block(8, 96, residual=False),
    *[_Block(4, 96)] * 3,
    _Block(8, 160, 5, 2),
    *[_Block(4, 160, 5)] * 3,
    _Block(8, 192),
)


def _build(
    x,
    blocks: tuple[_Block, ...],
    *,
    scope: str,
    stem: int,
    last: int,
    activation: str,
    low_level: dict[int, str],
    output_stride: int,
    depth_multiplier: float,
    torch: bool = False,
    batch_norm: BatchNormSettings = BATCH_NORM,
    padding: str = "same",
    gate_activation: str = "q_sigmoid",
    stem_endpoint: str = "",
) -> dict:
    """[B, H, W, 3] -> endpoints; `low_level` maps block numbers to names.

    `torch` follows torchvision: padding alike on all sides, hard sigmoid gates, the new atrous
    rate in the block that loses its stride too, and outputs of blocks as low-level features.
    """

    def width(channels: float) -> int:
        return make_divisible(channels * depth_multiplier, 8)

    tracker = StrideTracker(output_stride, keeps_rate=not torch)
    padding = "explicit" if torch else padding
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm, initializer=0.09)
    strides, _ = tracker.next(2)
    x = conv_bn_act(
        x, width(stem), 3, strides=strides, padding=padding, **shared, name=f"{scope}.Conv"
    )
    endpoints = {stem_endpoint: x} if stem_endpoint else {}
    for number, block in enumerate(blocks):
        strides, rate = tracker.next(block.stride)
        x, filtered = inverted_residual(
            x,
            expanded=make_divisible(x.shape[-1] * block.expansion, 8),
            filters=width(block.channels),
            kernel_size=block.kernel,
            strides=strides,
            dilation_rate=rate,
            activation="hard_swish" if block.swish else "relu",
            batch_norm=batch_norm,
            padding=padding,
            use_squeeze_excite=block.se,
            gate_activation="hard_sigmoid" if torch else gate_activation,
            fused=block.fused,
            residual=block.residual,
            name=f"{scope}.expanded_conv" + (f"_{number}" if number else ""),
        )
        if number in low_level:
            endpoints[low_level[number]] = x if torch else filtered
    x = conv_bn_act(x, width(last), 1, **shared, name=f"{scope}.Conv_1")
    return {**endpoints, "res5": x}


# Blocks before those with a stride.
_LARGE_LOW_LEVEL = {2: "res2", 5: "res3", 11: "res4"}


def _large(
    x, last_blocks: tuple[_Block, ...], last: int, *, low_level: dict[int, str], **options
) -> dict:
    return _build(
        x,
        (*_LARGE, *last_blocks),
        scope="MobilenetV3",
        stem=16,
        last=last,
        activation="hard_swish",
        low_level=low_level,
        **options,
    )


def _small(x, last_blocks: tuple[_Block, ...], last: int, **options) -> dict:
    return _build(
        x,
        (*_SMALL, *last_blocks),
        scope="MobilenetV3",
        stem=16,
        last=last,
        activation="hard_swish",
        low_level={0: "res2", 2: "res3", 7: "res4"},
        **options,
    )


def mobilenet_v3_large(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 960 channels."""
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    return _large(x, _last_blocks(6, 160), 960, low_level=_LARGE_LOW_LEVEL, **options)


def mobilenet_v3_large_seg(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 480 channels."""
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    return _large(x, _last_blocks(3, 80), 480, low_level=_LARGE_LOW_LEVEL, **options)


def mobilenet_v3_large_torch(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3], normalised by mean and deviation -> endpoints; "res5" has 960 channels.

    torchvision's network, whose features at an output stride below 32 are not the dense ones
    subsampled. Its low-level features are the outputs of blocks with a stride.
    """
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    low_level = {1: "res2", 3: "res3", 6: "res4"}
    return _large(x, _last_blocks(6, 160), 960, low_level=low_level, torch=True, **options)


def mobilenet_v3_small(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 576 channels."""
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    return _small(x, _last_blocks(6, 96), 576, **options)


def mobilenet_v3_small_seg(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 288 channels."""
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    return _small(x, _last_blocks(3, 48), 288, **options)


def _deeplab2(epsilon: float) -> dict[str, Any]:
    """deeplab2's: its batch norm, padding alike on all sides, and a sigmoid in the gates."""
    batch_norm = dataclasses.replace(PANOPTIC_BN, epsilon=epsilon)
    return dict(batch_norm=batch_norm, padding="explicit", gate_activation="sigmoid")


def mobilenet_v3_large_deeplab2(
    x,
    *,
    output_stride: int,
    depth_multiplier: float = 1.0,
    batch_norm_epsilon: float = PANOPTIC_BN.epsilon,
) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 960 channels, and there is "res1"."""
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    options |= _deeplab2(batch_norm_epsilon)
    low_level = {0: "res1", **_LARGE_LOW_LEVEL}
    return _large(x, _last_blocks(6, 160), 960, low_level=low_level, **options)


def mobilenet_v3_small_deeplab2(
    x,
    *,
    output_stride: int,
    depth_multiplier: float = 1.0,
    batch_norm_epsilon: float = PANOPTIC_BN.epsilon,
) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 576 channels, and there is "res1"."""
    options: dict[str, Any] = dict(output_stride=output_stride, depth_multiplier=depth_multiplier)
    options |= _deeplab2(batch_norm_epsilon)
    return _small(x, _last_blocks(6, 96), 576, stem_endpoint="res1", **options)


def mobilenet_edgetpu(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 1280 channels.

    The official code gives this network no low-level features; ours are the expanded maps of
    the last block at each stride, as in its relatives.
    """
    return _build(
        x,
        _EDGETPU,
        scope="MobilenetEdgeTPU",
        stem=32,
        last=1280,
        activation="relu",
        low_level={4: "res2", 8: "res3", 16: "res4"},
        output_stride=output_stride,
        depth_multiplier=depth_multiplier,
    )
