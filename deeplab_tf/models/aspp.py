"""Atrous spatial pyramid pooling: v3's (https://arxiv.org/abs/1706.05587, Sec. 3.3) and v2's."""

from collections.abc import Sequence
from typing import Any

from keras import initializers, layers

from deeplab_tf.layers.atrous import AtrousConv2D
from deeplab_tf.layers.conv import (
    HEAD_BN,
    BatchNormSettings,
    conv_bn_act,
    separable_conv_bn_act,
)
from deeplab_tf.layers.pooling import WindowPooling
from deeplab_tf.layers.resize import ResizeLike


def image_level_feature(
    x,
    *,
    filters,
    window,
    strides,
    gate,
    activation="relu",
    batch_norm=HEAD_BN,
    name="image_pooling",
):
    """Pools the map and projects it: [B, H, W, C] -> [B, h, w, filters], h = w = 1 by default.

    Args:
        x: encoder output.
        filters: channels of the projection.
        window: (height, width) to pool over; None pools the whole map.
        strides: of the pooling window.
        gate: None, or the activation of a squeeze-and-excite gate, which has a bias and no
            batch norm.
        activation, batch_norm: where there is no gate.
    """
    if window is None:
        pooled = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    else:
        pooled = WindowPooling(window, strides, name=f"{name}.mean")(x)
    if gate:
        return conv_bn_act(pooled, filters, 1, activation=gate, batch_norm=None, name=name)
    return conv_bn_act(pooled, filters, 1, activation=activation, batch_norm=batch_norm, name=name)


def aspp(
    x,
    *,
    atrous_rates: Sequence[int],
    filters: int = 256,
    image_pooling: bool = True,
    image_pooling_window: tuple[int, int] | None = None,
    image_pooling_strides: tuple[int, int] = (1, 1),
    image_pooling_last: bool = False,
    separable: bool = True,
    concat_projection: bool = True,
    projection_kernel_size: int = 1,
    squeeze_and_excitation: bool = False,
    gate: str = "sigmoid",
    activation: str = "relu",
    pooling_activation: str = "relu",
    batch_norm: BatchNormSettings = HEAD_BN,
    dropout_rate: float = 0.1,
    align_corners: bool = True,
    initializer: str | float = "glorot_uniform",
    scope: str = "",
):
    """[B, H, W, C] -> [B, H, W, filters] (without `concat_projection`: filters per branch).

    The image-level feature, a 1x1 branch and one 3x3 branch per rate, concatenated in the
    official order: the kernel of `concat_projection` depends on it. `image_pooling_last` moves
    the image-level feature behind the others, the order of PyTorch's models. With
    `squeeze_and_excitation` the image-level feature becomes a gate that multiplies the result
    instead: with one branch and no projection that is the light R-ASPP head of MobileNetV3
    (https://arxiv.org/abs/1905.02244, Sec. 6.4). `initializer` is of plain convolutions; `scope`
    comes before the names of all layers.
    """
    branches = []
    pooled = None
    if image_pooling:
        pooled = image_level_feature(
            x,
            filters=filters,
            window=image_pooling_window,
            strides=image_pooling_strides,
            gate=gate if squeeze_and_excitation else None,
            activation=pooling_activation,
            batch_norm=batch_norm,
            name=f"{scope}image_pooling",
        )
        resize = ResizeLike(align_corners=align_corners, name=f"{scope}image_pooling.resize")
        pooled = resize([pooled, x])
        if not squeeze_and_excitation and not image_pooling_last:
            branches.append(pooled)
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm)
    plain: dict[str, Any] = dict(**shared, initializer=initializer)
    branches.append(conv_bn_act(x, filters, 1, **plain, name=f"{scope}aspp0"))
    for i, rate in enumerate(atrous_rates, start=1):
        options: dict[str, Any] = dict(dilation_rate=rate, name=f"{scope}aspp{i}")
        if separable:
            branches.append(separable_conv_bn_act(x, filters, 3, **shared, **options))
        else:
            branches.append(conv_bn_act(x, filters, 3, **plain, **options))
    if pooled is not None and not squeeze_and_excitation and image_pooling_last:
        branches.append(pooled)
    y = branches[0]
    if len(branches) > 1:
        y = layers.Concatenate(name=f"{scope}aspp.concat")(branches)
    if concat_projection:
        name = f"{scope}concat_projection"
        y = conv_bn_act(y, filters, projection_kernel_size, **plain, name=name)
        y = layers.Dropout(dropout_rate, name=f"{name}_dropout")(y)
    if squeeze_and_excitation and pooled is not None:
        y = layers.Multiply(name=f"{scope}aspp.gate")([y, pooled])
    return y


def summed_logits(
    x, num_classes: int, *, atrous_rates: Sequence[int], kernel_size: int, use_bias: bool = True
):
    """One convolution per rate, summed: [B, H, W, C] -> [B, H, W, num_classes].

    With several rates that is ASPP as v2 introduced it (https://arxiv.org/abs/1606.00915,
    Sec. 3.2); there is neither batch norm nor activation.
    """
    branches = []
    for i, rate in enumerate(atrous_rates):
        convolution = AtrousConv2D if rate > 1 else layers.Conv2D
        branch = convolution(
            num_classes,
            kernel_size,
            padding="same",
            dilation_rate=rate,
            use_bias=use_bias,
            kernel_initializer=initializers.TruncatedNormal(stddev=0.01),
            name="logits.semantic" + (f"_{i}" if i else ""),
        )
        branches.append(branch(x))
    return layers.Add(name="logits.add")(branches) if len(branches) > 1 else branches[0]
