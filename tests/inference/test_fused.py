"""Scales, flips and another output stride, wherever a model is named."""

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner
from deeplab_tf.inference.runner import KerasRunner, load_runner, refine
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.multi_scale import predict_probabilities

IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_preset):
    """Open in size, takes pictures as they are, and not the same whichever scale is run."""
    model = dl.from_preset(tiny_preset)
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("kernel"):  # as first drawn they let nothing through
            fan_in = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:3])
            weight.assign(random.normal(0, (2 / fan_in) ** 0.5, weight.shape))
    model.info = ModelInfo(classes=("background", "person"))
    return model


class LeftRight(Runner):
    """Knows its left from its right: class 1 is as probable as a pixel is far to the right."""

    name, info = "left right", ModelInfo()

    def forward(self, batch):
        right = np.broadcast_to(np.linspace(0, 1, batch.shape[2]), batch.shape[:3])
        return np.stack([1 - right, right], -1).astype(np.float32)


@pytest.mark.parametrize("flip", [False, True])
def test_a_keras_model_is_fused_as_the_official_code_does(model, flip):
    scales = (0.5, 1.0, 1.75)
    found = dl.segment(model, IMAGE, scales=scales, flip=flip).probabilities
    wanted = predict_probabilities(model, IMAGE[None], eval_scales=scales, add_flipped_images=flip)
    np.testing.assert_allclose(found, np.asarray(wanted)[0], atol=1e-5)
    plain = dl.segment(model, IMAGE).probabilities
    assert np.abs(found - plain).max() > 1e-3


def test_one_scale_is_the_model_itself_and_compiling_changes_nothing(model):
    assert refine(runner := load_runner(model), scales=[1]) is runner
    fused = runner.fused((1.0,), False)
    np.testing.assert_allclose(fused.probabilities(IMAGE), runner.probabilities(IMAGE), atol=1e-4)
    fused = load_runner(model, scales=(0.5, 1), flip=True)
    early = fused.probabilities(IMAGE)
    for _ in range(8):
        fused.scores(IMAGE[:33])
    np.testing.assert_allclose(fused.probabilities(IMAGE), early, atol=1e-4)


def test_pictures_are_brought_to_the_models_size_first(tiny_preset):
    runner = load_runner(tiny_preset, scales=(0.5, 1.0), flip=True)
    assert runner.scores(IMAGE).values.shape == (32, 32, 2)
    assert runner.name == f"{tiny_preset}, scales 0.5, 1, flipped too"


def test_the_mirror_image_balances_any_model():
    np.testing.assert_allclose(
        load_runner(LeftRight(), flip=True).probabilities(IMAGE), 0.5, atol=1e-6
    )


def test_a_lite_file_is_flipped_too_but_has_one_scale(red_lite_files):
    flipped = load_runner(red_lite_files["int8"], flip=True)
    plain = load_runner(red_lite_files["int8"])
    # Finding red is the same in the mirror.
    np.testing.assert_allclose(flipped.probabilities(IMAGE), plain.probabilities(IMAGE), atol=0.05)
    with pytest.raises(InputError, match="int8.tflite takes pictures at one size, so scales are"):
        load_runner(red_lite_files["int8"], scales=(0.5, 1))


def test_a_model_built_for_one_size_is_flipped_but_has_one_scale(tiny_preset):
    fixed = dl.from_preset(tiny_preset, image_shape=(48, 64, 3))
    assert load_runner(fixed, flip=True).probabilities(IMAGE).shape == (45, 70, 2)
    with pytest.raises(InputError, match=r"built for 48x64 pixels only.*image_shape=\(None, None"):
        load_runner(fixed, scales=(1, 1.5))


def test_each_window_is_fused(model):
    found = dl.segment(model, IMAGE, scales=(0.5, 1), flip=True, window=(99, 99)).probabilities
    wanted = dl.segment(model, IMAGE, scales=(0.5, 1), flip=True).probabilities
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "scales", [(), (0,), (1, -0.5), (float("nan"),), (float("inf"),), ("1",), "1", None, (True,)]
)
def test_scales_that_are_none_are_refused(model, scales):
    with pytest.raises(InputError, match="scales are numbers above 0"):
        load_runner(model, scales=scales)


def test_a_folder_is_run_at_another_output_stride(tiny_preset):
    runner = load_runner(tiny_preset, output_stride=8)
    assert isinstance(runner, KerasRunner) and runner.name.endswith("tiny, output stride 8")
    assert runner.model.get_config()["output_stride"] == 8
    with pytest.raises(InputError, match=r"output_stride of mobilenet_v2 is one of .*got 4"):
        load_runner(tiny_preset, output_stride=4)


def test_what_is_built_already_keeps_its_output_stride(model, red_lite_files, tmp_path):
    (tmp_path / "saved_model.pb").touch()
    for built in (model, load_runner(model), red_lite_files["int8"], tmp_path):
        with pytest.raises(InputError, match="is built already, so its output stride is fixed"):
            load_runner(built, output_stride=8)
