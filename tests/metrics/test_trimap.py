"""The trimap curve against its definition."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.metrics.trimap import TrimapIoU, outline_distance

MAPS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
)


def _by_hand(labels, most):
    """The definition: the larger of the distances in rows and columns to another label."""
    height, width = labels.shape
    rows, columns = np.mgrid[:height, :width]
    result = np.full(labels.shape, most + 1)
    for y in range(height):
        for x in range(width):
            other = labels != labels[y, x]
            if other.any():
                far = np.maximum(abs(rows - y), abs(columns - x))[other].min()
                result[y, x] = min(far, most + 1)
    return result


@hypothesis.given(MAPS)
@hypothesis.settings(max_examples=60, deadline=None)
def test_the_distance_is_that_to_the_nearest_other_label(labels):
    np.testing.assert_array_equal(outline_distance(labels, 4), _by_hand(labels, 4))


def test_bands_hold_what_lies_in_them():
    labels = np.zeros((20, 60), np.uint8)
    labels[:, 30:] = 1
    predictions = labels.copy()
    predictions[:, 28:30] = 1  # two columns too many
    trimap = TrimapIoU(2, widths=(1, 2, 10, 40))
    trimap.update(labels, predictions)
    # Of w columns on each side, two (one at width 1) are wrong.
    wanted = []
    for width in (1, 2, 10, 30):
        wrong = min(width, 2)
        wanted.append(((width - wrong) / width + width / (width + wrong)) / 2)
    assert trimap.mean_iou == pytest.approx(wanted)
    whole = ConfusionMatrix(2)
    whole.update(labels, predictions)
    assert trimap.mean_iou[-1] == pytest.approx(whole.mean_iou)


def test_unlabelled_pixels_make_an_outline_and_do_not_count():
    labels = np.zeros((9, 9), np.uint8)
    labels[:, 4] = 255
    trimap = TrimapIoU(2, 255, widths=(1, 2))
    predictions = np.zeros((9, 9), np.uint8)
    predictions[:, 3:6] = 1  # wrong beside the strip; on it nobody knows
    trimap.update(labels, predictions)
    # Class 1 isn't labelled, so its mean isn't over it.
    assert trimap.mean_iou == pytest.approx([0.0, 0.5])


def test_a_picture_of_one_class_has_no_outline():
    trimap = TrimapIoU(2)
    trimap.update(np.zeros((5, 5), np.uint8), np.ones((5, 5), np.uint8))
    assert trimap.mean_iou == [None] * 40


def test_pictures_add_up():
    random = np.random.RandomState(0)
    trimap, wanted = TrimapIoU(3, widths=(1, 3)), [ConfusionMatrix(3), ConfusionMatrix(3)]
    for size in ((8, 12), (5, 30)):
        # Blocks of 2x2, or every pixel would be beside another label.
        labels = random.randint(0, 3, size).repeat(2, 0).repeat(2, 1)
        predictions = random.randint(0, 3, labels.shape)
        trimap.update(labels, predictions)
        distance = _by_hand(labels, 3)
        for width, matrix in zip((1, 3), wanted, strict=True):
            band = distance <= width
            matrix.update(labels[band], predictions[band])
    assert trimap.mean_iou == pytest.approx([matrix.mean_iou for matrix in wanted])
