"""Padding that depends on the size."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="deeplab_tf")
class PadToKernel(keras.layers.Layer):
    """Zeros below and at the right of what is smaller than a kernel: [B, H, W, C], else as it is.

    An unpadded convolution needs at least one window.
    """

    def __init__(self, kernel_size: int, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size

    def call(self, inputs):
        sides = ops.shape(inputs)[1:3]
        if all(isinstance(side, int) for side in sides):
            missing = [max(self.kernel_size - side, 0) for side in sides]
            if not any(missing):
                return inputs
        else:
            missing = [ops.maximum(self.kernel_size - side, 0) for side in sides]
        return ops.pad(inputs, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [None if side is None else max(side, self.kernel_size) for side in sides]
        return (batch, *sides, channels)

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}
