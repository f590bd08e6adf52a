"""The confusion matrix counts exactly and quickly says what it can't count."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.metrics.mean_iou import ConfusionMatrix, confusion_matrix


def plain(labels, predictions, classes: int, ignore) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for label, prediction in zip(np.ravel(labels), np.ravel(predictions), strict=True):
        if label != ignore:
            matrix[label, prediction] += 1
    return matrix


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from([None, 255, 0, -1]),
    st.sampled_from([np.uint8, np.int32, np.int64]),
    st.integers(0, 2**32 - 1),
)
def test_counts_are_those_of_a_plain_loop(classes, ignore, dtype, seed):
    random = np.random.default_rng(seed)
    top = min(classes, 255 if dtype is np.uint8 else classes)
    labels = random.integers(0, top, (7, 9)).astype(dtype)
    if ignore is not None and (ignore >= 0 or dtype is not np.uint8):
        labels[random.random((7, 9)) < 0.3] = ignore
    predictions = random.integers(0, top, (7, 9)).astype(dtype)
    found = confusion_matrix(labels, predictions, classes, ignore)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, plain(labels, predictions, classes, ignore))


@pytest.mark.parametrize("strips", [1, 3])
def test_pictures_larger_than_a_strip_are_counted_whole(strips):
    random = np.random.default_rng(0)
    shape = (strips * 300 + 7, 801)
    labels = random.integers(0, 19, shape).astype(np.uint8)
    labels[5:9] = 255
    predictions = random.integers(0, 19, shape)
    pairs = (labels.astype(int) * 19 + predictions)[labels != 255]
    expected = np.bincount(pairs, minlength=361).reshape(19, 19)
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 19, 255), expected)


@pytest.mark.parametrize(
    ("labels", "predictions"), [([0, 3], [0, 1]), ([-1, 1], [0, 1]), ([0, 1], [0, 3]), ([0], [-1])]
)
def test_a_value_outside_the_classes_is_refused_not_dropped(labels, predictions):
    with pytest.raises(ValueError, match=r"must lie in 0\.\.2"):
        confusion_matrix(np.array(labels), np.array(predictions), 3, 255)


def test_predictions_under_ignored_labels_do_not_matter():
    found = confusion_matrix(np.array([255, 1]), np.array([9, 1]), 2, 255)
    np.testing.assert_array_equal(found, [[0, 0], [0, 1]])
    with pytest.raises(ValueError, match="equal shape"):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int), 2)


def test_scores_follow_the_official_rule():
    total = ConfusionMatrix(4, 255)
    assert total.mean_iou == 0.0
    total.update(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    total.update(np.array([0, 255, 1, 1]), np.array([2, 0, 1, 1]))
    np.testing.assert_allclose(total.class_iou, [1 / 3, 4 / 5, np.nan, np.nan])
    # Class 2 is predicted and never labelled: 0. Class 3 is in neither: left out.
    assert total.mean_iou == pytest.approx((1 / 3 + 4 / 5 + 0) / 3)
    np.testing.assert_allclose(total.pixel_share, [3 / 7, 4 / 7, 0, 0])
    np.testing.assert_allclose(total.predicted_share, [1 / 7, 5 / 7, 1 / 7, 0])


def test_memory_does_not_grow_with_the_number_of_pictures_nor_much_with_their_size():
    def peak(shape, count):
        labels = np.random.default_rng(0).integers(0, 19, shape).astype(np.uint8)
        total = ConfusionMatrix(19, 255)
        tracemalloc.start()
        for _ in range(count):
            total.update(labels, labels)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    one = peak((513, 513), 1)
    assert peak((513, 513), 20) < 1.1 * one
    assert peak((1025, 2049), 1) < 2 * one
