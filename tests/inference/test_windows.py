"""Windows cover a picture, meet without a seam, and take memory that doesn't grow with it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.inference.segment import segment
from deeplab_tf.inference.windows import WindowRunner, blend, blend_weights, window_starts
from deeplab_tf.models.info import ModelInfo

INFO = ModelInfo(("background", "a", "b"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))


class Pixelwise(Runner):
    """Certain of each pixel by itself: class 0, 1 or 2 by its red value."""

    def __init__(self, info: ModelInfo = INFO, size: tuple[int, int] | None = None):
        self.name, self.info, self.size, self.shapes = "pixelwise", info, size, []

    def forward(self, batch: np.ndarray) -> np.ndarray:
        self.shapes.append(batch.shape)
        return np.eye(3, dtype=np.float32)[batch[..., 0] % 3]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


sides = st.integers(1, 60)
overlaps = st.one_of(st.just(0.0), st.floats(0, 0.999))


@given(sides, st.integers(1, 40), overlaps)
def test_windows_lie_inside_overlap_as_asked_and_weigh_one_in_all(length, window, overlap):
    starts = window_starts(length, window, overlap)
    weights = blend_weights(length, window, starts)
    reach = min(window, length)
    assert starts[0] == 0 and starts[-1] == length - reach
    for before, after in zip(starts, starts[1:], strict=False):
        assert 0 < after - before <= max(1, window * (1 - overlap))
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        assert weight.min() > 0 and len(weight) == reach
        total[start : start + reach] += weight
    np.testing.assert_allclose(total, 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 40), st.integers(1, 40), overlaps)
def test_a_pixelwise_model_answers_as_for_the_whole_picture(h, w, rows, columns, overlap):
    overlap = min(overlap, 0.9)  # more takes thousands of windows
    image, plain = noise(h, w), Pixelwise()
    seen = np.zeros((h, w), int)
    for y, x, values in blend(image, (rows, columns), overlap, lambda p: plain.forward(p[None])[0]):
        seen[y, x] += 1
        np.testing.assert_allclose(values, plain.forward(image[None, y, x])[0], atol=1e-5)
    assert (seen == 1).all()
    found = segment(Pixelwise(), image, window=(rows, columns), overlap=overlap)
    np.testing.assert_array_equal(found.labels, image[..., 0] % 3)


def test_where_windows_disagree_one_fades_into_the_other():
    numbers = iter(np.eye(2, dtype=np.float32))

    def forward(part):  # the first window is certain of class 0, the second of class 1
        return np.broadcast_to(next(numbers), (*part.shape[:2], 2))

    blocks = [values.copy() for _, _, values in blend(noise(15, 10), (10, 10), 0.5, forward)]
    second = np.concatenate(blocks)[:, 0, 1]
    assert (second[:5] == 0).all() and (second[10:] == 1).all()
    assert (np.diff(second[4:11]) > 0).all()


def test_the_buffer_does_not_grow_with_the_picture():
    def peak(height, width):
        image = np.zeros((height, width, 3), np.uint8)
        tracemalloc.start()
        for _ in blend(image, (64, 64), 0.25, lambda p: np.zeros((*p.shape[:2], 21), np.float32)):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    # A quarter of a window of 21 floats on each of 200 pixels, and a window or four.
    bound = 16 * 200 * 21 * 4 + 4 * 64 * 64 * 21 * 4
    assert peak(400, 200) < bound * 1.2
    assert peak(4000, 200) < bound * 1.2
    assert peak(200, 4000) < bound * 1.2


def test_a_picture_smaller_than_the_window_is_seen_as_it_is():
    runner = Pixelwise()
    result = segment(runner, noise(20, 90), window=(32, 32))
    assert {shape[1:3] for shape in runner.shapes} == {(20, 32)}
    np.testing.assert_array_equal(result.labels, result.image[..., 0] % 3)


def test_a_model_of_one_size_gets_a_small_picture_filled_up(red_lite_files):
    runner = load_runner(red_lite_files["probabilities"], window=(24, 32))
    image = np.zeros((10, 50, 3), np.uint8)
    image[:, 25:, 0] = 255
    np.testing.assert_array_equal(segment(runner, image).labels, image[..., 0] > 0)
    image = np.tile(image, (9, 1, 1))
    np.testing.assert_array_equal(segment(runner, image).labels, image[..., 0] > 0)


def test_a_model_of_one_size_says_which_window_to_take(red_lite_files):
    lite = LiteRTRunner(red_lite_files["int8"])
    with pytest.raises(InputError, match=r"takes 24x32 pixels only: .*\(24, 32\).*--window 24x32"):
        WindowRunner(lite, (513, 513))
    fixed = load_runner(lite, flip=True, window=(24, 32))
    assert fixed.name == f"{lite.name}, flipped too, windows of 24x32"


def test_the_pictures_own_resolution_is_kept_whatever_size_the_model_likes():
    info = ModelInfo(INFO.classes, INFO.colors, image_size=(8, 8), resize="stretch")
    runner = Pixelwise(info)
    image = noise(50, 70)
    found = segment(runner, image, window=(16, 16), overlap=0)
    np.testing.assert_array_equal(found.labels, image[..., 0] % 3)
    assert len(runner.shapes) == 4 * 5


def test_an_answer_at_half_resolution_is_enlarged():
    class Half(Pixelwise):
        def forward(self, batch):
            return super().forward(batch[:, ::2, ::2])

    image = np.full((40, 40, 3), 1, np.uint8)
    image[20:] = 2
    labels = segment(Half(), image, window=(16, 16)).labels
    assert (labels[:18] == 1).all() and (labels[22:] == 2).all()


@pytest.mark.parametrize("classes", [None, ["a"], [0], [1, 2], ["background", "b"]])
def test_outputs_are_those_of_the_whole_picture(classes, tmp_path):
    image = noise(50, 40)
    whole = segment(Pixelwise(), image)
    runner = Pixelwise()
    windows = segment(runner, image, window=(16, 16))
    calls = len(runner.shapes)
    np.testing.assert_array_equal(windows.cut_out(classes), whole.cut_out(classes))
    np.testing.assert_allclose(windows.alpha(classes), whole.alpha(classes), atol=0.003)
    # All but the background is known from the first run.
    assert (len(runner.shapes) == calls) == (classes in (None, [1, 2]))
    np.testing.assert_array_equal(windows.overlay(), whole.overlay())
    np.testing.assert_allclose(windows.probabilities, whole.probabilities, atol=1e-5)
    assert windows.shares == whole.shares
    for path in windows.save(tmp_path, classes=classes):
        assert Image.open(path).size == (40, 50)


def test_a_model_without_background_has_its_labels_all_the_same():
    runner = Pixelwise(ModelInfo(("sky", "road", "car")))
    result = segment(runner, noise(30, 30), window=(16, 16))
    assert (result.cut_out("road")[..., 3] == 255 * (result.labels == 1)).all()


@pytest.mark.parametrize("flip", [False, True])
def test_classes_that_show_in_later_windows_only_are_taken_in(flip):
    class Labels(Pixelwise):
        def forward(self, batch):
            seen = batch[..., 0]
            return np.eye(int(seen.max()) + 1, dtype=np.float32)[seen]

    image = np.zeros((60, 20, 3), np.uint8)
    image[30:] = 3
    image[50:, 15:] = 4
    result = segment(Labels(ModelInfo()), image, window=(16, 16), flip=flip)
    np.testing.assert_array_equal(result.labels, image[..., 0])
    np.testing.assert_allclose(result.probabilities, np.eye(5)[image[..., 0]], atol=1e-5)
    np.testing.assert_array_equal(result.cut_out(4)[..., 3] == 255, image[..., 0] == 4)


def test_every_window_is_reported():
    runner, seen = WindowRunner(Pixelwise(), (16, 16), 0), []
    runner.on_window = lambda done, total: seen.append((done, total))
    runner.scores(noise(40, 20))
    assert seen == [(number, 6) for number in range(1, 7)]


def test_a_keras_model_is_run_at_the_windows_size(tiny_preset):
    image = noise(70, 40)
    whole = load_runner(tiny_preset).forward(image[None])[0]
    one = load_runner(tiny_preset, window=(80, 80)).probabilities(image)
    np.testing.assert_allclose(one, whole, atol=1e-5)
    many = load_runner(tiny_preset, window=(33, 33), overlap=0.5).probabilities(image)
    assert many.shape == whole.shape
    np.testing.assert_allclose(many.sum(-1), 1, atol=1e-4)


@pytest.mark.parametrize("window", [(0, 5), (-1, 5), (5,), (5, 5, 5), 0, 2.5, (2.0, 5), "513", ()])
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(InputError, match=r"window is \(height, width\), whole numbers from 1"):
        segment(Pixelwise(), noise(9, 9), window=window)


@pytest.mark.parametrize("overlap", [-0.1, 1, 1.5, float("nan"), "half"])
def test_an_overlap_that_is_none_is_refused(overlap):
    with pytest.raises(InputError, match="overlap is a share of the window, 0 to below 1; got"):
        segment(Pixelwise(), noise(9, 9), window=(4, 4), overlap=overlap)


def test_an_overlap_without_a_window_is_refused():
    with pytest.raises(InputError, match="overlap is of windows: give window too"):
        segment(Pixelwise(), noise(9, 9), overlap=0.5)
