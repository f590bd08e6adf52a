"""The decoder of DeepLabv3+ (https://arxiv.org/abs/1802.02611, Sec. 3.2), with all its options."""

from typing import Any

from keras import layers

from deeplab_tf.layers.conv import (
    HEAD_BN,
    BatchNormSettings,
    conv_bn_act,
    separable_conv_bn_act,
)
from deeplab_tf.layers.resize import ResizeLike


def decoder_stage(
    x,
    low_level_features,
    *,
    filters: int = 256,
    projection_filters: int = 48,
    separable: bool = True,
    sum_merge: bool = False,
    output_is_logits: bool = False,
    num_convs: int = 2,
    kernel_size: int = 3,
    low_level_first: bool = False,
    activation: str = "relu",
    batch_norm: BatchNormSettings = HEAD_BN,
    align_corners: bool = True,
    initializers: tuple[str | float, str | float] = (0.33, 0.06),
    scope: str = "decoder",
    suffix: str = "",
):
    """Refines x [B, H, W, C] by low-level features [B, h, w, c]: -> [B, h, w, filters].

    The 1x1 projection keeps the low-level channels from outweighing the encoder's (Table 1); two
    3x3 convolutions follow (Table 2). With `sum_merge` both sides get `filters` channels and are
    added. With `output_is_logits` both are plain 1x1 convolutions, so that the sum is the logits:
    the decoder of MobileNetV3.

    Args:
        num_convs: convolutions after the concatenation.
        kernel_size: of these.
        low_level_first: the low-level features' place in it; the official code puts them last.
        initializers: of separable convolutions.
        scope: the first part of the layer names.
        suffix: of the layer names; the official code numbers a second stage "_1".
    """
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm)
    plain: dict[str, Any] = dict(activation=None, batch_norm=None) if output_is_logits else {}
    low = conv_bn_act(
        low_level_features,
        filters if sum_merge else projection_filters,
        1,
        **{**shared, **plain},
        name=f"{scope}.feature_projection0{suffix}",
    )
    x = ResizeLike(align_corners=align_corners, name=f"{scope}.resize{suffix}")([x, low])
    if sum_merge:
        x = _deep_branch(x, filters, separable, plain, shared, scope, suffix)
        return layers.Add(name=f"{scope}.add{suffix}")([x, low])
    both = [low, x] if low_level_first else [x, low]
    x = layers.Concatenate(name=f"{scope}.concat{suffix}")(both)
    for i in range(num_convs):
        if separable:
            name = f"{scope}.decoder_conv{i}{suffix}"
            x = separable_conv_bn_act(
                x, filters, kernel_size, **shared, initializers=initializers, name=name
            )
        else:
            name = f"{scope}.decoder_conv0{suffix}.decoder_conv0{suffix}_{i + 1}"
            x = conv_bn_act(x, filters, kernel_size, **shared, name=name)
    return x


def _deep_branch(x, filters, separable, plain, shared, scope, suffix):
    """The encoder's side of a summing decoder: [B, h, w, C] -> [B, h, w, filters]."""
    if plain:
        return conv_bn_act(x, filters, 1, **plain, name=f"{scope}.decoder_conv0{suffix}")
    if separable:
        name = f"{scope}.decoder_split_sep_conv0{suffix}"
        return separable_conv_bn_act(x, filters, 3, **shared, name=name)
    return conv_bn_act(x, filters, 3, **shared, name=f"{scope}.decoder_conv0{suffix}")
