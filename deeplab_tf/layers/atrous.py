"""Atrous convolution at the cost of a dense one."""

import contextlib
import contextvars

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AtrousConv2D(layers.Conv2D):
    """Conv2D that costs TensorFlow what a dense one does: [B, H, W, C] -> [B, H, W, F].

    Keras has TensorFlow move the map into `rate * rate` pieces, padded to a multiple of the rate,
    for want of the gradients of a dilated kernel on a CPU. On a 16x16 map of 2048 channels and
    rate 12 that leaves pieces of a few pixels, and the gradients take 17 times as long as at rate
    1. This layer runs the dilated kernel as it is and gives the gradients itself: for the input,
    the same convolution with the kernel turned around; for the kernel, one matrix product per
    tap, which is exact too.

    Other backends, strides, even kernels and other paddings are left to Keras.
    """

    def call(self, inputs):
        if not self._is_ours():
            return super().call(inputs)
        outputs = self.at_rates(inputs, self.dilation_rate)
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def at_rates(self, inputs, rates: tuple[int, int]):
        """The kernel alone at given atrous rates: [B, H, W, C] -> [B, H, W, F]."""
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), inputs.dtype)
        if not self._is_ours():
            return ops.conv(inputs, kernel, 1, self.padding, self.data_format, rates)
        convolve = _convolve if _gradients_wanted.get() else _dilated
        return convolve(inputs, kernel, rates)

    def _is_ours(self) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and self.padding == "same"
            and self.groups == 1
            and self.data_format == "channels_last"
            and all(stride == 1 for stride in self.strides)
            and all(size % 2 for size in self.kernel_size)
        )


_gradients_wanted = contextvars.ContextVar("gradients_wanted", default=True)


@contextlib.contextmanager
def without_gradients():
    """Leaves the gradients out of graphs traced inside: of exported files, which only run.

    TensorFlow warns of a function with a gradient of its own whenever it loads one.
    """
    token = _gradients_wanted.set(False)
    try:
        yield
    finally:
        _gradients_wanted.reset(token)


def _dilated(x, kernel, rates: tuple[int, int]):
    import tensorflow as tf

    return tf.nn.conv2d(x, kernel, strides=1, padding="SAME", dilations=rates)


def _convolve(x, kernel, rates: tuple[int, int]):
    """A dilated "same" convolution of stride 1, with gradients of its own."""

    @ops.custom_gradient
    def convolve(x, kernel):
        def gradients(upstream):
            turned = ops.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
            to_image = _convolve(upstream, turned, rates)
            return to_image, _kernel_gradient(x, upstream, kernel.shape, rates)

        return _dilated(x, kernel, rates), gradients

    return convolve(x, kernel)


def _kernel_gradient(x, upstream, shape, rates: tuple[int, int]):
    """For each tap: the inputs that it saw, times what came of them, summed over all places."""
    height, width = ops.shape(x)[1:3]
    (rows, columns, channels, filters), (down, right) = shape, rates
    above, left = down * (rows // 2), right * (columns // 2)
    x = ops.pad(x, ((0, 0), (above, above), (left, left), (0, 0)))
    upstream = ops.reshape(upstream, (-1, filters))
    taps = []
    for row in range(rows):
        for column in range(columns):
            top, start = row * down, column * right
            seen = ops.reshape(x[:, top : top + height, start : start + width], (-1, channels))
            taps.append(ops.matmul(ops.transpose(seen), upstream))
    return ops.reshape(ops.stack(taps), shape)
