"""Panoptic maps in colours: instances differ, outlines separate them, void stays clear."""

import numpy as np
import pytest

from deeplab_tf.panoptic_pictures import outlines, panoptic_colors, panoptic_overlay

COLORS = [(0, 0, 0), (40, 200, 90), (200, 40, 60)]
# Two persons (2), a crowd of them, grass (1), background (0) and void.
LABEL = np.array([[20, 21, 22], [10, 0, 90]], np.int32).repeat(8, 0).repeat(8, 1)


def test_instances_have_shades_of_their_own_and_void_is_white():
    colors = panoptic_colors(LABEL, COLORS, (2,), 10, ignore_label=9)
    crowd, one, other = (tuple(colors[0, x].tolist()) for x in (0, 8, 16))
    assert crowd == one == COLORS[2] and other != one
    assert colors[8, 0].tolist() == [*COLORS[1]] and colors[8, 16].tolist() == [255] * 3


def test_what_is_no_class_is_magenta():
    assert panoptic_colors(np.array([[70, -3]]), COLORS, (2,), 10).tolist() == [[[255, 0, 255]] * 2]


def test_outlines_lie_between_segments_of_any_kind():
    edges = outlines(LABEL)
    assert edges[8].all() and edges[:, 8].all() and edges[:, 16].all()
    assert edges.sum() == 24 + 2 * 16 - 2
    assert outlines(LABEL, 3).sum() > 2 * edges.sum()


def test_background_and_void_show_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    before = image.copy()
    over = panoptic_overlay(image, LABEL, COLORS, (2,), 10, ignore_label=9)
    clear = ~outlines(LABEL) & ((LABEL == 0) | (LABEL == 90))
    np.testing.assert_array_equal(over[clear], image[clear])
    grass = ~outlines(LABEL) & (LABEL == 10)
    wanted = (image[grass].astype(float) + COLORS[1]) / 2
    assert abs(over[grass] - wanted).max() <= 1
    assert (over[outlines(LABEL)] == 255).all()
    np.testing.assert_array_equal(image, before)


def test_names_are_written_on_large_segments_alone():
    label = np.full((80, 120), 10, np.int32)
    label[:2, :2] = 21
    image = np.zeros((80, 120, 3), np.uint8)
    plain = panoptic_overlay(image, label, COLORS, (2,), 10)
    named = panoptic_overlay(image, label, COLORS, (2,), 10, names=("x", "grass", "person"))
    changed = np.argwhere((plain != named).any(-1))
    assert len(changed) and changed.min() > 20


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ"):
        panoptic_overlay(np.zeros((3, 3, 3), np.uint8), LABEL, COLORS, (2,), 10)
