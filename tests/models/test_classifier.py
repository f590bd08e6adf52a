"""The classifier of every backbone: its names, its size, and what it gives to others."""

import json

import keras
import numpy as np
import pytest
from alike import ALIKE

import deeplab_tf as dl
from deeplab_tf.models.macs import count, parameters

applications = keras.applications


def _biases(model):
    """Elements of the biases of keras.applications' ResNet before its batch norms."""
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    return sum(x.filters for x in convolutions if x.use_bias)


@pytest.mark.parametrize(
    ("backbone", "options", "theirs"),
    [
        ("mobilenet_v2", {}, lambda **o: applications.MobileNetV2(**o)),
        (
            "mobilenet_v2",
            {"depth_multiplier": 0.5, "divisible_by": 8},
            lambda **o: applications.MobileNetV2(alpha=0.5, **o),
        ),
        (
            "mobilenet_v2",
            {"depth_multiplier": 1.4, "divisible_by": 8},
            lambda **o: applications.MobileNetV2(alpha=1.4, **o),
        ),
        ("mobilenet_v3_large", {}, lambda **o: applications.MobileNetV3Large(**o)),
        ("mobilenet_v3_small", {}, lambda **o: applications.MobileNetV3Small(**o)),
        (
            "mobilenet_v3_large",
            {"depth_multiplier": 0.75},
            lambda **o: applications.MobileNetV3Large(alpha=0.75, **o),
        ),
        ("resnet_v1_50", {}, lambda **o: applications.ResNet50(**o)),
        ("resnet_v1_101", {}, lambda **o: applications.ResNet101(**o)),
    ],
)
def test_parameters_are_those_of_keras_applications(backbone, options, theirs):
    other = theirs(weights=None)
    wanted = parameters(other)
    if backbone.startswith("resnet"):
        wanted -= _biases(other)
    assert parameters(dl.ImageClassifier(1000, backbone, **options)) == wanted


@pytest.mark.parametrize(
    ("backbone", "millions"),
    # Of https://arxiv.org/abs/1801.04381 (Table 4), https://arxiv.org/abs/1905.02244 (Table 3),
    # https://arxiv.org/abs/1512.03385 as all count it.
    [
        ("mobilenet_v2", "3.5"),
        ("mobilenet_v3_large", "5.5"),
        ("mobilenet_v3_small", "2.5"),
        ("resnet_v1_50", "25.6"),
        ("resnet_v1_101", "44.5"),
    ],
)
def test_parameters_are_the_published_millions(backbone, millions):
    assert f"{parameters(dl.ImageClassifier(1000, backbone)) / 1e6:.1f}" == millions


@pytest.mark.parametrize(
    ("backbone", "options", "millions"),
    # Of the tables beside the official checkpoints; of small, of the paper's Table 3.
    [
        ("mobilenet_v2", {}, 300),
        ("mobilenet_v2", {"depth_multiplier": 1.4, "divisible_by": 8}, 582),
        ("mobilenet_v3_large", {}, 217),
        ("mobilenet_v3_small", {}, 56),
        ("mobilenet_edgetpu", {}, 990),
        ("resnet_v1_50", {}, 3500),
    ],
)
def test_multiply_adds_at_224_are_the_published_ones(backbone, options, millions):
    found = count(dl.ImageClassifier(1001, backbone, **options), (224, 224)).multiply_adds
    assert found / 1e6 == pytest.approx(millions, rel=0.01)


# Of the official ImageNet checkpoints.
NAMES = {
    "mobilenet_v2": [
        "MobilenetV2.Conv_1/kernel",
        "MobilenetV2.Conv_1.BatchNorm/gamma",
        "MobilenetV2.Logits.Conv2d_1c_1x1/bias",
    ],
    "mobilenet_v3_large_seg": [
        "MobilenetV3.Conv_2/bias",
        "MobilenetV3.Logits.Conv2d_1c_1x1/kernel",
    ],
    "mobilenet_v3_small_seg": [
        "MobilenetV3.Conv_2/bias",
        "MobilenetV3.Logits.Conv2d_1c_1x1/kernel",
    ],
    "mobilenet_edgetpu": ["MobilenetEdgeTPU.Logits.Conv2d_1c_1x1/bias"],
    "resnet_v1_18_beta": ["resnet_v1_18.logits/kernel", "resnet_v1_18.logits/bias"],
    "xception_41": ["xception_41.logits/kernel", "xception_41.logits/bias"],
    "nas_pnasnet": ["pnasnet.classification_head_conv/kernel", "pnasnet.logits/kernel"],
    "nas_hnasnet": ["hnasnet.downsample_os32_conv/kernel", "hnasnet.logits/kernel"],
}
DROPOUT = {
    **{"mobile": 0.2, "xception": 0.5, "resnet": 0.0, "nas": 0.0, "vgg": 0.5},
    **{"wide": 0.0, "swide": 0.0, "axial": 0.0, "max": 0.0, "convnext": 0.0},
}


