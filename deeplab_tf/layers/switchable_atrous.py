"""Switchable atrous convolution (https://arxiv.org/abs/2006.02334, Sec. 3.3)."""

from typing import Any

import keras
from keras import layers, ops

from deeplab_tf.layers.atrous import AtrousConv2D
from deeplab_tf.layers.conv import BatchNormSettings, explicit_padding, normalize_and_activate

# How much further the second look reaches, and the window whose mean decides between the two.
_WIDER = 3
_WINDOW = 5


@keras.saving.register_keras_serializable(package="deeplab_tf")
class SwitchableAtrousConv2D(AtrousConv2D):
    """One kernel at two atrous rates, mixed pixel by pixel: [B, H, W, C] -> [B, H, W, F].

    The share of the wider one is a 1x1 convolution of the mean around the pixel. That begins at
    zero: a new layer is a plain convolution.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.switch = layers.Conv2D(
            1, 1, kernel_initializer="zeros", dtype=self.dtype_policy, name="switch"
        )
        self.switch.build(input_shape)

    def call(self, inputs):
        share = self.switch(ops.average_pool(inputs, _WINDOW, 1, "same"))
        near = self.at_rates(inputs, self.dilation_rate)
        wide = self.at_rates(inputs, tuple(_WIDER * rate for rate in self.dilation_rate))
        return share * wide + (1.0 - share) * near

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        """For one picture: the kernel twice, and the switch."""
        _, height, width, channels = input_shape
        taps = self.kernel_size[0] * self.kernel_size[1] * channels * self.filters
        return height * width * (2 * taps + channels)


def switchable_conv_bn_act(
    x,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    dilation_rate: int = 1,
    activation: str | None = "relu",
    batch_norm: BatchNormSettings,
    gamma_initializer: str = "ones",
    name: str,
):
    """`conv_bn_act` at two rates, with a global context before and after the convolution.

    A convolution with a stride has the contexts, but one rate.
    """
    x = global_context(x, name=f"{name}.pre_global_context")
    options: dict[str, Any] = dict(
        use_bias=False, kernel_initializer="he_normal", dilation_rate=dilation_rate, name=name
    )
    if strides > 1:
        x = explicit_padding(x, kernel_size, dilation_rate, name=f"{name}.pad")
        x = layers.Conv2D(filters, kernel_size, strides, padding="valid", **options)(x)
    else:
        x = SwitchableAtrousConv2D(filters, kernel_size, padding="same", **options)(x)
    x = global_context(x, name=f"{name}.post_global_context")
    return normalize_and_activate(
        x,
        activation=activation,
        batch_norm=batch_norm,
        gamma_initializer=gamma_initializer,
        name=name,
    )


def global_context(x, *, name: str):
    """Adds to every pixel a 1x1 convolution of the picture's mean: [B, H, W, C] -> the same.

    It begins at zero.
    """
    mean = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    mean = layers.Conv2D(x.shape[-1], 1, kernel_initializer="zeros", name=f"{name}.convolution")(
        mean
    )
    return layers.Add(name=name)([x, mean])
