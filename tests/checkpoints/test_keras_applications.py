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
    ("resnet_50_caffe", {}, "ResNet50"),
    ("convnext_tiny", {}, "ConvNeXtTiny"),
]
# What a network of keras.applications wants of pixels; MobileNetV3 has its normalisation inside.
# ConvNeXt too, but without the border of zeros, which is grey before the normalisation.
NORMALIZED = {
    "MobileNetV2": lambda pixels: pixels / 127.5 - 1,
    "ResNet50": lambda pixels: pixels[..., ::-1] - np.float32([104.008, 116.669, 122.675]),
    "ConvNeXtTiny": lambda pixels: np.pad(
        pixels, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=127.5
    ),
}


def _random(network, input_shape=(64, 96, 3), **width):
    """A model of keras.applications with random weights, statistics included, and raw logits."""
    model = getattr(keras.applications, network)(
        input_shape=input_shape, weights=None, classifier_activation=None, **width
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
    pixels = np.random.RandomState(1).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    given = NORMALIZED.get(network, lambda pixels: pixels)(pixels)
    width = {"alpha": options.get("depth_multiplier", 1.0)} if "Mobile" in network else {}
    theirs = _random(network, given.shape[1:], **width)
    ours = dl.ImageClassifier(1000, backbone, **options)
    arrays, origins = read_keras_applications(ours, theirs)
    loaded = assign(ours, checkpoints.Source("theirs", "random", arrays, origins))
    assert len(loaded.variables) == len(ours.weights)
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
    theirs = _random("MobileNetV2", alpha=0.35)
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
        ("resnet_v1_50", {}, "its strides are in other layers there.*take resnet_50_caffe"),
        ("mobilenet_v3_large_seg", {}, "half the width of the one there; take mobilenet_v3_large"),
        ("mobilenet_v2", {"depth_multiplier": 0.5}, "build the model with divisible_by=8"),
        ("mobilenet_v3_small", {"depth_multiplier": 0.5}, "alpha=0.5: If imagenet weights"),
    ],
)
def test_another_architecture_is_refused_with_the_reason(backbone, options, words):
    model = dl.ImageClassifier(3, backbone, **options)
    with pytest.raises(dl.InputError, match=words):
        dl.checkpoints.load(model, "keras_applications")


@pytest.fixture(scope="module")
def vgg():
    """VGG-16 of keras.applications, with sixteen times fewer filters in its dense layers."""
    layers = keras.layers
    body = keras.applications.VGG16(include_top=False, input_shape=(224, 224, 3), weights=None)
    x = layers.Flatten()(body.output)
    for name, width in (("fc1", 256), ("fc2", 256), ("predictions", 10)):
        x = layers.Dense(width, name=name)(x)
    return keras.Model(body.input, x)


def test_vggs_dense_layers_become_convolutions(vgg):
    model = dl.DeepLabV1(3, fc6_filters=256, fc6_kernel_size=7, atrous_rates=(1,), output_stride=32)
    arrays, origins = read_keras_applications(model, vgg)
    loaded = assign(model, checkpoints.Source("vgg", "random", arrays, origins))
    assert loaded.backbone_only
    assert loaded.new == ("fc8/kernel", "fc8/bias")
    # What fc6 makes of the middle of a 7x7 map is what the dense layer makes of it all.
    map_ = np.random.RandomState(0).uniform(0, 1, (1, 7, 7, 512)).astype("float32")
    ours = model.get_layer("vgg_16.fc6")(map_)[:, 3, 3]
    theirs = vgg.get_layer("fc1")(map_.reshape(1, -1))
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-4)


def test_a_smaller_field_of_view_takes_rows_and_filters_at_equal_distances(vgg):
    model = dl.DeepLabV2(3, "vgg_16", fc6_filters=86, atrous_rates=(6, 12), image_pyramid=(1.0,))
    arrays, origins = read_keras_applications(model, vgg)
    assert assign(model, checkpoints.Source("vgg", "random", arrays, origins)).backbone_only
    dense = np.asarray(vgg.get_layer("fc1").kernel).reshape(7, 7, 512, 256)
    for branch in (1, 2):
        kernel = np.asarray(model.get_layer(f"vgg_16.fc6_{branch}").kernel)
        np.testing.assert_array_equal(kernel, dense[::3, ::3, :, ::3])
        assert origins[f"vgg_16.fc6_{branch}/kernel"] == "fc1/kernel"
        second = np.asarray(model.get_layer(f"vgg_16.fc7_{branch}").kernel)[0, 0]
        np.testing.assert_array_equal(second, np.asarray(vgg.get_layer("fc2").kernel)[::3, ::3])
    np.testing.assert_array_equal(
        np.asarray(model.get_layer("vgg_16.conv5_3").kernel),
        np.asarray(vgg.get_layer("block5_conv3").kernel),
    )


def test_an_image_classifier_of_vgg_is_refused(vgg):
    with pytest.raises(dl.InputError, match="DeepLabV1 and DeepLabV2 take them"):
        read_keras_applications(dl.ImageClassifier(3, "vgg_16"), vgg)


def test_a_head_larger_than_vggs_is_refused(vgg):
    with pytest.raises(dl.InputError, match="at most 4096 for fc6_filters and 7 for fc6_kernel"):
        read_keras_applications(dl.DeepLabV1(3, fc6_filters=300), vgg)
