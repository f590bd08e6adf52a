"""Atrous convolution whose gradients cost what those of a dense one do."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AtrousConv2D(layers.Conv2D):
    """Conv2D that TensorFlow trains at the cost of a dense one: [B, H, W, C] -> [B, H, W, F].

    TensorFlow runs a dilated convolution by moving the map into `rate * rate` pieces, padded to a
    multiple of the rate. On a 16x16 map of 2048 channels and rate 12 that leaves pieces of a few
    pixels, and the gradients take 17 times as long as at rate 1. In training, this layer gives
    the gradients itself: for the input, the same convolution with the kernel turned around; for
    the kernel, one matrix product per tap, which is exact too.

    Inference, other backends, strides and even kernels are left to Keras: graphs that are
    exported stay as they were.
    """

    def call(self, inputs, training=None):
        own_gradients = (
            training
            and keras.backend.backend() == "tensorflow"
            and self.padding == "same"
            and self.groups == 1
            and self.data_format == "channels_last"
            and all(stride == 1 for stride in self.strides)
            and all(size % 2 for size in self.kernel_size)
        )
        if not own_gradients:
            return super().call(inputs)
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), inputs.dtype)
        outputs = _convolve(inputs, kernel, self.dilation_rate)
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)


def _convolve(x, kernel, rates: tuple[int, int]):
    """A dilated "same" convolution of stride 1, with gradients of its own."""

    def dilated(x, kernel):
        return ops.conv(x, kernel, padding="same", data_format="channels_last", dilation_rate=rates)

    @ops.custom_gradient
    def convolve(x, kernel):
        def gradients(upstream):
            turned = ops.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
            return dilated(upstream, turned), _kernel_gradient(x, upstream, kernel.shape, rates)

        return dilated(x, kernel), gradients

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
