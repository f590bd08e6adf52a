"""Pictures are brought to a model's size and answers back, without stairs, seams or shifts."""

import numpy as np
import pytest

from deeplab_tf import pictures
from deeplab_tf.inference.base import PAD_PIXEL, Runner, ScoreMap, prepare, softmax
from deeplab_tf.models.info import ModelInfo

RANDOM = np.random.default_rng(0)


def picture(height: int, width: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def scores(height: int, width: int, classes: int) -> np.ndarray:
    return softmax(RANDOM.normal(size=(height, width, classes)) * 3)


def bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarges [h, w, C] with half-pixel centres, the slow and plain way."""
    for axis in (0, 1):
        old, new = values.shape[axis], size[axis]
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        lower = np.floor(position).astype(int)
        upper = np.minimum(lower + 1, old - 1)
        share = (position - lower).reshape([-1 if i == axis else 1 for i in range(3)])
        values = values.take(lower, axis) * (1 - share) + values.take(upper, axis) * share
    return values


@pytest.mark.parametrize("size", [(64, 96), (65, 33), (13, 17), (200, 9)])
def test_probabilities_are_enlarged_bilinearly_with_half_pixel_centres(size):
    values = scores(13, 9, 3)
    result = ScoreMap(values, size).probabilities()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, bilinear(values, size), atol=1e-5)
    np.testing.assert_allclose(result.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_labels_are_decided_after_enlarging(classes):
    score_map = ScoreMap(scores(7, 11, classes), (70, 65))
    labels = score_map.labels()
    assert labels.dtype == np.uint8
    expected = bilinear(score_map.values, (70, 65)).argmax(-1)
    assert (labels != expected).mean() < 1e-3
    # Enlarged labels would have straight edges of ten pixels: this finds the difference.
    stairs = score_map.values.argmax(-1).repeat(10, 0).repeat(6, 1)
    assert (stairs[:, :65] != labels).mean() > 0.05


def test_of_equal_classes_the_first_wins():
    values = np.full((2, 2, 3), 1 / 3, np.float32)
    assert (ScoreMap(values, (2, 2)).labels() == 0).all()
    assert (ScoreMap(values[..., :2], (4, 4)).labels() == 0).all()


def test_more_than_256_classes_get_wider_labels():
    values = np.zeros((2, 2, 300), np.float32)
    values[..., 299] = 1
    labels = ScoreMap(values, (3, 3)).labels()
    assert labels.dtype == np.uint16 and (labels == 299).all()


def test_alpha_adds_up_the_classes_with_more_contrast_and_opacity_is_the_same_in_bytes():
    score_map = ScoreMap(scores(8, 8, 4), (50, 30))
    alpha = score_map.alpha([1, 3])
    share = score_map.probabilities()[..., [1, 3]].sum(-1)
    np.testing.assert_allclose(alpha, np.interp(share, [0.25, 0.75], [0, 1]), atol=1e-5)
    np.testing.assert_array_equal(score_map.opacity([1, 3]), np.rint(alpha * 255))


@pytest.mark.parametrize("classes", [2, 5])
def test_strips_meet_without_a_seam(monkeypatch, classes):
    score_map = ScoreMap(scores(16, 16, classes), (100, 40))
    labels, opacity = score_map.labels(), score_map.opacity([1])
    monkeypatch.setattr(pictures, "_STRIP", 7 * 40)
    np.testing.assert_array_equal(score_map.labels(), labels)
    assert np.abs(score_map.opacity([1]).astype(int) - opacity).max() <= 1


def test_scores_at_the_pictures_size_are_left_alone():
    values = scores(5, 6, 3)
    assert ScoreMap(values, (5, 6)).probabilities() is values
    np.testing.assert_array_equal(ScoreMap(values, (5, 6)).labels(), values.argmax(-1))


def test_stretching_ignores_the_aspect():
    prepared = prepare(picture(30, 90), (32, 16), "stretch")
    assert prepared.image.shape == (32, 16, 3) and prepared.filled == (32, 16)


@pytest.mark.parametrize(
    ("height", "width", "filled"), [(30, 90, (21, 64)), (90, 30, (48, 16)), (1, 999, (1, 64))]
)
def test_fitting_keeps_the_aspect_and_pads_with_grey(height, width, filled):
    prepared = prepare(picture(height, width), (48, 64), "fit")
    assert prepared.image.shape == (48, 64, 3) and prepared.filled == filled
    inside = np.zeros((48, 64), bool)
    inside[: filled[0], : filled[1]] = True
    assert (prepared.image[~inside] == PAD_PIXEL).all()
    assert prepared.image[inside].std() > 0 or height == 1


def test_a_picture_that_fits_goes_in_unchanged():
    image = picture(37, 64)
    np.testing.assert_array_equal(prepare(image, (48, 64), "fit").image[:37], image)
    assert prepare(image, (37, 64), "stretch").image is image
    assert prepare(image, None, "none").image is image


def test_only_huge_pictures_are_shrunk_where_any_size_goes():
    prepared = prepare(picture(100, 400), None, "none", max_pixels=10_000)
    assert prepared.image.shape == (50, 200, 3)


class Echo(Runner):
    """Class 1 is as probable as the pixel is red, at half the resolution of the input."""

    def __init__(self, resize: str, size=None, image_size=(32, 48)):
        self.name, self.size, self.batches = "echo", size, []
        self.info = ModelInfo(image_size=image_size, resize=resize)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(batch.shape)
        red = batch[:, ::2, ::2, 0].astype(np.float32) / 255
        return np.stack([1 - red, red], -1)


def left_half_red(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    return image


@pytest.mark.parametrize("resize", ["stretch", "fit", "none"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (80, 200), (31, 30)])
def test_an_answer_lies_where_the_picture_is(resize, height, width):
    image = left_half_red(height, width)
    labels = Echo(resize).scores(image).labels()
    assert labels.shape == (height, width)
    assert (labels != (image[..., 0] > 0)).mean() < 0.08
    assert Echo(resize).probabilities(image).shape == (height, width, 2)


def test_an_input_of_fixed_size_is_filled_whatever_the_rule():
    runner = Echo("none", size=(16, 16))
    runner.scores(picture(40, 50))
    assert runner.batches == [(1, 16, 16, 3)]


def test_pictures_of_one_size_go_together_and_others_one_by_one():
    images = [picture(20, 30), picture(40, 10)]
    together, alone = Echo("stretch"), Echo("none")
    answers = together.batch_scores(images)
    assert together.batches == [(2, 32, 48, 3)]
    assert [answer.size for answer in answers] == [(20, 30), (40, 10)]
    np.testing.assert_array_equal(answers[1].values, together.scores(images[1]).values)
    alone.batch_scores(images)
    assert alone.batches == [(1, 20, 30, 3), (1, 40, 10, 3)]


def test_softmax_takes_large_logits():
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0, -1000.0])), [0.5, 0.5, 0])
