import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.postprocess import multi_scale


@pytest.fixture(scope="module")
def model():
    return dl.DeepLabV3(3, depth_multiplier=0.25, atrous_rates=(), aspp_convs_filters=8)


@pytest.fixture(scope="module")
def image():
    return np.random.RandomState(0).randint(0, 256, (1, 65, 49, 3), np.uint8)


def test_one_scale_is_the_softmax_of_the_model(model, image):
    logits = np.asarray(model(image))
    wanted = np.exp(logits - logits.max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    ours = np.asarray(multi_scale.predict_probabilities(model, image))
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_flipping_makes_a_mirrored_picture_give_a_mirrored_answer(model, image):
    options = dict(eval_scales=(0.5, 1.0), add_flipped_images=True)
    ours = np.asarray(multi_scale.predict_probabilities(model, image, **options))
    mirrored = multi_scale.predict_probabilities(model, image[:, :, ::-1], **options)
    np.testing.assert_allclose(np.asarray(mirrored)[:, :, ::-1], ours, atol=1e-5)
    np.testing.assert_allclose(ours.sum(-1), 1.0, atol=1e-5)


def test_labels_without_upsampled_logits_are_those_of_the_small_map(model, image):
    labels, probabilities = multi_scale.predict_without_upsampled_logits(model, image)
    small = np.asarray(model.endpoint_model("logits")(image)["logits"]).argmax(-1)
    assert set(np.unique(np.asarray(labels))) <= set(np.unique(small))
    assert np.asarray(labels)[0, 0, 0] == small[0, 0, 0]
    np.testing.assert_allclose(np.asarray(probabilities).sum(-1), 1.0, atol=1e-5)
