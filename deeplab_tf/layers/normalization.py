"""Batch normalisation as the official code trains it."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="deeplab_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm over all axes but the last: [B, H, W, C] -> [B, H, W, C].

    Two differences from the built-in layer, both of them official behaviour. The moving
    variance follows the *unbiased* batch variance (N / (N - 1)). And `freeze_statistics` makes
    training use the moving statistics and leave them alone while gamma and beta still train,
    which is what `fine_tune_batch_norm=False` means there; `trainable=False` freezes all four.

    On TensorFlow a training step runs the fused kernel: measured on a MobileNetV2 decoder model
    at 192x192 and batch 32, the whole train step takes 0.61 of the time it takes without.
    """

    def __init__(self, *, momentum: float, epsilon: float, freeze_statistics: bool = False, **kw):
        super().__init__(momentum=momentum, epsilon=epsilon, **kw)
        self.freeze_statistics = freeze_statistics

    def call(self, inputs, training=None, mask=None):
        if not self.uses_batch_statistics(training):
            return super().call(inputs, training=False, mask=mask)
        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        outputs, mean, variance = _normalize(inputs, gamma, beta, self.epsilon)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(
                moving * self.momentum + ops.cast(batch, moving.dtype) * (1.0 - self.momentum)
            )
        return outputs

    def uses_batch_statistics(self, training) -> bool:
        """Whether a call normalises by what it sees, not by the moving statistics."""
        return bool(training) and self.trainable and not self.freeze_statistics

    def get_config(self):
        return {**super().get_config(), "freeze_statistics": self.freeze_statistics}


def _normalize(x, gamma, beta, epsilon):
    """Normalises by batch statistics: (outputs, mean [C], unbiased variance [C])."""
    if keras.backend.backend() == "tensorflow" and len(x.shape) == 4:
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.cast(gamma, tf.float32),
            offset=tf.cast(beta, tf.float32),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=epsilon,
            is_training=True,
        )
        return outputs, mean, variance
    axes = tuple(range(len(x.shape) - 1))
    wide = ops.cast(x, "float32")
    mean, variance = ops.moments(wide, axes=axes)
    inverse = ops.rsqrt(variance + epsilon) * gamma
    outputs = ops.cast((wide - mean) * inverse + beta, x.dtype)
    count = ops.cast(ops.size(x) // ops.shape(x)[-1], "float32")
    return outputs, mean, variance * (count / ops.maximum(count - 1.0, 1.0))


@keras.saving.register_keras_serializable(package="deeplab_tf")
class SummedBatchNorm(BatchNorm):
    """Batch norm of several terms, each by its own statistics, and their sum.

    Args:
        count: number of terms.
        kept_axes: axes of a term that are normalised one by one; its first axis isn't among them.
        momentum, epsilon, freeze_statistics: see `BatchNorm`.

    Inputs: a list of `count` tensors of one shape. Output: one tensor of that shape. Variables have
    a first axis for the terms, and one of length 1 for every axis that isn't kept.
    """

    def __init__(self, count: int, kept_axes: tuple[int, ...], *, momentum, epsilon, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.count = count
        self.kept_axes = tuple(kept_axes)

    def build(self, input_shape):
        """`input_shape` is that of one term."""
        shape = [n if axis in self.kept_axes else 1 for axis, n in enumerate(input_shape)]
        self._axes = tuple(axis for axis in range(len(shape)) if axis not in self.kept_axes)
        settings = (
            ("gamma", "ones", True),
            ("beta", "zeros", True),
            ("moving_mean", "zeros", False),
            ("moving_variance", "ones", False),
        )
        for name, initializer, trainable in settings:
            weight = self.add_weight(
                shape=(self.count, *shape),
                initializer=initializer,
                trainable=trainable,
                autocast=False,
                name=name,
            )
            setattr(self, name, weight)
        self.built = True

    def scales_and_shift(self):
        """By the moving statistics: a factor for each term [count, ...], one shift for the sum."""
        scales = ops.rsqrt(self.moving_variance + self.epsilon) * self.gamma
        return scales, ops.sum(self.beta - self.moving_mean * scales, axis=0)

    def call(self, inputs, training=None, mask=None):
        if self.uses_batch_statistics(training):
            scales, shift = self._renewed(inputs)
        else:
            scales, shift = self.scales_and_shift()
        scales, total = ops.cast(scales, self.compute_dtype), ops.cast(shift, self.compute_dtype)
        for number, term in enumerate(inputs):
            total = total + term * scales[number]
        return total

    def _renewed(self, terms):
        """`scales_and_shift` by the statistics of this batch, which move the stored ones."""
        moments = [
            ops.moments(ops.cast(term, "float32"), self._axes, keepdims=True) for term in terms
        ]
        mean, variance = (ops.stack(values) for values in zip(*moments, strict=True))
        # Here the official code moves by the biased variance: only its fused kernel does not.
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        scales = ops.rsqrt(variance + self.epsilon) * self.gamma
        return scales, ops.sum(self.beta - mean * scales, axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        config = super().get_config()
        return {**config, "count": self.count, "kept_axes": self.kept_axes}
