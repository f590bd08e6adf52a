"""Max pooling as Caffe and PyTorch pad it, average pooling of the image-level feature."""

import keras
from keras import layers, ops


def max_pool(x, strides: int, *, ceil_mode: bool, name: str):
    """3x3 max pool padded by one on all sides: [B, H, W, C] -> [B, h, w, C].

    With stride 2 and `ceil_mode` an even side n gives n / 2 + 1, as Caffe rounds; without, n / 2.
    Odd sides are (n + 1) / 2 in either case.

    Args:
        x: not negative: what it is padded with are zeros, as good as the lowest number there.
    """
    # Where the last window ends beside the padding, the row added for ceil mode isn't read.
    end = 1 + (ceil_mode and strides == 2)
    x = layers.ZeroPadding2D(((1, end), (1, end)), name=f"{name}.pad")(x)
    return layers.MaxPooling2D(3, strides, padding="valid", name=name)(x)


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
