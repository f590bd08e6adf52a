"""The residual networks of the panoptic models: ResNet, SWideRNet, Axial-ResNet, and MaX-DeepLab's.

One family: what differs is the stem, the kind of block at each stride, and widths. Papers:
Axial-DeepLab, https://arxiv.org/abs/2003.07853; SWideRNet, https://arxiv.org/abs/2011.11675;
MaX-DeepLab, https://arxiv.org/abs/2012.00759.

They differ from `resnet` in more than attention: no pool, so that the second stage has a stride of
its own; strides in the first block of a stage, in its first spatial operation; and blocks that take
what isn't activated, activate it, and return a sum that isn't.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from deeplab_tf.backbones.residual_blocks import (
    Network,
    Variant,
    residual_blocks,
    residual_conv,
)
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import PANOPTIC_BN, activate
from deeplab_tf.layers.dual_path_transformer import Transformer

SCOPE = "encoder"
# Channels of a block's 3x3 convolution for each pixel of a stage's stride: the last, 32, has 512.
_WIDTH = 16

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
    activation: str = "relu",
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
        activation: of every block; kMaX-DeepLab has "gelu" on its axial backbone.

    Raises:
        InputError: an unknown schedule, no probability, or a stage without blocks.
    """
    network = Network(
        variant,
        output_stride,
        activation=activation,
        batch_norm=dataclasses.replace(PANOPTIC_BN, epsilon=batch_norm_epsilon),
        use_sac_beyond_stride=use_sac_beyond_stride,
        use_squeeze_and_excite=use_squeeze_and_excite,
        drop_path_keep_prob=drop_path_keep_prob,
        drop_path_schedule=drop_path_schedule,
    )
    endpoints, _ = encoder(
        x,
        network,
        stem_width_multiplier=stem_width_multiplier,
        width_multiplier=backbone_width_multiplier,
        layer_multiplier=backbone_layer_multiplier,
    )
    return endpoints


def encoder(
    x,
    network: Network,
    *,
    stem_width_multiplier: float = 1.0,
    width_multiplier: float | None = None,
    layer_multiplier: float = 1.0,
    memory=None,
    transformers: Mapping[int, Transformer | None] | None = None,
) -> tuple[dict, Any]:
    """Stem and stages: (endpoints, memory), for arguments see `axial_resnet`.

    Args:
        memory: of the transformers, [B, L, D].
        transformers: by the number of the stage whose blocks they follow, None for none.
    """
    variant = network.variant
    width = variant.width if width_multiplier is None else width_multiplier
    x = _stem(x, network, stem_width_multiplier)
    activated = activate(x, network.activation, name=f"{SCOPE}.stem.{network.activation}")
    endpoints = {"stage1": x, "res1": activated}
    counts = [int(count * layer_multiplier) for count in variant.blocks]
    if min(counts) < 1:
        raise InputError(
            f"backbone_layer_multiplier={layer_multiplier} leaves a stage without blocks: "
            f"it multiplies {list(variant.blocks)}."
        )
    # (number, blocks, stride of its input, its own stride, width)
    stages = [
        (number, counts[number - 2], 2 ** (number - 1), 2, stage_width(2**number, width))
        for number in range(2, 6)
    ]
    if variant.wide:
        stages.insert(0, (1, 3, 2, 1, stage_width(2, stem_width_multiplier)))
    for number, count, stride, own_stride, channels in stages:
        name = f"{SCOPE}.stage{number}"
        x, memory = residual_blocks(
            activated,
            memory,
            network,
            count=count,
            stride=stride,
            own_stride=own_stride,
            width=channels,
            transformer=(transformers or {}).get(number),
            name=name,
        )
        activated = activate(x, network.activation, name=f"{name}.{network.activation}")
        endpoints |= {f"stage{number}": x, f"res{number}": activated}
    return endpoints, memory


def stage_width(stride: int, multiplier: float) -> int:
    """Channels of a block's 3x3 convolution in a stage that ends at that stride."""
    return round(stride * _WIDTH * multiplier)


def _stem(x, network: Network, multiplier: float):
    """Half the size, not activated."""
    name = f"{SCOPE}.stem"
    shared: dict[str, Any] = dict(batch_norm=network.batch_norm)
    if network.variant.stem == "inception":
        for number, width, activation in (
            (1, 64, network.activation),
            (2, 64, network.activation),
            (3, 128, None),
        ):
            x = residual_conv(
                x,
                int(width * multiplier),
                3,
                strides=2 if number == 1 else 1,
                activation=activation,
                **shared,
                name=f"{name}.conv{number}_bn" + ("_act" if activation else ""),
            )
        return x
    kernel_size = 7 if network.variant.stem == "7x7" else 3
    width = round(64 * multiplier)
    return residual_conv(x, width, kernel_size, strides=2, activation=None, **shared, name=name)
