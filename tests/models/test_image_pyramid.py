import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.models.image_pyramid import ImagePyramid
from deeplab_tf.models.macs import count


@pytest.fixture(scope="module")
def model():
    return dl.DeepLabV3(3, depth_multiplier=0.25, atrous_rates=(), aspp_convs_filters=8)


@pytest.mark.parametrize(
    ("method", "merge"), [("max", np.maximum), ("avg", lambda a, b: (a + b) / 2)]
)
def test_the_merged_logits_merge_the_scales(model, method, merge):
    pyramid = ImagePyramid(model, (0.5, 1.0), method)
    image = np.random.RandomState(0).uniform(0, 255, (1, 65, 49, 3)).astype("float32")
    outputs = pyramid.endpoint_model("logits_0.50", "logits_1.00", "logits")(image)
    values = {name: np.asarray(value) for name, value in outputs.items()}
    np.testing.assert_allclose(
        values["logits"], merge(values["logits_0.50"], values["logits_1.00"]), atol=1e-6
    )
    assert pyramid(image).shape == (1, 65, 49, 3)
    assert pyramid.count_params() == model.count_params()


def test_config_round_trip_keeps_the_shared_model(model):
    pyramid = ImagePyramid(model, (0.75, 1.0), "avg")
    again = ImagePyramid.from_config(pyramid.get_config())
    again.set_weights(pyramid.get_weights())
    image = np.random.RandomState(0).uniform(0, 255, (1, 33, 33, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(again(image)), np.asarray(pyramid(image)), atol=1e-6)


def test_an_unknown_merge_method_is_named(model):
    with pytest.raises(dl.InputError, match="'median'"):
        ImagePyramid(model, merge_method="median")


def test_a_scale_that_comes_twice_is_told(model):
    with pytest.raises(dl.InputError, match="different scales, by at least 0.01; got 1, 0.5, 0.5"):
        ImagePyramid(model, (1.0, 0.5, 0.501))


def test_its_cost_is_that_of_its_scales(model):
    scales = ImagePyramid(model, (0.5, 1.0))
    # The model itself, and once more at half the size.
    wanted = count(model, (65, 49)).multiply_adds + count(model, (33, 25)).multiply_adds
    assert count(scales, (65, 49)).multiply_adds == wanted
