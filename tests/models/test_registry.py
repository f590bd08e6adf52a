"""Promises that hold for every backbone of the registry."""

import json

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.models.weights import assign_variables

# Those that only add units or width to another are built by the same code.
DEEPER = {
    *("resnet_v1_50", "resnet_v1_101", "resnet_v1_101_beta", "resnet_101_torch"),
    *("xception_65", "xception_71", "mobilenet_v3_large", "mobilenet_v3_small"),
}
BACKBONES = sorted(set(dl.BACKBONES) - DEEPER)
# Narrow where the backbone allows it: these tests are about structure.
NARROW = {
    "mobilenet_v2": {"depth_multiplier": 0.25},
    # Down to stride 32, back up, and on with the head, without which the stride is fixed.
    "nas_hnasnet": {
        "nas_architecture_options": {
            "nas_stem_output_num_conv_filters": 4,
            "nas_use_classification_head": True,
            "nas_levels": [1, 2, 3, 2, 1],
        }
    },
}


def _model(backbone, **options):
    options = {"atrous_rates": (), "aspp_convs_filters": 16, **NARROW.get(backbone, {}), **options}
    return dl.DeepLabV3(3, backbone, **options)


def _randomize(model, seed=0):
    random = np.random.RandomState(seed)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        if "variance" in weight.path or "gamma" in weight.path:
            low, high, scale = 0.5, 1.5, 1.0
        elif weight.path.endswith("beta"):
            # Most units active: with few filters, one layer without any stops every gradient.
            low, high, scale = 0.0, 1.5, 1.0
        else:
            low, high, scale = -1.0, 1.0, 1.5 / np.sqrt(np.prod(weight.shape[:-1]) or 1)
        if weight.path.endswith("kernel") and len(weight.shape) == 4 and weight.shape[-1] == 1:
            scale = 0.5
        weight.assign(random.uniform(low, high, weight.shape).astype("float32") * scale)


def _open_gates(model):
    """Makes squeeze-and-excite gates constant: their means depend on where a map is sampled."""
    for weight in model.weights:
        if weight.path.endswith("squeeze_excite.Conv_1/kernel"):
            weight.assign(np.zeros(weight.shape))


@pytest.mark.parametrize("backbone", sorted(dl.BACKBONES))
def test_config_round_trip_builds_an_equal_model(backbone):
    model = _model(backbone, output_stride=16, name="first")
    config = json.loads(json.dumps(model.get_config()))
    again = dl.DeepLabV3.from_config(config)
    assert again.get_config() == model.get_config()
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


# The searched networks leave strides out without atrous convolution, and change their width; the
# block that loses its stride has the new rate already in torchvision's MobileNetV3.
NOT_DENSE = {"nas_pnasnet", "nas_hnasnet", "mobilenet_v3_large_torch"}
ATROUS = [name for name in BACKBONES if name not in NOT_DENSE]


@pytest.mark.parametrize("backbone", ATROUS)
def test_atrous_features_equal_dense_features_subsampled(backbone):
    image = np.random.RandomState(0).uniform(0, 255, (1, 65, 65, 3)).astype("float32")
    reference = None
    for stride in (8, 16, 32):
        model = _model(backbone, output_stride=stride)
        if reference is None:
            _randomize(model)
            _open_gates(model)
            weights = {w.path: np.asarray(w) for w in model.weights}
        else:
            assign_variables(model, weights)
        features = np.asarray(model.endpoint_model("backbone")(image, training=False)["backbone"])
        if reference is None:
            reference = features
        step = stride // 8
        difference = np.abs(reference[:, ::step, ::step] - features).max()
        # A unit that gains a residual when it loses its stride is another function.
        if not (backbone == "mobilenet_v3_small_seg" and stride == 32):
            assert difference <= 2e-5 * np.abs(features).max(), (stride, difference)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_size_goes_in_and_logits_of_that_size_come_out(backbone):
    model = _model(backbone, output_stride=32)
    for size in ((1, 3), (17, 23), (64, 48), (65, 33)):
        logits = np.asarray(model(np.zeros((2, *size, 3), "float32"), training=False))
        assert logits.shape == (2, *size, 3)
        assert logits.dtype == np.float32
        assert np.all(np.isfinite(logits))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_training_step_moves_every_variable(backbone):
    keras.utils.set_random_seed(0)  # of dropout
    model = _model(backbone, output_stride=16, decoder_output_stride=(4,), decoder_filters=8)
    _randomize(model)
    # By batch statistics the shift before a convolution and the next batch norm cancels out.
    model.set_batch_norm(freeze_statistics=True)
    before = {w.path: np.asarray(w).copy() for w in model.trainable_weights}
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    random = np.random.RandomState(0)
    images = random.uniform(0, 255, (2, 65, 65, 3)).astype("float32")
    loss = model.train_on_batch(images, random.randint(0, 3, (2, 65, 65)))
    assert np.isfinite(loss)
    still = [w.path for w in model.trainable_weights if np.all(np.asarray(w) == before[w.path])]
    assert still == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_preset_folder_gives_the_same_answer(backbone, tmp_path):
    model = _model(backbone)
    _randomize(model)
    info = dl.ModelInfo(classes=("a", "b", "c"), colors=((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    model.save_to_preset(tmp_path / "preset", info)
    again = dl.from_preset(tmp_path / "preset")
    assert again.info == info
    image = np.random.RandomState(0).randint(0, 256, (1, 33, 33, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(model(image)), np.asarray(again(image)))


def test_keras_file_and_clone_give_the_same_answer(tmp_path):
    model = _model("mobilenet_v2", decoder_output_stride=(4,))
    _randomize(model)
    image = np.random.RandomState(0).uniform(0, 255, (1, 33, 33, 3)).astype("float32")
    wanted = np.asarray(model(image))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is dl.DeepLabV3
    np.testing.assert_allclose(np.asarray(again(image)), wanted, atol=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(np.asarray(clone(image)), wanted, atol=1e-5)


def test_mixed_precision_gives_float32_logits():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = _model("mobilenet_v2", decoder_output_stride=(4,))
        logits = model(np.zeros((1, 33, 33, 3), "float32"), training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.all(np.isfinite(np.asarray(logits)))
