"""Squeeze-and-excite as in MobileNetV3 (https://arxiv.org/abs/1905.02244, Sec. 5.3)."""

from keras import layers

from deeplab_tf.layers.channels import make_divisible
from deeplab_tf.layers.conv import conv_bn_act


def squeeze_excite(x, *, factor: int = 4, gate_activation: str = "q_sigmoid", name: str):
    """Scales channels by a gate made from their means: [B, H, W, C] -> [B, H, W, C]."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    squeezed = make_divisible(channels / factor, 8)
    gate = conv_bn_act(gate, squeezed, 1, batch_norm=None, activation="relu", name=f"{name}.Conv")
    gate = conv_bn_act(
        gate, channels, 1, batch_norm=None, activation=gate_activation, name=f"{name}.Conv_1"
    )
    return layers.Multiply(name=f"{name}.multiply")([x, gate])


def simplified_squeeze_excite(x, *, name: str):
    """The same with one convolution (CenterMask, https://arxiv.org/abs/1911.06667, Sec. 3.3)."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    gate = conv_bn_act(
        gate, x.shape[-1], 1, batch_norm=None, activation="q_sigmoid", name=f"{name}.se_conv"
    )
    return layers.Multiply(name=f"{name}.multiply")([x, gate])
