"""The pixel decoder of kMaX-DeepLab (https://arxiv.org/abs/2207.04044, Sec. 3.3)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras import layers

from deeplab_tf.backbones.axial_resnet import MAX_DEEPLAB_S, RESNET_50
from deeplab_tf.backbones.residual_blocks import Network, Variant, residual_blocks
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, activate
from deeplab_tf.layers.resized_fuse import resized_fuse

ACTIVATION = "gelu"
_SCOPE = "pixel_decoder"


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A group of blocks: what it takes from the encoder, at which stride, and its own shape."""

    endpoint: str
    stride: int
    width: int
    blocks: int
    variant: Variant


_STAGES = (
    _Stage("stage5", 32, 512, 1, MAX_DEEPLAB_S),  # attends
    _Stage("stage4", 16, 256, 5, MAX_DEEPLAB_S),
    _Stage("stage3", 8, 128, 1, RESNET_50),  # convolves
    _Stage("stage2", 4, 64, 1, RESNET_50),
    _Stage("stage1", 2, 32, 1, RESNET_50),
)


def pixel_decoder(
    features: Mapping[str, Any],
    *,
    output_stride: int,
    width_multiplier: float = 1.0,
    batch_norm: BatchNormSettings = PANOPTIC_BN,
) -> dict[str, Any]:
    """Adds finer and finer maps of the encoder, with residual blocks between, none activated.

    Args:
        features: of the encoder, "stage5" to "stage2" or "stage1", none activated.
        output_stride: of the finest map, 4 or 2.
        width_multiplier: of the channels.
        batch_norm: of all convolutions.

    Returns:
        "decoder_stage1", "decoder_stage2", … from stride 32 on, and last the finest,
        "decoder_output". They have 2048, 1024, 512, 256 and 128 channels.
    """
    found: dict[str, Any] = {}
    stages = [stage for stage in _STAGES if stage.stride >= output_stride]
    for number, stage in enumerate(stages):
        width = round(stage.width * width_multiplier)
        name = f"{_SCOPE}.backbone_norms.{number}"
        skip = layers.LayerNormalization(epsilon=1e-6, name=name)(features[stage.endpoint])
        x = skip
        if number > 0:
            x = resized_fuse(
                [(found[f"decoder_stage{number}"], 2 * stage.stride), (skip, stage.stride)],
                skip,
                stage.stride,
                filters=width,
                activation=ACTIVATION,
                batch_norm=batch_norm,
                name=f"{_SCOPE}.skip_connections.{number - 1}",
            )
        last = number == len(stages) - 1
        key = "decoder_output" if last else f"decoder_stage{number + 1}"
        found[key] = _blocks(x, stage, width, batch_norm, name=f"{_SCOPE}.stages.{number}")
    return found


def _blocks(x, stage: _Stage, width: int, batch_norm: BatchNormSettings, *, name: str):
    """[B, H, W, C] -> [B, H, W, 4 * width]."""
    # Officially, every stage is a part of a network of stride 16 whose map has stride 32: so
    # those that convolve have a rate of 2.
    network = Network(stage.variant, 16, activation=ACTIVATION, batch_norm=batch_norm)
    activated = activate(x, ACTIVATION, name=f"{name}.{ACTIVATION}")
    x, _ = residual_blocks(
        activated, None, network, count=stage.blocks, stride=32, width=width, name=name
    )
    return x
