"""Decoder and head of Panoptic-DeepLab (https://arxiv.org/abs/1911.10194, Fig. 2).

The mask transformers have one of each too: their auxiliary semantic loss is on its output, and the
head alone makes their pixel features.
"""

from collections.abc import Sequence
from typing import Any

from keras import initializers, layers

from deeplab_tf.layers.conv import (
    PANOPTIC_BN,
    BatchNormSettings,
    conv_bn_act,
    separable_conv_bn_act,
)
from deeplab_tf.models.aspp import aspp
from deeplab_tf.models.decoder import decoder_stage

# Of separable convolutions: of their depthwise and of their pointwise part.
_INITIALIZERS = ("glorot_uniform", "he_normal")


def panoptic_decoder(
    x,
    low_level: Sequence[tuple[Any, int]],
    *,
    scope: str,
    atrous_rates: Sequence[int],
    aspp_channels: int = 256,
    channels: int = 256,
    only_projection: bool = False,
    image_pooling_window: tuple[int, int] | None = None,
    dropout_rate: float = 0.1,
    separable: bool = True,
    activation: str = "relu",
    batch_norm: BatchNormSettings = PANOPTIC_BN,
):
    """ASPP and one fusion for each low-level map: [B, H, W, C] -> [B, h, w, channels].

    Args:
        x: of the encoder, activated.
        low_level: maps and the channels of their projections, the coarsest first; the last one has
            the size of the result.
        scope: the first part of the layer names.
        only_projection: a 1x1 convolution in place of ASPP.
        image_pooling_window: see `aspp`.
        separable: whether the fusions' convolutions are depthwise separable.
    """
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm)
    if only_projection:
        x = conv_bn_act(
            x,
            aspp_channels,
            1,
            **shared,
            initializer="he_normal",
            name=f"{scope}.concat_projection",
        )
    else:
        x = aspp(
            x,
            atrous_rates=atrous_rates,
            filters=aspp_channels,
            image_pooling_window=image_pooling_window,
            image_pooling_last=True,
            separable=False,
            pooling_activation=activation,
            dropout_rate=dropout_rate,
            **shared,
            initializer="he_normal",
            scope=f"{scope}.",
        )
    for number, (low_level_features, projection_filters) in enumerate(low_level):
        x = decoder_stage(
            x,
            low_level_features,
            filters=channels,
            projection_filters=projection_filters,
            separable=separable,
            num_convs=1,
            kernel_size=5,
            **shared,
            initializers=_INITIALIZERS,
            scope=scope,
            suffix=f"_{number}" if number else "",
        )
    return x


def panoptic_head(
    x,
    filters: int,
    *,
    channels: int,
    separable: bool = True,
    activation: str = "relu",
    batch_norm: BatchNormSettings = PANOPTIC_BN,
    name: str,
    last: str,
):
    """A 5x5 convolution and the last layer, without activation: [B, h, w, C] -> [B, h, w, filters].

    Args:
        channels: between the two.
        name: of the layers before the last one, whose own is `last`.
    """
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm)
    name = f"{name}.conv1_bn_act"
    if separable:
        x = separable_conv_bn_act(x, channels, 5, **shared, initializers=_INITIALIZERS, name=name)
    else:
        x = conv_bn_act(x, channels, 5, **shared, initializer="he_normal", name=name)
    initializer = initializers.TruncatedNormal(stddev=0.01)
    return layers.Conv2D(filters, 1, kernel_initializer=initializer, name=last)(x)
