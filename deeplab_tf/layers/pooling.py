"""Average pooling of the image-level feature."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="deeplab_tf")
class WindowPooling(keras.layers.Layer):
    """Average pool over a fixed window, "valid": [B, H, W, C] -> [B, h, w, C].

    The official models pool over the size of the *training* crop, also on larger pictures. A map
    smaller than the window, which stops the official code, is pooled over what there is.

    Args:
        window: (height, width) in feature pixels.
        strides: (vertical, horizontal).
    """

    def __init__(self, window: tuple[int, int], strides: tuple[int, int] = (1, 1), **kwargs):
        super().__init__(**kwargs)
        self.window = tuple(window)
        self.strides = tuple(strides)

    def call(self, inputs):
        if None not in inputs.shape[1:3]:
            window = tuple(min(w, n) for w, n in zip(self.window, inputs.shape[1:3], strict=True))
            return ops.average_pool(inputs, window, self.strides, "valid")
        # Sizes are known only at run time: fill up to the window with zeros and divide by the
        # share of real pixels, which is one wherever nothing was filled.
        missing = [
            ops.maximum(w - n, 0) for w, n in zip(self.window, ops.shape(inputs)[1:3], strict=True)
        ]
        padding = [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]
        real = ops.pad(ops.ones_like(inputs[:1, :, :, :1]), padding)
        pooled = ops.average_pool(ops.pad(inputs, padding), self.window, self.strides, "valid")
        return pooled / ops.average_pool(real, self.window, self.strides, "valid")

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [
            None if n is None else (n - min(w, n)) // s + 1
            for n, w, s in zip(sides, self.window, self.strides, strict=True)
        ]
        return (batch, *sides, channels)

    def get_config(self):
        return {**super().get_config(), "window": self.window, "strides": self.strides}
