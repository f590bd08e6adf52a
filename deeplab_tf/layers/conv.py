"""Convolution blocks: functions over built-in layers, so that the graph stays flat.

A block's layers take the names of the official variable scopes, with "." for "/".
"""

import dataclasses

from keras import initializers as keras_initializers
from keras import layers, ops

from deeplab_tf.layers.atrous import AtrousConv2D
from deeplab_tf.layers.normalization import BatchNorm


@dataclasses.dataclass(frozen=True)
class BatchNormSettings:
    """Epsilon, and the share of the old mean kept at each step (`momentum` in Keras)."""

    epsilon: float
    momentum: float


# Image pooling, ASPP, projections and decoder, on any backbone.
HEAD_BN = BatchNormSettings(epsilon=1e-5, momentum=0.9997)
# Everywhere in the panoptic models, backbones and heads.
PANOPTIC_BN = BatchNormSettings(epsilon=1e-3, momentum=0.99)


def _initializer(initializer: str | float):
    """A new initializer at each call: a shared one would repeat its values."""
    if isinstance(initializer, str):
        return keras_initializers.get(initializer)
    return keras_initializers.TruncatedNormal(stddev=initializer)


def _clip6(x):
    return ops.clip(x, -6.0, 6.0)


def activate(x, activation: str | None, *, name: str):
    """Applies an activation by its name, or nothing for None."""
    if activation is None:
        return x
    if activation == "relu":
        return layers.ReLU(name=name)(x)
    if activation == "relu6":
        return layers.ReLU(6.0, name=name)(x)
    if activation == "clip6":
        return layers.Activation(_clip6, name=name)(x)
    if activation == "hard_swish":
        return layers.Activation("hard_silu", name=name)(x)
    if activation == "swish":
        return layers.Activation("silu", name=name)(x)
    # Of GELU the exact form, with the error function.
    if activation in ("sigmoid", "hard_sigmoid", "gelu"):
        return layers.Activation(activation, name=name)(x)
    if activation == "q_sigmoid":
        # The gate of the mobile models is relu6(x + 3) * 0.16667, not / 6.
        x = layers.Rescaling(1.0, offset=3.0, name=f"{name}.shift")(x)
        x = layers.ReLU(6.0, name=f"{name}.relu6")(x)
        return layers.Rescaling(0.16667, name=name)(x)
    raise ValueError(
        "activation is one of relu, relu6, clip6, gelu, swish, hard_swish, hard_sigmoid, "
        f"q_sigmoid, sigmoid, None; got {activation!r}."
    )


def explicit_padding(x, kernel_size: int, dilation_rate: int = 1, *, name: str):
    """Pads the same on both sides: what a strided convolution needs to be size-independent.

    TensorFlow's "same" pads more at the end on even sizes, so features shift by a pixel there.
    """
    total = (kernel_size - 1) * dilation_rate
    pad = (total // 2, total - total // 2)
    return layers.ZeroPadding2D((pad, pad), name=name)(x)


def normalize_and_activate(
    x,
    *,
    activation: str | None,
    batch_norm: BatchNormSettings | None,
    gamma_initializer: str = "ones",
    name: str,
):
    """What follows a convolution; either may be left out with None."""
    if batch_norm is not None:
        x = BatchNorm(
            epsilon=batch_norm.epsilon,
            momentum=batch_norm.momentum,
            gamma_initializer=gamma_initializer,
            name=f"{name}.BatchNorm",
        )(x)
    return activate(x, activation, name=f"{name}.{activation}")


def conv_bn_act(
    x,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    dilation_rate: int = 1,
    activation: str | None = "relu",
    batch_norm: BatchNormSettings | None = HEAD_BN,
    padding: str = "same",
    initializer: str | float = "glorot_uniform",
    gamma_initializer: str = "ones",
    name: str,
):
    """Convolution, batch norm, activation: [B, H, W, C] -> [B, H', W', filters].

    Without batch norm the convolution has a bias. `padding` is "same" (TensorFlow's), "valid" or
    "explicit" (see `explicit_padding`; it only matters with a stride). `initializer` is a Keras
    initializer's name, or the deviation of a truncated normal; `gamma_initializer`, "zeros" in the
    last convolution of a residual block, lets the network begin as its shortcuts.
    """
    if padding == "explicit":
        padding = "same"
        if strides > 1:
            x = explicit_padding(x, kernel_size, dilation_rate, name=f"{name}.pad")
            padding = "valid"
    convolution = AtrousConv2D if dilation_rate > 1 else layers.Conv2D
    x = convolution(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
        use_bias=batch_norm is None,
        kernel_initializer=_initializer(initializer),
        name=name,
    )(x)
    return normalize_and_activate(
        x,
        activation=activation,
        batch_norm=batch_norm,
        gamma_initializer=gamma_initializer,
        name=name,
    )


def conv1d_bn_act(
    x,
    filters: int,
    *,
    activation: str | None = "relu",
    batch_norm: BatchNormSettings | None = HEAD_BN,
    initializer: str | float = "he_normal",
    gamma_initializer: str = "ones",
    name: str,
):
    """Projection of each item of a set, batch norm, activation: [B, L, C] -> [B, L, filters].

    It is a convolution of width 1, so its kernel is [1, C, filters]. Otherwise as `conv_bn_act`.
    """
    x = layers.Conv1D(
        filters,
        1,
        use_bias=batch_norm is None,
        kernel_initializer=_initializer(initializer),
        name=name,
    )(x)
    return normalize_and_activate(
        x,
        activation=activation,
        batch_norm=batch_norm,
        gamma_initializer=gamma_initializer,
        name=name,
    )


def depthwise_bn_act(
    x,
    kernel_size: int,
    *,
    strides: int = 1,
    dilation_rate: int = 1,
    activation: str | None = "relu",
    batch_norm: BatchNormSettings | None = HEAD_BN,
    padding: str = "same",
    initializer: str | float = "glorot_uniform",
    name: str,
):
    """Depthwise convolution, batch norm, activation: [B, H, W, C] -> [B, H', W', C]."""
    if padding == "explicit":
        padding = "same"
        if strides > 1:
            x = explicit_padding(x, kernel_size, dilation_rate, name=f"{name}.pad")
            padding = "valid"
    x = layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
        use_bias=batch_norm is None,
        depthwise_initializer=_initializer(initializer),
        name=name,
    )(x)
    return normalize_and_activate(x, activation=activation, batch_norm=batch_norm, name=name)


def separable_conv_bn_act(
    x,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    dilation_rate: int = 1,
    activation: str | None = "relu",
    batch_norm: BatchNormSettings | None = HEAD_BN,
    padding: str = "same",
    initializers: tuple[str | float, str | float] = (0.33, 0.06),
    name: str,
):
    """Atrous separable convolution: [B, H, W, C] -> [B, H', W', filters].

    Batch norm and activation follow the depthwise *and* the pointwise part (v3+, Sec. 3.1), each
    begun with its own of the `initializers` (see `conv_bn_act`), whose default is that of the
    semantic models' heads.
    """
    x = depthwise_bn_act(
        x,
        kernel_size,
        strides=strides,
        dilation_rate=dilation_rate,
        activation=activation,
        batch_norm=batch_norm,
        padding=padding,
        initializer=initializers[0],
        name=f"{name}_depthwise",
    )
    return conv_bn_act(
        x,
        filters,
        1,
        activation=activation,
        batch_norm=batch_norm,
        initializer=initializers[1],
        name=f"{name}_pointwise",
    )
