"""The masks of a picture at the size of a model's outputs."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.losses.mask_targets import read_masks, strided

# Things 1 and 3; 0 isn't labelled. Channels: 1, 3, 2, 4, void.
CLASSES = dict(num_classes=5, thing_classes=(3, 1), ignore_label=0)


def _targets():
    """One picture: two things, two kinds of stuff, a crowd, and what isn't labelled."""
    return {
        keys.SEMANTIC_LABEL: np.int32([[[0, 3, 3], [2, 1, 3], [2, 4, 4]]]),
        keys.THING_ID_MASK: np.int32([[[-1, 0, 0], [-1, 1, -1], [-1, -1, -1]]]),
        keys.THING_ID_CLASS: np.float32([[3, 1, -1, -1]]),
    }


def _read(targets, size=(3, 3)):
    return read_masks(targets, size, **CLASSES)


def test_masks_are_things_by_number_and_then_stuff():
    masks = _read(_targets())
    np.testing.assert_array_equal(masks.number, [[-1, 0, 0, 4, 1, -1, 4, 5, 5]])
    np.testing.assert_array_equal(masks.area, [[2, 1, 0, 0, 2, 2]])
    np.testing.assert_array_equal(masks.channel, [[1, 0, -1, -1, 2, 3]])
    np.testing.assert_array_equal(masks.present, [[1, 1, 0, 0, 1, 1]])


def test_a_crowd_is_labelled_but_in_no_mask():
    masks = _read(_targets())
    np.testing.assert_array_equal(masks.labelled, [[0, 1, 1, 1, 1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(masks.thing, [[0, 1, 1, 0, 1, 0, 0, 0, 0]])
    assert masks.number[0, 5] == -1 and not np.any(masks.of_pixel[0, 5])


def test_each_pixel_is_in_the_mask_of_its_number():
    masks = _read(_targets())
    np.testing.assert_array_equal(np.sum(masks.of_pixel, -1), masks.number.numpy() >= 0)
    inside = masks.number.numpy()[0] >= 0
    np.testing.assert_array_equal(
        np.argmax(masks.of_pixel, -1)[0][inside], masks.number.numpy()[0][inside]
    )


def test_masks_that_striding_loses_are_gone():
    masks = _read(_targets(), size=(2, 2))
    np.testing.assert_array_equal(masks.number, [[-1, 0, 4, 5]])
    np.testing.assert_array_equal(masks.channel, [[1, -1, -1, -1, 2, 3]])


def test_values_that_are_no_class_are_not_labelled():
    targets = _targets()
    targets[keys.SEMANTIC_LABEL][0, 2] = (-1, 5, 255)
    masks = _read(targets)
    np.testing.assert_array_equal(masks.labelled[0, 6:], [0, 0, 0])
    np.testing.assert_array_equal(masks.number[0, 6:], [-1, -1, -1])


def test_all_classes_may_be_things_or_none():
    targets = _targets()
    masks = read_masks(targets, (3, 3), num_classes=5, thing_classes=(1, 2, 3, 4), ignore_label=0)
    np.testing.assert_array_equal(masks.channel, [[2, 0, -1, -1]])
    targets[keys.THING_ID_MASK][:] = -1
    targets[keys.THING_ID_CLASS][:] = -1
    masks = read_masks(targets, (3, 3), num_classes=5, thing_classes=(), ignore_label=0)
    np.testing.assert_array_equal(masks.area, [[0, 0, 0, 0, 1, 2, 3, 2]])
    np.testing.assert_array_equal(masks.channel, [[-1, -1, -1, -1, 0, 1, 2, 3]])


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
def test_the_stride_is_told_from_the_sizes(stride):
    sizes = [n for n in (*range(1, 70), 129, 513, 640, 641, 1025) if n > stride or stride == 1]
    run = tf.function(
        strided,
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, None, None), tf.int32),
            (tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.int32)),
        ],
    )
    for height in sizes:
        width = sizes[-1 - sizes.index(height)]
        labels = np.arange(height * width, dtype=np.int32).reshape(1, height, width)
        wanted = labels[:, ::stride, ::stride]
        np.testing.assert_array_equal(strided(labels, wanted.shape[1:]), wanted)
        np.testing.assert_array_equal(run(labels, wanted.shape[1:]), wanted)


def test_a_picture_smaller_than_the_stride_is_its_first_pixel():
    labels = np.arange(20, dtype=np.int32).reshape(1, 4, 5)
    np.testing.assert_array_equal(strided(labels, (1, 1)), [[[0]]])


@pytest.mark.parametrize("size", [(9, 16), (16, 9), (65, 64), (33, 33)])
def test_outputs_that_no_stride_makes_are_refused(size):
    with pytest.raises(InputError, match="stride"):
        strided(np.zeros((1, 64, 64), np.int32), size)
