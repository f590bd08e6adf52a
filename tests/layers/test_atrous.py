"""The dilated convolution is that of Keras, with the same gradients."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deeplab_tf.layers.atrous import AtrousConv2D, without_gradients


def _values_and_gradients(layer, image):
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs = layer(image)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")))
    return [outputs, *tape.gradient(loss, [image, *layer.trainable_variables])]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("size", "kernel", "rate"),
    [
        ((9, 12), 3, 2),
        ((9, 12), (1, 3), (1, 4)),
        ((8, 8), 5, 3),
        ((4, 7), 3, 12),  # only the middle of the kernel sees the map
        ((1, 1), 3, 6),
    ],
)
def test_outputs_and_gradients_are_those_of_keras(size, kernel, rate, use_bias):
    options = dict(dilation_rate=rate, padding="same", use_bias=use_bias, activation="relu")
    image = tf.random.stateless_normal((2, *size, 5), seed=(1, 2))
    plain, ours = layers.Conv2D(6, kernel, **options), AtrousConv2D(6, kernel, **options)
    plain.build(image.shape)
    ours.build(image.shape)
    random = np.random.RandomState(0)
    for weight, same in zip(plain.weights, ours.weights, strict=True):
        weight.assign(random.normal(size=weight.shape))
        same.assign(weight)
    wanted = _values_and_gradients(plain, image)
    found = _values_and_gradients(ours, image)
    assert len(found) == len(wanted) == 3 + use_bias
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * max(np.abs(other).max(), 1))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_trains_in_a_graph_with_open_sides(jit_compile):
    image = keras.Input((None, None, 3))
    x = AtrousConv2D(4, 3, dilation_rate=6, padding="same")(image)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    before = [np.array(weight) for weight in model.weights]
    assert np.isfinite(model.train_on_batch(np.ones((2, 11, 8, 3)), np.ones((2, 4))))
    assert all(np.any(np.array(new) != old) for new, old in zip(model.weights, before, strict=True))


def test_in_half_precision_it_gives_half_precision():
    layer = AtrousConv2D(4, 3, dilation_rate=2, padding="same", dtype="mixed_float16")
    image = tf.ones((1, 5, 5, 3), "float16")
    outputs, to_image, to_kernel, _ = _values_and_gradients(layer, image)
    assert outputs.dtype == to_image.dtype == tf.float16 and to_kernel.dtype == tf.float32


def test_gradients_have_gradients():
    layer = AtrousConv2D(4, 3, dilation_rate=2, padding="same", activation="tanh")
    plain = layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="tanh")
    image = tf.random.stateless_normal((1, 6, 7, 3), seed=(1, 2))
    layer.build(image.shape)
    plain.build(image.shape)
    plain.set_weights(layer.get_weights())
    second = []
    for one in (layer, plain):
        with tf.GradientTape() as outer:
            outer.watch(image)
            first = _values_and_gradients(one, image)[1]
            length = tf.reduce_sum(first**2)
        second.append(outer.gradient(length, [image, one.kernel]))
    for found, wanted in zip(*second, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("options", [{"padding": "valid"}, {"kernel_size": 2}, {"groups": 2}])
def test_what_it_does_not_do_itself_it_leaves_to_keras(options):
    options = {"kernel_size": 3, "padding": "same", **options}
    plain = layers.Conv2D(4, dilation_rate=2, **options)
    ours = AtrousConv2D(4, dilation_rate=2, **options)
    image = tf.random.stateless_normal((1, 9, 9, 4), seed=(1, 2))
    plain.build(image.shape)
    ours.build(image.shape)
    ours.set_weights(plain.get_weights())
    np.testing.assert_array_equal(ours(image), plain(image))


def test_the_map_is_not_cut_into_pieces_and_gradients_can_be_left_out():
    layer = AtrousConv2D(4, 3, dilation_rate=2, padding="same")
    found = []
    for context in (contextlib.nullcontext(), without_gradients()):
        with context:
            call = tf.function(lambda x: layer(x))
            graph = call.get_concrete_function(tf.TensorSpec((1, 9, 9, 3))).graph
        found.append({node.type for node in graph.get_operations()})
    assert all("Conv2D" in types and "SpaceToBatchND" not in types for types in found)
    assert ["IdentityN" in types for types in found] == [True, False]
