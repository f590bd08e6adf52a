"""What mask transformers have behind their two paths (MaX-DeepLab, Sec. 3.1 and 3.4).

Paper: https://arxiv.org/abs/2012.00759. kMaX-DeepLab (https://arxiv.org/abs/2207.04044) has the
same in each of its blocks.
"""

import math
from collections.abc import Sequence
from typing import Any

from keras import initializers, layers

from deeplab_tf import keys
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, conv1d_bn_act
from deeplab_tf.layers.normalization import AxesBatchNorm, BatchNorm
from deeplab_tf.layers.slot_masks import SlotMasks, UnitLength
from deeplab_tf.models.panoptic_heads import panoptic_decoder, panoptic_head

# Of void, for slots that have learnt nothing yet.
_VOID_PROBABILITY = 0.9


def mask_predictor(
    pixel_feature,
    class_feature,
    mask_feature,
    *,
    channels: int,
    pixel_channels: int = 128,
    head_channels: int = 256,
    mask_scale: float = 0.1,
    separable: bool = True,
    activation: str = "relu",
    batch_norm: BatchNormSettings = PANOPTIC_BN,
    scope: str = "",
) -> dict[str, Any]:
    """A mask and a class for each slot, float32: see the keys of the result.

    Args:
        pixel_feature: [B, h, w, C], activated.
        class_feature, mask_feature: of the memory, [B, L, D].
        channels: classes of a slot, void among them and last.
        pixel_channels: of the space in which pixels and slots meet.
        head_channels, separable: of the 5x5 convolution before it.
        mask_scale: standard deviation of the mask logits at first.
        scope: comes before the names of all layers, with its dot.

    Returns:
        "pixel_space_normalized_feature" [B, h, w, pixel_channels] of length 1,
        "pixel_space_mask_logits" [B, h, w, L], "transformer_class_logits" [B, L, channels].
    """
    settings: dict[str, Any] = dict(momentum=batch_norm.momentum, epsilon=batch_norm.epsilon)
    x = panoptic_head(
        pixel_feature,
        pixel_channels,
        channels=head_channels,
        separable=separable,
        activation=activation,
        batch_norm=batch_norm,
        name=f"{scope}pixel_space_head.conv_block",
        last=f"{scope}pixel_space_head.final_conv",
    )
    x = BatchNorm(**settings, name=f"{scope}pixel_space_feature_batch_norm")(x)
    pixels = UnitLength(name=f"{scope}{keys.PIXEL_FEATURE}")(x)
    kernels = conv1d_bn_act(
        mask_feature,
        pixel_channels,
        activation=None,
        batch_norm=batch_norm,
        name=f"{scope}transformer_mask_head",
    )
    x = SlotMasks(name=f"{scope}pixel_space_masks")([pixels, kernels])
    # One scale for all slots, so that none is preferred.
    x = AxesBatchNorm(
        (),
        **settings,
        gamma_initializer=initializers.Constant(mask_scale),
        name=f"{scope}pixel_space_mask_batch_norm",
    )(x)
    masks = layers.Activation("linear", name=f"{scope}{keys.MASK_LOGITS}", dtype="float32")(x)
    return {
        keys.PIXEL_FEATURE: pixels,
        keys.MASK_LOGITS: masks,
        keys.MASK_CLASS_LOGITS: _class_logits(class_feature, channels, scope),
    }


def _class_logits(x, channels: int, scope: str):
    """[B, L, D] -> [B, L, channels]; void has a head start, as most slots have no mask."""
    x = conv1d_bn_act(
        x,
        channels,
        activation=None,
        batch_norm=None,
        initializer=0.01,
        name=f"{scope}transformer_class_head",
    )
    start = math.log((channels - 1) * _VOID_PROBABILITY / (1 - _VOID_PROBABILITY))
    offset = [0.0] * (channels - 1) + [start]
    name = f"{scope}{keys.MASK_CLASS_LOGITS}"
    return layers.Rescaling(1.0, offset=offset, name=name, dtype="float32")(x)


def auxiliary_semantic_head(
    x,
    low_level: Sequence[tuple[Any, int]] | None,
    num_classes: int,
    *,
    head_channels: int = 256,
    head_separable: bool = True,
    activation: str = "relu",
    batch_norm: BatchNormSettings = PANOPTIC_BN,
    **decoder,
):
    """The semantic head, for a loss in training: [B, H, W, C] -> float32 [B, h, w, num_classes].

    Args:
        x: of the encoder, activated.
        low_level: of the decoder before the head, see `panoptic_decoder`; None has the head alone.
        **decoder: its other options.
    """
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm)
    if low_level is not None:
        x = panoptic_decoder(x, low_level, scope="semantic_decoder", **decoder, **shared)
    x = panoptic_head(
        x,
        num_classes,
        channels=head_channels,
        separable=head_separable,
        **shared,
        name="semantic_head_without_last_layer",
        last="semantic_last_layer",
    )
    return layers.Activation("linear", name=keys.SEMANTIC_LOGITS, dtype="float32")(x)
