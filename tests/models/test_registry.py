"""Promises that hold for every backbone of the registry; see also test_atrous.py."""

import json

import keras
import numpy as np
import pytest
from alike import ALIKE

import deeplab_tf as dl
from deeplab_tf.models.weights import assign_variables

BACKBONES = sorted(set(dl.BACKBONES) - ALIKE)
# Those that only add units or width to another are built by the same code.
DEEPER = {
    *("resnet_v1_50", "resnet_v1_101", "resnet_v1_101_beta", "resnet_101_torch"),
    *("resnet_101_caffe", "resnet_101_garden"),
    *("mobilenet_v3_large_deeplab2", "resnet50_beta", "axial_resnet_s", "max_deeplab_s_backbone"),
    *("resnet_v1c_101", "xception_65", "xception_71", "mobilenet_v3_large", "mobilenet_v3_small"),
}
# One of each kind; they have every layer of our own.
KINDS = ("mobilenet_v2_torch", "mobilenet_v3_small_seg", "resnet_v1_18", "nas_hnasnet")
SMALL = {"atrous_rates": (), "decoder_output_stride": (4,), "decoder_filters": 8}
IMAGE = np.random.RandomState(0).uniform(0, 255, (1, 33, 33, 3)).astype("float32")


def _assert_alike(again, model):
    """Of one config, with the same variables and the same answer."""
    assert type(again) is dl.DeepLabV3
    assert again.get_config() == model.get_config()
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    np.testing.assert_array_equal(np.asarray(again(IMAGE)), np.asarray(model(IMAGE)))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_preset_comes_back_with_its_config_and_answer(backbone, narrow_model, tmp_path):
    model = narrow_model(backbone, **SMALL, name="first")
    info = dl.ModelInfo(classes=("a", "b", "c"), colors=((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    model.save_to_preset(tmp_path / "preset", info)
    config = json.loads((tmp_path / "preset" / "config.json").read_text())["arguments"]
    assert config == model.get_config()
    again = dl.from_preset(tmp_path / "preset")
    assert again.info == info
    _assert_alike(again, model)


@pytest.mark.parametrize("backbone", KINDS)
def test_a_keras_file_comes_back_with_its_config_and_answer(backbone, narrow_model, tmp_path):
    model = narrow_model(backbone, **SMALL, name="first")
    model.save(tmp_path / "model.keras")
    _assert_alike(keras.saving.load_model(tmp_path / "model.keras"), model)


def test_a_clone_gives_the_same_answer(narrow_model):
    model = narrow_model("mobilenet_v2", **SMALL)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(np.asarray(clone(IMAGE)), np.asarray(model(IMAGE)), atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_training_step_on_one_picture_moves_every_variable(backbone, narrow_model):
    keras.utils.set_random_seed(0)  # of dropout
    model = narrow_model(backbone, **SMALL)
    start = {w.path: np.asarray(w).copy() for w in model.weights}
    # By batch statistics the shift before a convolution and the next batch norm cancels out.
    model.set_batch_norm(freeze_statistics=True)
    # `fit` traces a step before it runs it, five times the work of going through the layers once.
    assert np.isfinite(_step(model, run_eagerly=backbone not in KINDS))
    still = [w.path for w in model.trainable_weights if np.all(np.asarray(w) == start[w.path])]
    # What is added to all logits of a softmax alike has no gradient.
    assert [path for path in still if not path.endswith("batch_norm_similarity/beta")] == []
    if backbone in DEEPER:
        return
    # The image-level feature is a single value per channel: it has no variance.
    assign_variables(model, start)
    model.set_batch_norm(freeze_statistics=False)
    assert np.isfinite(_step(model, run_eagerly=True))
    assert [w.path for w in model.weights if not np.all(np.isfinite(np.asarray(w)))] == []
    moving = [w for w in model.non_trainable_weights if "/moving_" in w.path]
    assert [w.path for w in moving if np.all(np.asarray(w) == start[w.path])] == []
    variance = model.get_layer("image_pooling.BatchNorm").moving_variance
    kept = 0.9997 * start["image_pooling.BatchNorm/moving_variance"]
    np.testing.assert_allclose(np.asarray(variance), kept, rtol=1e-6)


def _step(model, *, run_eagerly):
    """The loss of a training step on one picture."""
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
        run_eagerly=run_eagerly,
    )
    random = np.random.RandomState(0)
    images = random.uniform(0, 255, (1, 65, 65, 3)).astype("float32")
    return model.train_on_batch(images, random.randint(0, 3, (1, 65, 65)))


@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - DEEPER))
def test_half_precision_is_inside_and_logits_are_float32(backbone, narrow_model):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = narrow_model(backbone, **SMALL)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    maps = keras.Model(model.input, {layer.name: layer.output for layer in model.layers})
    maps = {name: np.asarray(x) for name, x in maps(IMAGE, training=False).items()}
    assert {x.dtype.name for x in maps.values()} == {"float16", "float32"}
    wide = {name for name, x in maps.items() if x.dtype == np.float32}
    assert wide == {"image", "semantic_logits"}
    assert [name for name, x in maps.items() if not np.all(np.isfinite(x))] == []


def test_bfloat16_gives_float32_logits(narrow_model):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = narrow_model("mobilenet_v2", **SMALL)
        logits = model(np.zeros((1, 33, 33, 3), "float32"), training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.all(np.isfinite(np.asarray(logits)))
