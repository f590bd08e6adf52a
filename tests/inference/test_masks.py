"""Mask transformers on pictures of any size: what they find, and what they show of it."""

import dataclasses

import numpy as np
import pytest
from painted_slots import BALL, DIVISOR, INFO, VOID, PaintedSlots, scene

from deeplab_tf.errors import InputError
from deeplab_tf.inference.explain import explain
from deeplab_tf.inference.masks import MaskScoreMap
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.inference.segment import segment
from deeplab_tf.metrics.panoptic_quality import PanopticQuality


@pytest.fixture(scope="module")
def model():
    return PaintedSlots()


def _quality(truth, found) -> PanopticQuality:
    # A mask's number is none of the labels'; segments are compared.
    quality = PanopticQuality(3, (BALL,), DIVISOR, VOID)
    quality.update(truth, found)
    return quality


@pytest.mark.parametrize("size", [(65, 65), (97, 129), (130, 70), (33, 40)])
def test_segments_are_found_at_the_size_of_the_picture(model, size):
    image, truth = scene(*size)
    result = segment(model, image)
    assert isinstance(result.scores, MaskScoreMap)
    assert result.panoptic_label.shape == result.labels.shape == size
    quality = _quality(truth, result.panoptic_label)
    assert quality.all.pq > 0.9 and quality.fp.sum() == quality.fn.sum() == 0
    assert (result.labels == truth // DIVISOR).mean() > 0.95
    assert [s.class_id for s in result.segments].count(BALL) == 2
    assert all(s.score > 0.8 for s in result.segments if s.class_id == BALL)


@pytest.mark.parametrize("size", [(40, 120), (120, 40), (61, 65)])
def test_padding_beside_a_picture_is_no_part_of_its_answer(size):
    model = PaintedSlots()
    model.info = dataclasses.replace(INFO, resize="fit")
    image, truth = scene(*size)
    result = segment(model, image)
    quality = _quality(truth, result.panoptic_label)
    assert quality.all.pq > 0.8 and quality.fp.sum() == quality.fn.sum() == 0


def test_classes_have_probabilities_that_add_up(model):
    image, truth = scene(65, 65)
    found = load_runner(model).probabilities(image)
    assert found.shape == (65, 65, 3)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    assert (found.argmax(-1) == truth // DIVISOR).mean() > 0.95


def test_limits_of_areas_are_in_pixels_of_the_models_input():
    model = PaintedSlots()
    image, truth = scene(260, 260)
    ball = (truth == BALL * DIVISOR + 3).sum() / 16  # at 65x65
    for limit, found in ((ball * 0.7, 2), (ball * 1.3, 1)):
        merge = {**INFO.merge, "thing_area_limit": round(limit)}
        model.info = dataclasses.replace(INFO, merge=merge)
        segments = segment(model, image).segments
        assert [s.class_id for s in segments].count(BALL) == found


def test_answers_of_other_scales_and_of_the_mirror_are_not_averaged(model):
    for options in ({"flip": True}, {"scales": (0.5, 1.0)}):
        with pytest.raises(InputError, match="slot means something else"):
            load_runner(model, **options)


def test_a_page_shows_the_strongest_masks_and_each_step_of_the_clustering(model):
    image, _ = scene(97, 129)
    page = explain(load_runner(model), image, slots=3)
    # The picture, its segments, three masks and one step: two rows of four.
    assert page.dtype == np.uint8 and page.shape[1] > 4 * 300 and page.shape[0] > 2 * 220


def test_what_has_no_masks_explains_nothing(tiny_preset):
    with pytest.raises(InputError, match="MaX-DeepLab and kMaX-DeepLab"):
        explain(load_runner(tiny_preset), scene(33, 33)[0])