@pytest.mark.parametrize("backbone", sorted(set(dl.BACKBONES) - ALIKE))
def test_every_backbone_has_a_classifier_with_official_names_and_dropout(backbone):
    model = dl.ImageClassifier(7, backbone)
    paths = [w.path for w in model.weights]
    assert set(NAMES.get(backbone, ())) <= set(paths)
    scope = dl.BACKBONES[backbone].scope
    assert {path.split(".")[0] for path in paths} == {scope}
    assert model.output_shape == (None, 7)
    family = next(name for name in DROPOUT if backbone.startswith(name))
    assert model.get_layer(f"{scope}.dropout").rate == DROPOUT[family]


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("mobilenet_v2", {"depth_multiplier": 0.25, "dropout_rate": 0.0}),
        ("nas_pnasnet", {"nas_architecture_options": {"nas_stem_output_num_conv_filters": 2}}),
    ],
)
def test_config_round_trip_builds_an_equal_model(backbone, options):
    model = dl.ImageClassifier(7, backbone, name="first", **options)
    again = dl.ImageClassifier.from_config(json.loads(json.dumps(model.get_config())))
    assert again.get_config() == model.get_config()
    assert [(w.path, w.shape) for w in again.weights] == [(w.path, w.shape) for w in model.weights]


def test_the_wide_convolution_grows_with_the_multiplier_but_does_not_shrink():
    for multiplier, width in ((0.5, 1280), (1.4, 1792)):
        model = dl.ImageClassifier(2, "mobilenet_v2", depth_multiplier=multiplier)
        assert model.get_layer("MobilenetV2.Conv_1").filters == width


def test_any_size_goes_in_and_a_folder_gives_the_same_answer(tmp_path):
    model = dl.ImageClassifier(5, "mobilenet_v3_small", depth_multiplier=0.25)
    images = np.random.RandomState(0).randint(0, 256, (2, 37, 50, 3), np.uint8)
    logits = np.asarray(model(images))
    assert logits.shape == (2, 5)
    assert logits.dtype == np.float32
    info = dl.ModelInfo(classes=tuple("abcde"))
    model.save_to_preset(tmp_path / "folder", info)
    again = dl.ImageClassifier.from_preset(tmp_path / "folder")
    assert again.info == info
    np.testing.assert_array_equal(np.asarray(again(images)), logits)
    more = dl.ImageClassifier.from_preset(tmp_path / "folder", num_classes=9)
    assert more.output_shape == (None, 9)


def test_a_training_step_moves_the_first_and_the_last_layer():
    keras.utils.set_random_seed(0)
    model = dl.ImageClassifier(2, "mobilenet_v3_small", depth_multiplier=0.25)
    watched = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    watched = [watched[0], watched[-1]]
    before = [np.asarray(w).copy() for w in watched]
    # Tracing would take longer than the step.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss, run_eagerly=True)
    images = np.random.RandomState(0).uniform(0, 255, (4, 64, 64, 3))
    assert np.isfinite(model.train_on_batch(images, np.arange(4) % 2))
    for weight, old in zip(watched, before, strict=True):
        assert np.any(np.asarray(weight) != old), weight.path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet_v1_5"}, "Did you mean 'resnet_v1_50"),
        ({"output_stride": 4}, "output_stride of resnet_v1_50 is one of"),
        ({"depth_multiplier": 0.5}, "resnet_v1_50 doesn't have this option"),
        ({"dropout": 0.5}, "no option 'dropout'. Did you mean 'dropout_rate'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(options, words):
    with pytest.raises(dl.InputError, match=words):
        dl.ImageClassifier(3, **options)
