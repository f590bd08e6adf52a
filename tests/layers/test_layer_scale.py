"""Layer scale: one learnt factor for each channel."""

import keras
import numpy as np

from deeplab_tf.layers.layer_scale import LayerScale


def test_each_channel_has_its_factor():
    layer = LayerScale(0.5)
    x = np.random.RandomState(0).normal(size=(2, 3, 4, 5)).astype("float32")
    np.testing.assert_allclose(np.asarray(layer(x)), 0.5 * x)
    assert [(w.name, w.shape) for w in layer.weights] == [("layer_scale", (1, 1, 1, 5))]
    factors = np.arange(5, dtype="float32")
    layer.layer_scale.assign(factors.reshape(1, 1, 1, 5))
    np.testing.assert_allclose(np.asarray(layer(x)), factors * x)


def test_any_rank_goes_in_and_comes_out():
    for shape in ((None, 7), (None, None, 7), (None, None, None, 7)):
        assert LayerScale()(keras.Input(shape[1:])).shape == shape


def test_a_config_makes_an_equal_layer():
    layer = LayerScale(0.25, name="scale")
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    assert config["registered_name"] == "deeplab_tf>LayerScale"


def test_half_precision_is_computed_with_a_wide_variable():
    layer = LayerScale(1.0, dtype="mixed_float16")
    x = np.ones((1, 2, 2, 3), "float16")
    assert keras.backend.standardize_dtype(layer(x).dtype) == "float16"
    assert layer.layer_scale.dtype == "float32"
