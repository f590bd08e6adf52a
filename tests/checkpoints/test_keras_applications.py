"""Weights of keras.applications make the same function here; nothing is downloaded."""

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf import checkpoints
from deeplab_tf.checkpoints.keras_applications import read_keras_applications
from deeplab_tf.checkpoints.strict import assign

NETWORKS = [
    ("mobilenet_v2", {"depth_multiplier": 0.35, "divisible_by": 8}, "MobileNetV2"),
    ("mobilenet_v2", {}, "MobileNetV2"),
    ("mobilenet_v3_large", {"depth_multiplier": 0.75}, "MobileNetV3Large"),
    ("mobilenet_v3_small", {}, "MobileNetV3Small"),
]


def _random(network, alpha):
    """A model of keras.applications with random weights, statistics included, and raw logits."""
    model = getattr(keras.applications, network)(
        input_shape=(64, 96, 3), alpha=alpha, weights=None, classifier_activation=None
    )
    random = np.random.RandomState(0)
    for weight in model.weights:
        # A depthwise kernel sums over its own positions only.
        summed = weight.shape[: 2 if weight.shape[-1] == 1 else -1]
        spread = 3 / np.sqrt(np.prod(summed)) if len(weight.shape) > 1 else 1.0
        low = 0.5 if weight.name in ("gamma", "moving_variance") else -1.0
        weight.assign(random.uniform(low, 1.0, weight.shape) * spread)
    return model


@pytest.mark.parametrize(("backbone", "options", "network"), NETWORKS)
def test_logits_are_those_of_keras_applications(backbone, options, network):
    theirs = _random(network, options.get("depth_multiplier", 1.0))
    ours = dl.ImageClassifier(1000, backbone, **options)
    arrays, origins = read_keras_applications(ours, theirs)
    loaded = assign(ours, checkpoints.Source("theirs", "random", arrays, origins))
    assert len(loaded.variables) == len(theirs.weights)
    pixels = np.random.RandomState(1).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    # MobileNetV3 has its normalisation inside there too.
    given = pixels / 127.5 - 1 if backbone == "mobilenet_v2" else pixels
    wanted = np.asarray(theirs(given, training=False))
    # The two pictures' answers differ, so the comparison can fail.
    spread = np.abs(wanted[0] - wanted[1]).max()
    assert np.abs(np.asarray(ours(pixels, training=False)) - wanted).max() < 5e-3 * spread
    # The official 0.16667 of the gates is all that differs.
    for layer in ours.layers:
        if layer.name.endswith("squeeze_excite.Conv_1.q_sigmoid"):
            layer.scale = 1 / 6
    assert np.abs(np.asarray(ours(pixels, training=False)) - wanted).max() < 1e-4 * spread


def test_a_segmentation_model_takes_the_backbone(monkeypatch):
    theirs = _random("MobileNetV2", 0.35)
    monkeypatch.setattr(keras.applications, "MobileNetV2", lambda alpha, weights: theirs)
    model = dl.DeepLabV3Plus(3, "mobilenet_v2", **NETWORKS[0][1], decoder_filters=8)
    loaded = dl.checkpoints.load(model, "keras_applications")
    assert loaded.backbone_only
    assert "keras.applications" in str(loaded)
    assert loaded.variables[0].source == "Conv1/kernel"
    kernel = model.get_layer("MobilenetV2.expanded_conv_3.expand").kernel
    np.testing.assert_array_equal(
        np.asarray(kernel), np.asarray(theirs.get_layer("block_3_expand").kernel)
    )


def test_what_keras_says_of_a_download_is_told_in_one_line(monkeypatch):
    def offline(alpha, weights):
        raise Exception("URL fetch failure on https://x: None -- unreachable\nmore")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(dl.InputError, match="MobileNetV2 with alpha=1.0: URL fetch failure") as e:
        dl.checkpoints.load(dl.ImageClassifier(1000, "mobilenet_v2"), "keras_applications")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("backbone", "options", "words"),
    [
        ("resnet_v1_18", {}, "none of this kind"),
        ("resnet_v1_50", {}, "its strides are in other layers there"),
        ("mobilenet_v3_large_seg", {}, "half the width of the one there; take mobilenet_v3_large"),
        ("mobilenet_v2", {"depth_multiplier": 0.5}, "build the model with divisible_by=8"),
        ("mobilenet_v3_small", {"depth_multiplier": 0.5}, "alpha=0.5: If imagenet weights"),
    ],
)
def test_another_architecture_is_refused_with_the_reason(backbone, options, words):
    model = dl.ImageClassifier(3, backbone, **options)
    with pytest.raises(dl.InputError, match=words):
        dl.checkpoints.load(model, "keras_applications")
