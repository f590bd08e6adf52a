"""Batch normalisation as the official code trains it."""

import math

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
class AxesBatchNorm(BatchNorm):
    """Batch norm over all axes but those that are kept: a tensor of any rank -> the same shape.

    Args:
        kept_axes: axes that are normalised entry by entry; the first isn't among them. () has one
            mean and one variance for all numbers.
        momentum, epsilon, gamma_initializer, freeze_statistics: see `BatchNorm`.

    Variables are vectors; where several axes are kept, they have a length of 1 for all others.
    """

    def __init__(self, kept_axes: tuple[int, ...], *, momentum, epsilon, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.kept_axes = tuple(kept_axes)

    def build(self, input_shape):
        self._wide = tuple(n if axis in self.kept_axes else 1 for axis, n in enumerate(input_shape))
        self._axes = tuple(axis for axis in range(len(self._wide)) if axis not in self.kept_axes)
        settings = (
            ("gamma", self.gamma_initializer, True),
            ("beta", self.beta_initializer, True),
            ("moving_mean", "zeros", False),
            ("moving_variance", "ones", False),
        )
        for name, initializer, trainable in settings:
            weight = self.add_weight(
                shape=self._stored_shape(),
                initializer=initializer,
                trainable=trainable,
                autocast=False,
                name=name,
            )
            setattr(self, name, weight)
        self.built = True

    def _stored_shape(self) -> tuple[int, ...]:
        return self._wide if len(self.kept_axes) > 1 else (math.prod(self._wide),)

    def scale_and_shift(self):
        """By the moving statistics: what an input is multiplied by, and what is added then."""
        return self._scale_and_shift(self.moving_mean, self.moving_variance)

    def _scale_and_shift(self, mean, variance):
        scale = ops.rsqrt(variance + self.epsilon) * self.gamma
        shift = self.beta - mean * scale
        return ops.reshape(scale, self._wide), ops.reshape(shift, self._wide)

    def call(self, inputs, training=None, mask=None):
        if self.uses_batch_statistics(training):
            scale, shift = self._renewed(inputs)
        else:
            scale, shift = self.scale_and_shift()
        return inputs * ops.cast(scale, inputs.dtype) + ops.cast(shift, inputs.dtype)

    def _renewed(self, x):
        """`scale_and_shift` by the statistics of this batch, which move the stored ones."""
        moments = ops.moments(ops.cast(x, "float32"), self._axes)
        mean, variance = (ops.reshape(moment, self._stored_shape()) for moment in moments)
        followed = variance
        if len(self.kept_axes) < 2:  # as the official fused kernel, which can't keep more
            count = ops.cast(ops.size(x) // math.prod(self._wide), "float32")
            followed = variance * (count / ops.maximum(count - 1.0, 1.0))
        self._move(mean, followed)
        return self._scale_and_shift(mean, variance)

    def _move(self, mean, variance):
        """Lets the stored statistics follow those of a batch."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "kept_axes": self.kept_axes}


@keras.saving.register_keras_serializable(package="deeplab_tf")
class SummedBatchNorm(AxesBatchNorm):
    """Batch norm of several terms, each by its own statistics, and their sum.

    Args:
        count: number of terms.
        kept_axes, momentum, epsilon, freeze_statistics: see `AxesBatchNorm`.

    Inputs: a list of `count` tensors of one shape. Output: one tensor of that shape. It is built
    with the shape of one term. Variables have a first axis for the terms, and one of length 1 for
    every axis that isn't kept.
    """

    def __init__(self, count: int, kept_axes: tuple[int, ...], *, momentum, epsilon, **kwargs):
        super().__init__(kept_axes, momentum=momentum, epsilon=epsilon, **kwargs)
        self.count = count

    def _stored_shape(self) -> tuple[int, ...]:
        return (self.count, *self._wide)

    def _scale_and_shift(self, mean, variance):
        """A factor for each term [count, ...], one shift for the sum."""
        scales = ops.rsqrt(variance + self.epsilon) * self.gamma
        return scales, ops.sum(self.beta - mean * scales, axis=0)

    def call(self, inputs, training=None, mask=None):
        if self.uses_batch_statistics(training):
            scales, shift = self._renewed(inputs)
        else:
            scales, shift = self.scale_and_shift()
        scales, total = ops.cast(scales, self.compute_dtype), ops.cast(shift, self.compute_dtype)
        for number, term in enumerate(inputs):
            total = total + term * scales[number]
        return total

    def _renewed(self, x):
        moments = [ops.moments(ops.cast(term, "float32"), self._axes, keepdims=True) for term in x]
        mean, variance = (ops.stack(values) for values in zip(*moments, strict=True))
        # Here the official code moves by the biased variance: only its fused kernel does not.
        self._move(mean, variance)
        return self._scale_and_shift(mean, variance)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "count": self.count}
