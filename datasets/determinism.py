"""Bit-identical repeats."""

import tensorflow as tf


def make_deterministic() -> None:
    """Asks TensorFlow for kernels and pipelines that give the same bits on each run."""
    tf.config.experimental.enable_op_determinism()
