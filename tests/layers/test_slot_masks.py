"""Where pixels meet slots."""

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.layers.slot_masks import SlotMasks, UnitLength


def _normal(*shape):
    return np.random.RandomState(0).normal(size=shape).astype("float32")


def test_vectors_get_length_one():
    x = 5 * _normal(2, 3, 4, 6)
    found = np.asarray(UnitLength()(x))
    np.testing.assert_allclose(found, x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-5)


def test_a_vector_without_length_stays_and_has_a_gradient():
    x = tf.Variable(np.zeros((1, 4), "float32"))
    with tf.GradientTape() as tape:
        y = UnitLength()(x)
        total = tf.reduce_sum(y)
    assert np.all(np.asarray(y) == 0)
    assert np.all(np.isfinite(np.asarray(tape.gradient(total, x))))


def test_lengths_are_float32_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        # Its square is above all that fits into 16 bits.
        found = UnitLength()(keras.ops.full((1, 4), 1000.0, "float16"))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(np.asarray(found), 0.5, rtol=1e-6)


def test_a_mask_is_the_product_of_pixels_and_a_slot():
    pixels, slots = _normal(2, 3, 5, 6), _normal(2, 4, 6)
    wanted = np.stack([pixels @ slots[:, i, None, :, None] for i in range(4)], axis=3)[..., 0]
    layer = SlotMasks()
    np.testing.assert_allclose(np.asarray(layer([pixels, slots])), wanted, atol=1e-5)
    assert layer.compute_output_shape([pixels.shape, slots.shape]) == (2, 3, 5, 4)
    assert layer.multiply_adds([pixels.shape, slots.shape]) == 3 * 5 * 6 * 4
    sides = keras.Input((None, None, 6))
    assert layer([sides, keras.Input((4, 6))]).shape == (None, None, None, 4)
