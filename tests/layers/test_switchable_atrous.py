"""Two atrous rates and a switch between them, beside what its parts give."""

import keras
import numpy as np
import pytest
from keras import layers

from deeplab_tf.layers.conv import BatchNormSettings
from deeplab_tf.layers.switchable_atrous import (
    SwitchableAtrousConv2D,
    global_context,
    switchable_conv_bn_act,
)
from deeplab_tf.models.macs import count

CHANNELS, FILTERS = 3, 5
SETTINGS = BatchNormSettings(1e-3, 0.99)


def _image(*size):
    return np.random.RandomState(0).normal(size=(2, *size, CHANNELS)).astype("float32")


def _layer(rate=1, **options):
    options = dict(padding="same", use_bias=False, dilation_rate=rate) | options
    layer = SwitchableAtrousConv2D(FILTERS, 3, **options)
    layer.build((None, None, None, CHANNELS))
    return layer


def _at_rate(layer, image, rate):
    plain = layers.Conv2D(FILTERS, 3, padding="same", use_bias=False, dilation_rate=rate)
    plain.build(image.shape)
    plain.kernel.assign(layer.kernel)
    return np.asarray(plain(image))


def _share(layer, image):
    """By hand: the switch of the mean of those pixels of a 5x5 window that lie in the picture."""
    kernel, bias = (np.asarray(w, np.float64) for w in layer.switch.weights)
    share = np.zeros(image.shape[:3])
    for y, x in np.ndindex(image.shape[1:3]):
        window = image[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        share[:, y, x] = window.mean((1, 2)) @ kernel[0, 0, :, 0] + bias[0]
    return share[..., None]


def test_a_new_layer_is_a_plain_convolution():
    layer, image = _layer(), _image(8, 9)
    np.testing.assert_allclose(np.asarray(layer(image)), _at_rate(layer, image, 1), atol=1e-5)


@pytest.mark.parametrize(("size", "rate"), [((8, 9), 1), ((9, 7), 2), ((3, 4), 2), ((1, 1), 1)])
def test_the_switch_mixes_the_rate_and_three_times_it(size, rate):
    layer, image = _layer(rate), _image(*size)
    random = np.random.RandomState(1)
    for weight in layer.switch.weights:
        weight.assign(random.uniform(-1, 1, weight.shape))
    share = _share(layer, image)
    near, wide = (_at_rate(layer, image, r) for r in (rate, 3 * rate))
    np.testing.assert_allclose(
        np.asarray(layer(image)), share * wide + (1 - share) * near, atol=1e-5
    )


def test_open_sides_give_the_same():
    layer, image = _layer(), _image(6, 5)
    layer.switch.bias.assign([0.3])
    sides = keras.Input((None, None, CHANNELS))
    model = keras.Model(sides, layer(sides))
    np.testing.assert_allclose(model.predict_on_batch(image), np.asarray(layer(image)), atol=1e-5)


def test_half_precision_is_half_precision():
    layer = _layer(dtype="mixed_float16")
    found = layer(_image(5, 5))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    assert {w.dtype for w in layer.weights} == {"float32"}


def test_multiply_adds_count_the_kernel_twice():
    image = keras.Input((None, None, CHANNELS))
    layer = SwitchableAtrousConv2D(FILTERS, 3, padding="same", use_bias=False)
    found = count(keras.Model(image, layer(image)), (6, 7))
    assert found.multiply_adds == 6 * 7 * (2 * 9 * CHANNELS * FILTERS + CHANNELS)
    assert found.parameters == 9 * CHANNELS * FILTERS + CHANNELS + 1


def _block(**options):
    image = keras.Input((None, None, CHANNELS))
    options = dict(batch_norm=SETTINGS, name="block") | options
    return keras.Model(image, switchable_conv_bn_act(image, FILTERS, 3, **options))


def test_a_context_adds_the_mean_of_the_picture_to_every_pixel():
    image = keras.Input((None, None, CHANNELS))
    model, picture = keras.Model(image, global_context(image, name="context")), _image(4, 5)
    np.testing.assert_array_equal(np.asarray(model(picture)), picture)
    kernel = np.random.RandomState(1).normal(size=(CHANNELS, CHANNELS)).astype("float32")
    bias = np.float32([1, 2, 3])
    model.get_layer("context.convolution").set_weights([kernel[None, None], bias])
    wanted = picture + (picture.mean((1, 2), keepdims=True) @ kernel + bias)
    np.testing.assert_allclose(np.asarray(model(picture)), wanted, atol=1e-5)


def test_a_block_has_a_context_before_and_after_and_a_switch_without_a_stride():
    names = {layer.name for layer in _block().layers}
    assert {"block.pre_global_context", "block", "block.post_global_context"} <= names
    assert {"block.BatchNorm", "block.relu"} <= names
    assert isinstance(_block().get_layer("block"), SwitchableAtrousConv2D)
    strided = _block(strides=2, activation=None)
    assert type(strided.get_layer("block")) is layers.Conv2D
    names = {layer.name for layer in strided.layers}
    assert "block.pre_global_context" in names and "block.None" not in names
    # Padded alike on all sides, on odd and even ones.
    assert [strided(_image(n, n)).shape[1] for n in (8, 9)] == [4, 5]


def test_a_keras_file_brings_a_block_back(tmp_path):
    model, picture = _block(dilation_rate=2), _image(6, 5)
    random = np.random.RandomState(1)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 1, weight.shape))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("block").dilation_rate == (2, 2)
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    np.testing.assert_array_equal(np.asarray(again(picture)), np.asarray(model(picture)))
