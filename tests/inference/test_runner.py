"""Whatever holds a model opens by one name and answers at the picture's own size."""

import json
import shutil

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import softmax
from deeplab_tf.inference.intact import INFO_FILE
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.inference.runner import KerasRunner, SavedModelRunner, lite_file_of, load_runner
from deeplab_tf.models.info import ModelInfo

IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_preset):
    return dl.from_preset(tiny_preset)


def test_a_preset_folder_answers_at_the_pictures_size(tiny_preset, model):
    runner = load_runner(tiny_preset)
    assert isinstance(runner, KerasRunner) and runner.info == model.info
    probabilities = runner.probabilities(IMAGE)
    assert probabilities.shape == (45, 70, 2) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(load_runner(model).probabilities(IMAGE), probabilities, atol=1e-5)


def test_a_picture_at_the_models_size_gets_the_models_own_answer(model):
    image = IMAGE[:32, :32]
    logits = model.predict_on_batch(image[None].astype(np.float32))[0]
    np.testing.assert_allclose(load_runner(model).probabilities(image), softmax(logits), atol=1e-5)


def test_compiling_after_some_pictures_changes_nothing(model):
    runner = load_runner(model)
    early = runner.probabilities(IMAGE)
    for _ in range(8):
        runner.scores(IMAGE)
    np.testing.assert_allclose(runner.probabilities(IMAGE), early, atol=1e-4)


def test_any_size_goes_in_where_the_model_has_none(tiny_preset):
    model = dl.from_preset(tiny_preset)
    model.info = ModelInfo(classes=("a", "b"))
    runner = load_runner(model)
    # The later ones run compiled, for a size that isn't known to the graph.
    for side in range(1, 80, 8):
        image = np.resize(IMAGE, (side, 33, 3))
        assert runner.scores(image).values.shape[:2] == (side, 33)


def test_fixed_inputs_are_found(tiny_preset):
    model = dl.from_preset(tiny_preset, image_shape=(48, 64, 3))
    runner = load_runner(model)
    assert runner.size == (48, 64)
    assert runner.scores(IMAGE).values.shape == (48, 64, 2)


def test_a_batch_gives_what_single_pictures_do(model):
    runner = load_runner(model)
    images = [IMAGE, IMAGE[::-1, :40], IMAGE[:33]]
    for image, found in zip(images, runner.batch_scores(images), strict=True):
        np.testing.assert_allclose(found.values, runner.scores(image).values, atol=1e-5)
        assert found.size == image.shape[:2]


def test_a_runner_comes_back_as_it_is(model):
    runner = load_runner(model)
    assert load_runner(runner) is runner


def test_a_lite_file_is_known_by_its_content_too(red_lite_files, tmp_path):
    assert isinstance(load_runner(red_lite_files["int8"]), LiteRTRunner)
    shutil.copy(red_lite_files["int8"], tmp_path / "model.bin")
    assert isinstance(load_runner(str(tmp_path / "model.bin")), LiteRTRunner)


def write_saved_model(folder, answer, info: ModelInfo | None = None):
    import tensorflow as tf

    module = tf.Module()
    signature = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
    module.f = tf.function(answer, input_signature=[signature])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.f})
    if info:
        (folder / INFO_FILE).write_text(json.dumps(info.to_json()))


def test_a_saved_model_takes_pictures_as_they_are(tmp_path):
    import tensorflow as tf

    def red(image):
        share = tf.cast(image[..., :1], tf.float32) / 255
        return {"probabilities": tf.concat([1 - share, share], -1)}

    info = ModelInfo(("other", "red"), ((0, 0, 0), (255, 0, 0)), image_size=(8, 8), resize="fit")
    write_saved_model(tmp_path / "saved", red, info)
    runner = load_runner(tmp_path / "saved")
    assert isinstance(runner, SavedModelRunner) and runner.info == info
    found = runner.probabilities(IMAGE)
    np.testing.assert_allclose(found[..., 1], IMAGE[..., 0] / 255, atol=1e-6)
    # It brings pictures to 8x8 by itself, so a window of another size would be shrunk.
    with pytest.raises(InputError, match="takes 8x8 pixels only"):
        load_runner(runner, window=(16, 16))
    found = load_runner(runner, window=(8, 8), flip=True).probabilities(IMAGE)
    np.testing.assert_allclose(found[..., 1], IMAGE[..., 0] / 255, atol=1e-5)


def test_a_saved_model_that_gives_labels_is_certain(tmp_path):
    import tensorflow as tf

    write_saved_model(
        tmp_path / "saved", lambda image: {"labels": tf.cast(image[..., 0] > 128, tf.uint8)}
    )
    labels = load_runner(tmp_path / "saved").scores(IMAGE).labels()
    np.testing.assert_array_equal(labels, IMAGE[..., 0] > 128)


def test_the_lite_file_beside_a_preset_is_found(tmp_path):
    assert lite_file_of(tmp_path) is None and lite_file_of("no_such_preset") is None
    for name in ("a_float16.tflite", "b_int8.tflite"):
        (tmp_path / name).touch()
    assert lite_file_of(tmp_path) == tmp_path / "b_int8.tflite"


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="notes.txt is neither a .tflite file nor a folder"):
        load_runner(tmp_path / "notes.txt")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="this SavedModel can't be opened"):
        load_runner(tmp_path / "saved")
    with pytest.raises(InputError, match="no preset or preset folder 'portrat'"):
        load_runner("portrat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no model in this folder, .*config.json.*export"):
        load_runner(tmp_path / "empty")


@pytest.mark.parametrize("record", ['{"resize": "fit"}', "[1]", '{"color": "red"}', "{"])
def test_a_broken_record_in_a_saved_model_is_named(record, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    (tmp_path / INFO_FILE).write_text(record)
    with pytest.raises(InputError, match="deeplab_tf.json isn't"):
        load_runner(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "misshapen"])
def test_a_broken_preset_folder_says_what_is_wrong(tiny_preset, tmp_path, damage):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_preset, folder)
    weights = folder / "weights.npz"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        arrays = dict(np.load(weights))
        arrays["logits.semantic/bias"] = np.zeros(5, np.float32)
        np.savez(weights, **arrays)
    with pytest.raises(InputError, match="weights"):
        load_runner(folder)
