"""Stochastic depth (https://arxiv.org/abs/1603.09382)."""

import keras
from keras import ops

from deeplab_tf.errors import InputError


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DropPath(keras.layers.Layer):
    """Leaves a residual branch out of whole pictures, in training: [B, ...] -> [B, ...].

    What is kept is divided by the keep probability; a prediction takes the branch as it is.

    Args:
        keep_prob: share of the pictures that keep the branch, above 0.
        seed: of the draws.
    """

    def __init__(self, keep_prob: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.keep_prob = keep_prob
        self.seed = seed
        self._draws = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training or self.keep_prob == 1.0:
            return inputs
        shape = (ops.shape(inputs)[0], *(1,) * (len(inputs.shape) - 1))
        drawn = keras.random.uniform(shape, seed=self._draws, dtype="float32")
        kept = ops.cast(drawn < self.keep_prob, inputs.dtype)
        return inputs * (kept / self.keep_prob)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "keep_prob": self.keep_prob, "seed": self.seed}


def check_keep_prob(keep_prob: float) -> None:
    """Refuses what isn't a probability, or drops everything.

    Raises:
        InputError: it is such.
    """
    if not 0.0 < keep_prob <= 1.0:
        raise InputError(f"drop_path_keep_prob is above 0 and at most 1; got {keep_prob}.")


def drop_path(x, keep_prob: float, *, name: str):
    """A `DropPath`, or nothing where everything is kept.

    Raises:
        InputError: see `check_keep_prob`.
    """
    check_keep_prob(keep_prob)
    return x if keep_prob == 1.0 else DropPath(keep_prob, name=name)(x)
