"""The residual networks of the panoptic models: ResNet, SWideRNet, Axial-ResNet, and MaX-DeepLab's.

One family: what differs is the stem, the kind of block at each stride, and widths. Papers:
Axial-DeepLab, https://arxiv.org/abs/2003.07853; SWideRNet, https://arxiv.org/abs/2011.11675;
MaX-DeepLab, https://arxiv.org/abs/2012.00759.

They differ from `resnet` in more than attention: no pool, so that the second stage has a stride of
its own; strides in the first block of a stage, in its first spatial operation; and blocks that take
what isn't activated, activate it, and return a sum that isn't.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

from keras import layers

from deeplab_tf.backbones.stride_tracker import StrideTracker
from deeplab_tf.errors import InputError
from deeplab_tf.layers.axial_attention import axial_attention_2d
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, activate, conv_bn_act
from deeplab_tf.layers.drop_path import check_keep_prob, drop_path
from deeplab_tf.layers.squeeze_excite import simplified_squeeze_excite
from deeplab_tf.layers.switchable_atrous import switchable_conv_bn_act

SCOPE = "encoder"
# Channels of a block's 3x3 convolution at a stage's input stride of 1: the last, at 16, has 512.
_WIDTH = 32
# The stages whose keep probability falls linearly.
_DROPPED_STAGES = 4


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network of the family.

    Attributes:
        stem: one 7x7 convolution, three of 3x3 ("inception", the beta form), or one of 3x3 before
            a stage more (Wide-ResNet).
        blocks: of stages 2 to 5.
        wide: basic blocks of two 3x3 convolutions at four times the width, and in the last stage
            wider bottlenecks (SWideRNet, Fig. 3); else bottlenecks.
        axial_beyond_stride: blocks whose input has this stride or more attend along the axes
            instead of convolving; 0 for none. Strides count as if nothing were dilated.
        width: factor of all stages.
        attention_bottleneck, key_expansion, value_expansion: channels before attention, of its keys
            and of its values, as multiples of a block's width.
        drop_path_beyond_stride: whose blocks may be left out in training.
    """

    stem: Literal["7x7", "inception", "3x3"]
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    wide: bool = False
    axial_beyond_stride: int = 0
    width: float = 1.0
    attention_bottleneck: int = 2
    key_expansion: int = 1
    value_expansion: int = 2
    drop_path_beyond_stride: int = 16


