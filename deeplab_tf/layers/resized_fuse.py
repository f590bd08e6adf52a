"""How a stacked decoder brings maps of several strides together (MaX-DeepLab, Sec. 3.3)."""

from collections.abc import Sequence
from typing import Any

from keras import layers

from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, activate, conv_bn_act
from deeplab_tf.layers.resize import ResizeLike


def resized_fuse(
    features: Sequence[tuple[Any, int]],
    like,
    stride: int,
    *,
    filters: int,
    activation: str = "relu",
    batch_norm: BatchNormSettings = PANOPTIC_BN,
    name: str,
):
    """The sum of maps that aren't activated: [B, h, w, C] each -> [B, H, W, filters].

    A map of as many channels is resized at most. Others are activated and projected; one of half
    the stride loses every other pixel by the projection's own stride, which is cheaper.

    Args:
        features: the maps, each with its stride.
        like: a map of height H and width W.
        stride: of the sum.
    """
    terms = []
    for number, (x, own_stride) in enumerate(features, start=1):
        halved = 2 * own_stride == stride and x.shape[-1] != filters
        if x.shape[-1] != filters:
            x = activate(x, activation, name=f"{name}.{activation}{number}")
            x = conv_bn_act(
                x,
                filters,
                1,
                strides=2 if halved else 1,
                activation=None,
                batch_norm=batch_norm,
                initializer="he_normal",
                name=f"{name}.{'strided' if halved else 'resized'}_conv_bn{number}",
            )
        if own_stride != stride and not halved:
            x = ResizeLike(name=f"{name}.resize{number}")([x, like])
        terms.append(x)
    return layers.Add(name=f"{name}.add")(terms) if len(terms) > 1 else terms[0]
