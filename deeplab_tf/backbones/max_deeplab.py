"""What is before MaX-DeepLab's heads: a network with a memory, and a decoder that may be stacked.

Paper: https://arxiv.org/abs/2012.00759, Sec. 3.3 and 4. Transformers follow the residual blocks of
its late stages. Behind the encoder, the decoder goes down in strides to 4, and for each stack once
more up and down; all of its stages are fused with those of the same stride before them.
"""

import dataclasses
from typing import Any

from deeplab_tf.backbones.axial_resnet import (
    MAX_DEEPLAB_L,
    MAX_DEEPLAB_S,
    SCOPE,
    encoder,
    stage_width,
)
from deeplab_tf.backbones.residual_blocks import Network, Variant, residual_blocks
from deeplab_tf.layers.conv import activate, conv1d_bn_act
from deeplab_tf.layers.dual_path_transformer import LearnedMemory, Transformer
from deeplab_tf.layers.resized_fuse import resized_fuse

# Of masks.
HIGH_RESOLUTION = 4
# Channels of a transformer at stride 16, which grow with the stride.
_TRANSFORMER_WIDTH = 128


@dataclasses.dataclass(frozen=True)
class Size:
    """One of the two networks (Sec. 4).

    Attributes:
        variant: of the encoder and of all blocks behind it.
        transformer_beyond_stride: blocks whose output has this stride or more have a transformer.
            Strides count as if nothing were dilated.
        backbone_stacks: of the decoder, pretrained together with the encoder.
        extra_stacks: of the decoder, behind those.
        extra_blocks: of each stage that isn't pretrained.
        memory_channels: of the memory.
        transformer_expansion: factor of the transformers' channels.
        feature_channels: of what the heads get of the memory.
    """

    variant: Variant
    transformer_beyond_stride: int = 32
    backbone_stacks: int = 0
    extra_stacks: int = 0
    extra_blocks: int = 1
    memory_channels: int = 256
    transformer_expansion: float = 1.0
    feature_channels: int = 256


SIZES = {
    "s": Size(MAX_DEEPLAB_S),
    "l": Size(
        MAX_DEEPLAB_L,
        transformer_beyond_stride=16,
        backbone_stacks=1,
        extra_stacks=1,
        extra_blocks=3,
        memory_channels=512,
        transformer_expansion=2.0,
        feature_channels=512,
    ),
}


