"""Boundary IoU counts what lies near outlines, as many erosions by a square would find it."""

import numpy as np
import pytest

from deeplab_tf.metrics.boundary_iou import BoundaryIoU, band_width, near_outline
from deeplab_tf.metrics.mean_iou import ConfusionMatrix

RANDOM = np.random.default_rng(0)


def eroded(mask: np.ndarray) -> np.ndarray:
    """One erosion by a 3x3 square; outside the picture is outside the mask."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    result = np.ones_like(mask)
    for top in range(3):
        for left in range(3):
            result &= padded[top : top + height, left : left + width]
    return result


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_band_is_what_erosions_take_away(width, share):
    mask = RANDOM.random((40, 55)) > share * 0.1
    core = mask
    for _ in range(width):
        core = eroded(core)
    np.testing.assert_array_equal(mask & near_outline(mask, width), mask & ~core)


@pytest.mark.parametrize("shape", [(40, 55), (9, 30), (30, 9), (7, 7), (1, 1)])
def test_all_classes_at_once_are_as_one_by_one(shape):
    labels = np.kron(RANDOM.integers(0, 4, (8, 8)), np.ones((12, 12), int))[: shape[0], : shape[1]]
    labels[RANDOM.random(shape) < 0.01] = 255
    expected = np.zeros(shape, bool)
    for value in np.unique(labels):
        core = labels == value
        for _ in range(4):
            core = eroded(core)
        expected |= (labels == value) & ~core
    np.testing.assert_array_equal(near_outline(labels, 4), expected)


def test_the_band_is_two_percent_of_the_diagonal_but_a_pixel_at_least():
    assert band_width((300, 400)) == 10
    assert band_width((8, 8)) == 1
    assert band_width((300, 400), 0.01) == 5


def square(top: int, left: int, side: int = 60) -> np.ndarray:
    label = np.zeros((100, 100), np.uint8)
    label[top : top + side, left : left + side] = 1
    return label


def scores(label, prediction, classes=2, ignore=None):
    metric = BoundaryIoU(classes, ignore)
    metric.update(label, prediction)
    return metric


def test_equal_maps_score_one_and_a_shift_costs_more_than_in_mean_iou():
    label = square(20, 20)
    assert scores(label, label).mean_iou == 1
    shifted = square(22, 20)
    plain = ConfusionMatrix(2)
    plain.update(label, shifted)
    assert scores(label, shifted).class_iou[1] < 0.6 < 0.9 < plain.class_iou[1]


def test_a_thin_class_is_all_boundary():
    label, prediction = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    label[50:52] = 1
    prediction[51:53] = 1
    assert scores(label, prediction).class_iou[1] == pytest.approx(1 / 3)


def test_pictures_add_up_by_pixels():
    metric = BoundaryIoU(2)
    metric.update(square(20, 20), square(20, 20))
    metric.update(square(20, 20), square(40, 40))
    parts = [scores(square(20, 20), square(at, at)) for at in (20, 40)]
    expected = sum(p.intersection for p in parts) / sum(p.union for p in parts)
    np.testing.assert_allclose(metric.class_iou, expected)


def test_ignored_pixels_do_not_count():
    label, prediction = square(20, 20), square(20, 20)
    prediction[:10] = 1
    assert scores(label, prediction).mean_iou < 1
    label[:15] = 255
    found = scores(label, prediction, ignore=255)
    assert found.class_iou[1] == 1


def test_absent_classes_are_left_out_and_invented_ones_count_as_zero():
    label = square(20, 20)
    found = scores(label, label, classes=4)
    assert found.mean_iou == 1 and np.isnan(found.class_iou[2:]).all()
    prediction = label.copy()
    prediction[0, 0] = 3
    found = scores(label, prediction, classes=4)
    assert np.isnan(found.class_iou[3]) and found.mean_iou < 0.7
    assert BoundaryIoU(2).mean_iou == 0


def test_one_picture_at_a_time():
    with pytest.raises(ValueError, match="one picture at a time"):
        scores(np.zeros((2, 5, 5)), np.zeros((2, 5, 5)))
