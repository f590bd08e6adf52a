"""Stochastic depth leaves out whole pictures, in training, and keeps the mean."""

import keras
import numpy as np
import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.layers.drop_path import DropPath, drop_path


@pytest.mark.parametrize("keep_prob", [0.3, 0.8])
def test_so_many_pictures_keep_the_branch_and_are_scaled_up(keep_prob):
    images = np.ones((4000, 2, 3, 1), "float32")
    found = np.asarray(DropPath(keep_prob, seed=3)(images, training=True))
    whole = found.reshape(len(found), -1)
    np.testing.assert_array_equal(whole, np.broadcast_to(whole[:, :1], whole.shape))
    assert set(np.unique(found)) == {0.0, np.float32(1 / keep_prob)}
    # Three deviations of a share of 4000 draws are 0.024 at most.
    assert (whole[:, 0] > 0).mean() == pytest.approx(keep_prob, abs=0.024)
    assert found.mean() == pytest.approx(1.0, abs=0.024 / keep_prob)


def test_draws_differ_from_call_to_call_and_come_back_with_the_seed():
    images = np.ones((64, 1, 1, 1), "float32")
    layer, same = DropPath(0.5, seed=1), DropPath(0.5, seed=1)
    first, second = (np.asarray(layer(images, training=True)) for _ in range(2))
    assert np.any(first != second)
    np.testing.assert_array_equal(np.asarray(same(images, training=True)), first)


@pytest.mark.parametrize("training", [False, None])
def test_a_prediction_takes_the_branch_as_it_is(training):
    images = np.random.RandomState(0).rand(8, 2, 2, 3).astype("float32")
    np.testing.assert_array_equal(np.asarray(DropPath(0.1)(images, training=training)), images)


def test_half_precision_stays_half_precision():
    layer = DropPath(0.5, dtype="mixed_float16")
    found = layer(np.ones((4, 2, 2, 1), "float32"), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"


def test_nothing_is_added_where_everything_is_kept():
    x = keras.Input((2, 2, 1))
    assert drop_path(x, 1.0, name="drop") is x
    model = keras.Model(x, drop_path(x, 0.5, name="drop"))
    assert model.get_layer("drop").get_config()["keep_prob"] == 0.5
    again = keras.Model.from_config(model.get_config())
    assert again.get_layer("drop").keep_prob == 0.5


@pytest.mark.parametrize("keep_prob", [0.0, -0.5, 1.5])
def test_a_probability_that_is_none_or_drops_all_is_refused(keep_prob):
    with pytest.raises(InputError, match=rf"above 0 and at most 1; got {keep_prob}"):
        drop_path(keras.Input((2, 2, 1)), keep_prob, name="drop")
