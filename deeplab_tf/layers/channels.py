"""Channels: how many, and in which order."""

import keras
from keras import ops


def make_divisible(value: float, divisor: int, minimum: int | None = None) -> int:
    """Rounds a channel count to a multiple of `divisor`, never below 90 % of `value`."""
    minimum = divisor if minimum is None else minimum
    rounded = max(minimum, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@keras.saving.register_keras_serializable(package="deeplab_tf")
class ReverseChannels(keras.layers.Layer):
    """RGB becomes BGR: [B, H, W, C] -> [B, H, W, C]."""

    def call(self, inputs):
        return ops.flip(inputs, axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape
