"""Panoptic .tflite files and SavedModels: instances as from the model that they came from."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deeplab_tf import keys, segment
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import softmax
from deeplab_tf.inference.intact import INFO_FILE
from deeplab_tf.inference.lite_maps import (
    enlarge,
    enlarge_offsets,
    enlarge_probabilities,
    without_ties,
)
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.inference.merged import MergedScoreMap
from deeplab_tf.inference.panoptic import PanopticScoreMap
from deeplab_tf.inference.runner import SavedModelRunner, load_runner
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.panoptic_numpy import OPS
from deeplab_tf.postprocess.panoptic_rules import find_centers

SETTINGS = MergeSettings(thing_classes=(1,), label_divisor=100, void_label=255)
INFO = ModelInfo(
    classes=("ground", "ball"),
    colors=((0, 0, 0), (255, 0, 0)),
    image_size=(65, 65),
    resize="stretch",
    thing_classes=(1,),
    label_divisor=100,
    merge={"stuff_area_limit": 1},
)
CENTERS = ((16, 16), (16, 48), (44, 28))


def balls(size: int = 65) -> np.ndarray:
    """Three discs: red tells them from the ground, blue is the heatmap."""
    y, x = np.mgrid[0:size, 0:size] * 64 / (size - 1)
    image = np.zeros((size, size, 3), np.float32)
    for row, column in CENTERS:
        squared = (y - row) ** 2 + (x - column) ** 2
        image[squared < 144, 0] = 255
        image[..., 2] = np.maximum(image[..., 2], 255 * np.exp(-squared / 128))
    return image.astype(np.uint8)


def linear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corner-aligned bilinear enlarging, written out."""
    for axis, large in enumerate(size):
        small = values.shape[axis]
        place = np.arange(large) * (small - 1) / max(large - 1, 1)
        low = np.minimum(place.astype(int), small - 1)
        shape = [1] * values.ndim
        shape[axis] = large
        share = (place - low).reshape(shape)
        high = np.minimum(low + 1, small - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


# --- Maps at a stride ---


@pytest.mark.parametrize("size", [(33, 65), (9, 40), (9, 17), (200, 33)])
def test_maps_are_enlarged_corner_on_corner(size):
    values = np.random.default_rng(0).normal(size=(9, 17, 3)).astype(np.float32)
    np.testing.assert_allclose(enlarge(values, size), linear(values, size), atol=1e-4)


def test_probabilities_are_enlarged_as_their_logits_would_be():
    logits = np.random.default_rng(0).normal(0, 8, (9, 9, 4)).astype(np.float32)
    found = enlarge_probabilities(softmax(logits), (33, 33))
    np.testing.assert_allclose(found, softmax(linear(logits, (33, 33))), atol=1e-3)


def test_probabilities_of_zero_stay_numbers():
    certain = np.eye(3, dtype=np.float32)[np.arange(16).reshape(4, 4) % 3]
    found = enlarge_probabilities(certain, (13, 13))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[::4, ::4].argmax(-1), certain.argmax(-1))


def test_offsets_point_to_the_same_place_in_a_larger_map():
    y, x = np.mgrid[0:9, 0:17].astype(np.float32)
    offsets = np.stack([5 - y, 11 - x], axis=-1)
    found = enlarge_offsets(offsets, (33, 129))
    y, x = np.mgrid[0:33, 0:129]
    np.testing.assert_allclose(found, np.stack([20 - y, 88 - x], axis=-1), atol=1e-3)


# --- Plateaus ---


def count_centers(heatmap: np.ndarray, kernel: int = 5) -> int:
    settings = MergeSettings((1,), 100, 255, nms_kernel=kernel)
    return int(find_centers(OPS, heatmap[..., 0], settings)[2])


def spot(center, step: float, size: int = 31, sigma: float = 6.0) -> np.ndarray:
    """A round spot, rounded to whole steps: float32 [size, size, 1]."""
    y, x = np.mgrid[0:size, 0:size]
    heat = 0.8 * np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * sigma**2))
    return (np.round(heat / step) * step).astype(np.float32)[..., None]


@pytest.mark.parametrize("center", [(15, 15), (14.5, 15), (14.5, 14.5), (12.3, 17.8), (0, 30)])
@pytest.mark.parametrize("step", [1 / 128, 1 / 16])
def test_a_quantised_spot_has_one_centre(center, step):
    heatmap = spot(center, step)
    found = without_ties(heatmap)
    assert count_centers(found) == 1
    place = np.unravel_index(found[..., 0].argmax(), found.shape[:2])
    assert np.abs(np.subtract(place, center)).max() <= 1
    assert np.abs(found - heatmap).max() <= step / 2


def test_without_the_remedy_a_spot_falls_apart():
    assert count_centers(spot((14.5, 14.5), 1 / 128)) == 4
    assert count_centers(spot((15, 15), 1 / 16)) > 4


def test_two_spots_stay_two():
    heatmap = np.maximum(spot((8, 8), 1 / 64, sigma=3), spot((8, 22), 1 / 64, sigma=3))
    assert count_centers(without_ties(heatmap)) == 2


def test_an_exact_heatmap_stays_as_it_is():
    heatmap = np.random.default_rng(0).random((40, 40, 1)).astype(np.float32)
    assert without_ties(heatmap) is heatmap
    flat = np.zeros((5, 5, 1), np.float32)
    assert without_ties(flat) is flat


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(1))))
def test_cells_a_step_apart_keep_their_order(stored):
    heatmap = stored.astype(np.float32) / 256
    levels = np.unique(heatmap)
    step = np.diff(levels).min() if len(levels) > 1 else 1.0
    found = without_ties(heatmap).ravel()
    assert np.abs(found - heatmap.ravel()).max() <= step / 2
    order = np.argsort(found, kind="stable")
    assert (np.diff(heatmap.ravel()[order]) >= 0).all()


# --- .tflite files ---


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """A file with a panoptic model's outputs at stride 4, without a record."""
    import tensorflow as tf

    def maps(image):
        seen = tf.cast(image, tf.float32)[:, ::4, ::4]
        ball = (seen[..., :1] - 128) / 16
        return {
            "probabilities": tf.nn.softmax(tf.concat([-ball, ball], -1)),
            "center_heatmap": seen[..., 2:] / 255,
            "offset_map": tf.stack([0.25 + 0 * seen[..., 0], -0.5 + 0 * seen[..., 0]], -1),
        }

    folder = tmp_path_factory.mktemp("balls")
    module = tf.Module()
    spec = tf.TensorSpec((1, 65, 65, 3), tf.uint8, name="image")
    module.f = tf.function(maps, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": module.f})
    path = folder / "plain.tflite"
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    path.write_bytes(converter.convert())
    return path


@pytest.fixture(scope="module")
def lite_file(plain_file):
    path = plain_file.with_name("balls.tflite")
    path.write_bytes(plain_file.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(INFO_FILE, json.dumps(INFO.to_json()))
    return path


def test_a_panoptic_file_gives_three_maps_of_its_inputs_size(lite_file):
    runner = LiteRTRunner(lite_file)
    image = balls()
    found = runner.maps(np.stack([image, image[::-1]]))
    shapes = {name: x.shape for name, x in found.items()}
    assert shapes == {
        "probabilities": (2, 65, 65, 2),
        "center_heatmap": (2, 65, 65, 1),
        "offset_map": (2, 65, 65, 2),
    }
    assert all(x.dtype == np.float32 for x in found.values())
    np.testing.assert_allclose(found["probabilities"].sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(
        found["probabilities"], runner.forward(np.stack([image, image[::-1]]))
    )
    # In pixels of the input, four of which are one of the file's.
    np.testing.assert_allclose(found["offset_map"][0, 30, 30], [1, -2], atol=1e-4)
    assert runner.map_shape == (17, 17, 2)


@pytest.mark.parametrize("size", [65, 130, 47])
def test_its_instances_are_found_at_any_size(lite_file, size):
    found = segment(lite_file, balls(size))
    assert found.is_panoptic and found.panoptic_label.shape == (size, size)
    kinds = [(s.class_id, s.instance) for s in found.segments]
    assert kinds == [(0, None), (1, 1), (1, 2), (1, 3)]
    for row, column in CENTERS:
        y, x = (round(side * (size - 1) / 64) for side in (row, column))
        assert found.panoptic_label[y, x] > 100
    assert (
        len(
            {
                found.panoptic_label[round(r * (size - 1) / 64), round(c * (size - 1) / 64)]
                for r, c in CENTERS
            }
        )
        == 3
    )


def test_mirror_images_have_a_say(lite_file):
    plain, flipped = (segment(lite_file, balls(), flip=flip) for flip in (False, True))
    assert (plain.panoptic_label == flipped.panoptic_label).mean() > 0.97
    assert len(flipped.segments) == len(plain.segments)


def test_without_a_record_it_is_a_segmenter(plain_file):
    found = segment(plain_file, balls())
    assert not found.is_panoptic
    # As near as every fourth pixel tells.
    assert ((found.labels == 1) == (balls()[..., 0] > 128)).mean() > 0.9


def test_neither_tensorflow_nor_keras_is_needed(lite_file):
    code = (
        "import sys, numpy as np\n"
        "from deeplab_tf import segment\n"
        f"found = segment({str(lite_file)!r}, np.zeros((40, 50, 3), np.uint8))\n"
        "assert found.panoptic_label.shape == (40, 50) and len(found.segments) == 1\n"
        "print([m for m in ('tensorflow', 'keras', 'jax', 'torch') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[]\n", "")


# --- SavedModels ---


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """A folder that calls the left half of each picture one ball, the right half another."""
    import tensorflow as tf

    def answer(image):
        shape = tf.shape(image)
        right = tf.cast(tf.range(shape[2]) >= shape[2] // 2, tf.int32)
        label = tf.broadcast_to(101 + right, shape[:3])
        share = tf.broadcast_to(tf.constant([0.25, 0.75]), tf.concat([shape[:3], [2]], 0))
        score = tf.where(label == 101, 0.5, 0.875)
        return {
            "panoptic_label": label,
            "instance_score": score,
            "probabilities": share,
            "segment_ids": label[:, 0, :1],
        }

    folder = tmp_path_factory.mktemp("served") / "1"
    module = tf.Module()
    spec = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
    module.f = tf.function(answer, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.f})
    (folder / INFO_FILE).write_text(json.dumps(INFO.to_json()))
    return folder


def test_what_a_saved_model_merged_is_taken_as_it_is(saved_model):
    runner = load_runner(saved_model)
    assert isinstance(runner, SavedModelRunner)
    found = segment(runner, np.zeros((30, 40, 3), np.uint8))
    assert isinstance(found.scores, MergedScoreMap) and isinstance(found.scores, PanopticScoreMap)
    assert [(s.id, s.area, s.box, s.score) for s in found.segments] == [
        (101, 600, (0, 0, 20, 30), 0.5),
        (102, 600, (20, 0, 20, 30), 0.875),
    ]
    assert (found.labels == 1).all() and found.probabilities.shape == (30, 40, 2)
    np.testing.assert_array_equal(found.scores.probability_of(found.labels), 0.75)
    assert runner.forward(np.zeros((2, 6, 8, 3), np.uint8)).shape == (2, 6, 8, 2)


def test_mirror_images_are_refused(saved_model):
    with pytest.raises(InputError, match="merged already"):
        load_runner(saved_model, flip=True)


def test_a_picture_that_was_shrunk_gets_the_nearest_pixels(saved_model):
    runner = load_runner(saved_model)
    runner.max_pixels = 15 * 20
    found = segment(runner, np.zeros((30, 40, 3), np.uint8))
    assert found.panoptic_label.shape == (30, 40) and found.panoptic_label.dtype == np.int32
    np.testing.assert_array_equal(np.unique(found.panoptic_label), [101, 102])
    assert found.scores.merged[keys.INSTANCE_SCORE].shape == (30, 40)


def test_evaluate_scores_its_instances(saved_model):
    from deeplab_tf.training.evaluate import PanopticTally
    from deeplab_tf.training.examples import Examples

    truth = np.full((30, 40), 101)
    truth[:, 20:] = 102
    image = np.zeros((30, 40, 3), np.uint8)
    examples = Examples(
        "balls",
        "val",
        INFO.classes,
        INFO.colors,
        255,
        1,
        read=lambda: iter(()),
        thing_classes=(1,),
        label_divisor=100,
    )
    tally = PanopticTally(
        examples, load_runner(saved_model), crowd="segment", boundary=False, trimap=False, worst=1
    )
    tally.update([("a", image, truth)])
    scores = tally.finish(0.0)
    assert scores.panoptic.pq["things"] == 1.0
    assert scores.panoptic.instance_ap["AP"] == pytest.approx(1.0)
