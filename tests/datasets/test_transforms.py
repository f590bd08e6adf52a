"""Transforms move picture and label together, and fused steps equal the steps they replace."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.datasets import transforms

SIDES = st.integers(2, 40)


def example(height, width, seed=0):
    """The label is the number of the pixel, which the picture shows in its first channel."""
    label = np.arange(height * width, dtype=np.int32).reshape(height, width)
    image = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return {"image": tf.constant(image), "semantic_label": tf.constant(label), "name": "a"}


@settings(deadline=None, max_examples=60)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 999), mirror=st.booleans())
def test_the_fused_crop_is_scale_pad_crop_flip(height, width, seed, mirror):
    source, size, scales = example(height, width), (17, 21), np.float32([0.5, 0.75, 1.0, 1.7])
    fused = transforms.random_scaled_crop(
        source, tf.constant([seed, 1]), size=size, scales=scales, mirror=mirror, ignore_label=9999
    )
    pair = tf.constant([seed, 1])
    scale = scales[int(tf.random.stateless_uniform([], pair, 0, len(scales), tf.int32))]
    scaled = np.maximum(transforms.scaled_size([height, width], scale).numpy(), 1)
    steps = transforms.resize(source, scaled)
    steps = transforms.pad_to(steps, size, pixel=127.5, ignore_label=9999)
    room = np.maximum(scaled - size, 0) + 1
    offset = np.floor(tf.random.stateless_uniform([2], pair + 1).numpy() * room).astype(int)
    steps = transforms.crop_at(steps, np.minimum(offset, room - 1).tolist(), size)
    steps = transforms.flip(steps) if mirror else steps
    # One pixel has no second to interpolate with, and corners to align need two.
    if min(scaled) > 1:
        np.testing.assert_allclose(fused["image"], steps["image"], atol=0.05)
        # Nearest may fall to either side where the position is half way between two pixels.
        assert np.mean(fused["semantic_label"] == steps["semantic_label"]) > 0.8
    ignored = np.asarray(steps["semantic_label"]) == 9999
    np.testing.assert_array_equal(np.asarray(fused["semantic_label"]) == 9999, ignored)
    assert fused["name"] == "a"


@pytest.mark.parametrize("mirror", [False, True])
def test_a_window_of_the_whole_picture_is_the_picture(mirror):
    source = example(24, 32)
    result = transforms.random_resized_crop(
        source,
        tf.constant([3, 4]),
        size=(24, 32),
        area=(1.0, 1.0),
        aspect=(1.0, 1.0),
        mirror=mirror,
    )
    wanted = transforms.flip(source) if mirror else source
    np.testing.assert_array_equal(result["semantic_label"], wanted["semantic_label"])
    np.testing.assert_allclose(result["image"], np.asarray(wanted["image"], np.float32), atol=0.05)


@settings(deadline=None, max_examples=40)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 999), mirror=st.booleans())
def test_windows_keep_picture_and_label_together(height, width, seed, mirror):
    """A picture that shows its own label is one whose label can be read off afterwards."""
    label = np.random.RandomState(seed).randint(0, 2, (height, width)).astype(np.int32)
    image = np.repeat((label * 255).astype(np.uint8)[..., None], 3, -1)
    source = {"image": tf.constant(image), "semantic_label": tf.constant(label)}
    result = transforms.random_resized_crop(
        source, tf.constant([seed, 0]), size=(48, 48), mirror=mirror
    )
    shown = np.asarray(result["image"])[..., 0] / 255
    # Where the picture isn't between two labels it shows the nearest pixel's.
    sure = np.abs(shown - 0.5) > 0.45
    agree = (shown > 0.5) == (np.asarray(result["semantic_label"]) == 1)
    if max(height, width) <= 48:
        assert np.all(agree[sure])
    assert set(np.unique(result["semantic_label"])) <= {0, 1}


def test_what_shrinks_is_smoothed_first():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    source = {"image": tf.constant(stripes), "semantic_label": tf.zeros((256, 256), tf.int32)}
    result = transforms.random_resized_crop(
        source, tf.constant([0, 0]), size=(64, 64), area=(1.0, 1.0), aspect=(1.0, 1.0)
    )
    inner = np.asarray(result["image"])[:, 2:-2]
    assert inner.min() > 100 and inner.max() < 155


def test_padding_takes_a_colour_of_its_own_in_each_channel():
    source = example(10, 10)
    result = transforms.random_scaled_crop(
        source, tf.constant([0, 0]), size=(20, 20), scales=np.float32([1.0]), pixel=(1.0, 2.0, 3.0)
    )
    np.testing.assert_allclose(np.asarray(result["image"])[15, 15], (1, 2, 3), atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(result["image"])[:10, :10], np.asarray(source["image"], np.float32), atol=0.05
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_colours_stay_in_range_and_labels_as_they_are(seed):
    source = example(9, 7, seed)
    result = transforms.random_color(source, tf.constant([seed, 1]))
    image = np.asarray(result["image"])
    assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 255
    np.testing.assert_array_equal(result["semantic_label"], source["semantic_label"])


def test_colour_changes_can_take_all_colour_away_or_nothing():
    source = example(9, 7)
    grey = np.asarray(transforms.random_color(source, tf.constant([1, 1]), grey=1.1)["image"])
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-3)
    same = transforms.random_color(source, tf.constant([1, 1]), strength=0.0, grey=0.0)
    np.testing.assert_allclose(same["image"], np.asarray(source["image"], np.float32), atol=1e-3)
