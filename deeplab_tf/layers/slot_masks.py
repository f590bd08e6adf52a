"""Layers of the mask transformers' heads (https://arxiv.org/abs/2012.00759, Sec. 3.1)."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="deeplab_tf")
class UnitLength(layers.Layer):
    """Divides vectors by their length, but for those that have none: [..., C] -> [..., C].

    It is float32 in any dtype policy unless `dtype` is given.
    """

    def __init__(self, *, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs):
        # Not below, or vectors without length had gradients that are no numbers.
        squares = ops.maximum(ops.sum(ops.square(inputs), axis=-1, keepdims=True), 1e-12)
        return inputs * ops.rsqrt(squares)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="deeplab_tf")
class SlotMasks(layers.Layer):
    """Each pixel's product with each slot: [[B, h, w, C], [B, L, C]] -> [B, h, w, L]."""

    def call(self, inputs):
        pixels, slots = inputs
        batch, height, width, channels = ops.shape(pixels)
        rows = ops.reshape(pixels, (batch, height * width, channels))
        products = ops.matmul(rows, ops.transpose(slots, (0, 2, 1)))
        return ops.reshape(products, (batch, height, width, slots.shape[1]))

    def compute_output_shape(self, input_shape):
        pixels, slots = input_shape
        return (*pixels[:3], slots[1])

    def multiply_adds(self, input_shape) -> int:
        """For one picture."""
        (_, height, width, channels), (_, slots, _) = input_shape
        return height * width * channels * slots