RESNET_50 = Variant("7x7")
RESNET_50_BETA = Variant("inception")
SWIDERNET = Variant("3x3", (3, 6, 3, 3), wide=True, drop_path_beyond_stride=4)
AXIAL_SWIDERNET = dataclasses.replace(
    SWIDERNET, axial_beyond_stride=16, attention_bottleneck=4, key_expansion=2, value_expansion=4
)
# The paper's S, M, L and XL (Sec. 4): one network in four widths.
AXIAL_RESNET_L = dataclasses.replace(RESNET_50, axial_beyond_stride=2)
AXIAL_RESNET_S = dataclasses.replace(AXIAL_RESNET_L, width=0.5)
AXIAL_RESNET_M = dataclasses.replace(AXIAL_RESNET_L, width=0.75)
AXIAL_DEEPLAB_L = dataclasses.replace(RESNET_50_BETA, axial_beyond_stride=2)
AXIAL_DEEPLAB_S = dataclasses.replace(AXIAL_DEEPLAB_L, width=0.5)
AXIAL_DEEPLAB_M = dataclasses.replace(AXIAL_DEEPLAB_L, width=0.75)
AXIAL_DEEPLAB_XL = dataclasses.replace(AXIAL_DEEPLAB_L, width=2.0)
MAX_DEEPLAB_S = dataclasses.replace(RESNET_50_BETA, axial_beyond_stride=16)
# What MaX-DeepLab-L has before its stacked decoder.
MAX_DEEPLAB_L = AXIAL_SWIDERNET


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a block is, and so what it is made of.

    Attributes:
        stride: of its input in the network without atrous convolution.
        last_stage: whether that stage ends at stride 32.
        width: channels of its 3x3 convolution.
        strides, dilation_rate: of its first spatial operation.
        second_rate: of the second 3x3 in a basic block.
        switchable: whether 3x3 convolutions have a switch.
        squeeze_excite: whether channels are gated.
        keep_prob: of the block, in training.
        batch_norm: of all its convolutions.
    """

    stride: int
    last_stage: bool
    width: int
    strides: int
    dilation_rate: int
    second_rate: int
    switchable: bool
    squeeze_excite: bool
    keep_prob: float
    batch_norm: BatchNormSettings


def axial_resnet(
    variant: Variant,
    x,
    *,
    output_stride: int,
    stem_width_multiplier: float = 1.0,
    backbone_width_multiplier: float | None = None,
    backbone_layer_multiplier: float = 1.0,
    use_sac_beyond_stride: int = 0,
    use_squeeze_and_excite: bool = False,
    drop_path_keep_prob: float = 1.0,
    drop_path_schedule: str = "linear",
    batch_norm_epsilon: float = PANOPTIC_BN.epsilon,
) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints: "stage1" to "stage5", and activated "res1" to "res5".

    Args:
        variant: which one.
        x: normalised pixels.
        output_stride: 8, 16 or 32.
        stem_width_multiplier: of the stem, and of the first stage of a wide network.
        backbone_width_multiplier: of the stages; None is the variant's own.
        backbone_layer_multiplier: of the number of blocks in stages 2 to 5.
        use_sac_beyond_stride: stages that end at this stride or beyond have switchable atrous
            convolutions; 0 for none.
        use_squeeze_and_excite: gate the channels of each block.
        drop_path_keep_prob: of the last stage, in training.
        drop_path_schedule: "linear" from 1 at the stem, or "constant".
        batch_norm_epsilon: of every batch norm.

    Raises:
        InputError: an unknown schedule, no probability, or a stage without blocks.
    """
    check_keep_prob(drop_path_keep_prob)  # no block may have it itself
    if drop_path_schedule not in ("linear", "constant"):
        raise InputError(f"drop_path_schedule is linear or constant; got {drop_path_schedule!r}.")
    width = variant.width if backbone_width_multiplier is None else backbone_width_multiplier
    batch_norm = dataclasses.replace(PANOPTIC_BN, epsilon=batch_norm_epsilon)
    tracker = StrideTracker(output_stride)
    x = _stem(x, variant, batch_norm, stem_width_multiplier, tracker.next(2)[0])
    activated = activate(x, "relu", name=f"{SCOPE}.stem.relu")
    endpoints = {"stage1": x, "res1": activated}
    counts = [int(count * backbone_layer_multiplier) for count in variant.blocks]
    if min(counts) < 1:
        raise InputError(
            f"backbone_layer_multiplier={backbone_layer_multiplier} leaves a stage without blocks: "
            f"it multiplies {list(variant.blocks)}."
        )
    # (number, blocks, stride of its input, its own stride, width)
    stages = [
        (number, counts[number - 2], 2 ** (number - 1), 2, 2 ** (number - 1) * _WIDTH * width)
        for number in range(2, 6)
    ]
    if variant.wide:
        stages.insert(0, (1, 3, 2, 1, _WIDTH * stem_width_multiplier))
    for number, count, before, own, channels in stages:
        stride = before
        for index in range(count):
            strides, rate = tracker.next(own if index == 0 else 1)
            keep = 1.0
            if stride >= variant.drop_path_beyond_stride:
                level = round(math.log2(stride) - 1) / _DROPPED_STAGES
                share = level if drop_path_schedule == "linear" else 1.0
                keep = 1.0 - (1.0 - drop_path_keep_prob) * share
            place = _Place(
                stride=stride,
                last_stage=before * own >= 32,
                width=round(channels),
                strides=strides,
                dilation_rate=rate,
                second_rate=tracker.next(1)[1],
                switchable=before * own >= use_sac_beyond_stride > 0,
                squeeze_excite=use_squeeze_and_excite,
                keep_prob=keep,
                batch_norm=batch_norm,
            )
            name = f"{SCOPE}.stage{number}.block{index + 1}"
            x = _block(activated, variant, place, name=name)
            activated = activate(x, "relu", name=f"{name}.relu")
            stride = before * own
        endpoints |= {f"stage{number}": x, f"res{number}": activated}
    return endpoints


def _stem(x, variant: Variant, batch_norm: BatchNormSettings, multiplier: float, strides: int):
    """Half the size, not activated."""
    name = f"{SCOPE}.stem"
    if variant.stem == "inception":
        for number, width, activation in ((1, 64, "relu"), (2, 64, "relu"), (3, 128, None)):
            x = _conv(
                x,
                int(width * multiplier),
                3,
                strides=strides if number == 1 else 1,
                activation=activation,
                batch_norm=batch_norm,
                name=f"{name}.conv{number}_bn" + ("_act" if activation else ""),
            )
        return x
    kernel = 7 if variant.stem == "7x7" else 3
    options: dict[str, Any] = dict(strides=strides, activation=None, batch_norm=batch_norm)
    return _conv(x, round(64 * multiplier), kernel, **options, name=name)


def _conv(x, filters: int, kernel_size: int, *, switchable: bool = False, **options):
    """A convolution of this family; those 3x3 that are switchable have two rates."""
    if switchable:
        return switchable_conv_bn_act(x, filters, kernel_size, **options)
    return conv_bn_act(
        x, filters, kernel_size, padding="explicit", initializer="he_normal", **options
    )


def _block(activated, variant: Variant, place: _Place, *, name: str):
    """Activated [B, H, W, C] -> the sum with its shortcut, not activated: [B, h, w, D]."""
    axial = place.stride >= variant.axial_beyond_stride > 0
    filters = place.width * 4
    conv = functools.partial(_conv, batch_norm=place.batch_norm)
    spatial: dict[str, Any] = dict(strides=place.strides, dilation_rate=place.dilation_rate)
    switchable: dict[str, Any] = dict(switchable=place.switchable)
    # The branch begins at zero, and the network as the chain of its shortcuts.
    last: dict[str, Any] = dict(activation=None, gamma_initializer="zeros")
    if variant.wide and not axial and not place.last_stage:
        x = conv(activated, filters, 3, **spatial, **switchable, name=f"{name}.conv1_bn_act")
        rate = place.second_rate
        x = conv(x, filters, 3, dilation_rate=rate, **switchable, **last, name=f"{name}.conv2_bn")
    elif axial:
        inner = place.width * variant.attention_bottleneck
        x = conv(activated, inner, 1, name=f"{name}.conv1_bn_act")
        x = axial_attention_2d(
            x,
            filters=place.width,
            key_expansion=variant.key_expansion,
            value_expansion=variant.value_expansion,
            strides=place.strides,
            batch_norm=place.batch_norm,
            name=f"{name}.attention",
        )
        x = activate(x, "relu", name=f"{name}.attention.relu")
        x = conv(x, filters, 1, **last, name=f"{name}.conv3_bn")
    else:
        x = conv(activated, place.width, 1, name=f"{name}.conv1_bn_act")
        middle = place.width * (2 if variant.wide else 1)
        x = conv(x, middle, 3, **spatial, **switchable, name=f"{name}.conv2_bn_act")
        x = conv(x, filters, 1, **last, name=f"{name}.conv3_bn")
    if place.squeeze_excite:
        x = simplified_squeeze_excite(x, name=f"{name}.squeeze_and_excite")
    x = drop_path(x, place.keep_prob, name=f"{name}.drop_path")
    shortcut = activated
    if activated.shape[-1] != filters:
        shortcut = conv(
            activated, filters, 1, strides=place.strides, activation=None, name=f"{name}.shortcut"
        )
    elif place.strides > 1:
        shortcut = layers.MaxPooling2D(1, place.strides, name=f"{name}.shortcut")(activated)
    return layers.Add(name=f"{name}.add")([shortcut, x])