def max_deeplab_features(
    size: Size,
    x,
    network: Network,
    *,
    num_mask_slots: int,
    stem_width_multiplier: float = 1.0,
    width_multiplier: float = 1.0,
    layer_multiplier: float = 1.0,
) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints.

    Args:
        size: which of the two.
        x: normalised pixels.
        network: whose variant is the size's.
        num_mask_slots: rows of the memory.
        stem_width_multiplier: of the stem, and of the first stage of a wide network.
        width_multiplier: of all other residual blocks.
        layer_multiplier: of the number of blocks in stages 2 to 5.

    Returns:
        "stage1" to "stage5" and "res1" to "res5" of the encoder; "backbone", with its stacks;
        "feature_panoptic" [B, h, w, C] at stride 4 and "feature_semantic", both activated; and
        "transformer_class_feature" and "transformer_mask_feature" [B, num_mask_slots, D].

    Raises:
        InputError: a stage without blocks.
    """
    parts = _Parts(size, network, width_multiplier)
    memory = LearnedMemory(num_mask_slots, size.memory_channels, name=f"{SCOPE}.memory_feature")(x)
    endpoints, memory = encoder(
        x,
        network,
        stem_width_multiplier=stem_width_multiplier,
        width_multiplier=width_multiplier,
        layer_multiplier=layer_multiplier,
        memory=memory,
        transformers={number: parts.transformer(2**number, 2 ** (number - 1)) for number in (4, 5)},
    )
    decoded, memory = _decoder(endpoints, memory, parts)
    endpoints |= decoded
    for name in ("class_feature", "mask_feature"):
        endpoints[f"transformer_{name}"] = conv1d_bn_act(
            memory,
            size.feature_channels,
            activation=network.activation,
            batch_norm=network.batch_norm,
            name=f"{SCOPE}.{name}_extra",
        )
    return endpoints


def _decoder(endpoints: dict, memory, parts: "_Parts") -> tuple[dict, Any]:
    """The stacks behind the encoder: (endpoints, memory)."""
    size, network = parts.size, parts.network
    activation, output_stride = network.activation, network.output_stride
    found = {}
    x, stride_of_x, fine = endpoints["stage5"], output_stride, []
    if size.backbone_stacks == 0:
        found["backbone"] = endpoints["res5"]
        x, memory = parts.blocks(endpoints["res5"], memory, output_stride, "stage5_extra")
    # At the encoder's own stride, its last map stands for all.
    maps = {min(2**n, output_stride): [endpoints[f"stage{n}"]] for n in range(1, 5)}
    maps[output_stride] = [x]

    stacks = 0
    for number, stride in enumerate(_strides(size, output_stride), start=1):
        stage, extra = f"decoder_stage{number}", "backbone" in found
        # One of them has come from above, one from below.
        same = maps[stride][-2:]
        fused = f"{SCOPE}.{stage}{'_extra' if extra else ''}_resized_fuse"
        x = resized_fuse(
            [(x, stride_of_x), *((y, stride) for y in same)],
            same[-1],
            stride,
            filters=4 * parts.width(stride),
            activation=activation,
            batch_norm=network.batch_norm,
            name=fused,
        )
        activated = activate(x, activation, name=f"{fused}.{activation}")
        stacks += stride == output_stride
        if not extra:
            x, memory = parts.blocks(activated, memory, stride, stage)
            if stride == output_stride and stacks == size.backbone_stacks:
                activated = activate(x, activation, name=f"{SCOPE}.{stage}.{activation}")
                found["backbone"] = activated
        if "backbone" in found:
            x, memory = parts.blocks(activated, memory, stride, f"{stage}_extra")
        maps[stride].append(x)
        stride_of_x = stride
        if stride == HIGH_RESOLUTION:
            name = f"{SCOPE}.{stage}.high_resolution.{activation}"
            fine.append(activate(x, activation, name=name))
    found["feature_panoptic"] = fine[-1]
    # What the semantic loss needs isn't what masks need: they share no feature.
    semantic = fine[size.backbone_stacks] if size.extra_stacks else found["backbone"]
    return {**found, "feature_semantic": semantic}, memory


def _strides(size: Size, output_stride: int) -> list[int]:
    """Of the decoder's stages: 8, 4 from 16, and for each stack 8, 16, 8, 4."""
    down = [stride for stride in (16, 8, HIGH_RESOLUTION) if stride < output_stride]
    up = [2 * stride for stride in reversed(down)]
    return [*down, *(size.backbone_stacks + size.extra_stacks) * (*up, *down)]


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What stages are made of."""

    size: Size
    network: Network
    width_multiplier: float

    def _dense_stride(self, stride: int) -> int:
        """What a stage's stride would be if the encoder weren't dilated."""
        return 32 if stride == self.network.output_stride else stride

    def width(self, stride: int) -> int:
        """Of the blocks at a stride."""
        return stage_width(self._dense_stride(stride), self.width_multiplier)

    def transformer(self, dense_stride: int, stride: float) -> Transformer | None:
        """Behind blocks that have that stride in the dense network; its width goes by the other."""
        if dense_stride < self.size.transformer_beyond_stride:
            return None
        return Transformer(
            int(_TRANSFORMER_WIDTH * self.size.transformer_expansion * stride / 16),
            activation=self.network.activation,
            batch_norm=self.network.batch_norm,
        )

    def blocks(self, activated, memory, stride: int, name: str):
        """A group of blocks behind the encoder: (not activated, memory)."""
        extra = name.endswith("_extra")
        dense = self._dense_stride(stride)
        return residual_blocks(
            activated,
            memory,
            self.network,
            count=self.size.extra_blocks if extra else 1,
            stride=dense,
            width=self.width(stride),
            transformer=self.transformer(dense, 16 if name == "stage5_extra" else stride),
            name=f"{SCOPE}.{name}",
        )
