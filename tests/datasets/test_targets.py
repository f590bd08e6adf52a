"""Targets of the panoptic heads, from labels."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deeplab_tf.datasets.targets import (
    crowd_mask,
    mask_targets,
    panoptic_targets,
    thing_id_targets,
)

THINGS, DIVISOR, IGNORE = (2, 3, 5), 10, 9
OPTIONS = dict(label_divisor=DIVISOR, thing_classes=THINGS, ignore_label=IGNORE)
OUTPUTS = ("semantic_logits", "center_heatmap", "offset_map")


def _targets(label, **changes):
    made = panoptic_targets(np.asarray(label, np.int32), **{**OPTIONS, **changes})
    return tuple({name: value.numpy() for name, value in part.items()} for part in made)


def _plain(label, sigma=8.0, small_instance_area=4096, small_instance_weight=3.0):
    """The same, one instance after the other."""
    height, width = label.shape
    y, x = np.indices(label.shape)
    semantic = label // DIVISOR
    heatmap, offsets = np.zeros(label.shape, np.float32), np.zeros((*label.shape, 2), np.float32)
    weight, inside = np.ones(label.shape, np.float32), np.zeros(label.shape, np.float32)
    for value in np.unique(label):
        if value // DIVISOR not in THINGS or value % DIVISOR == 0:
            continue
        mask = label == value
        center = [round(float(axis[mask].mean())) for axis in (y, x)]  # halves to even
        dy, dx = center[0] - y, center[1] - x
        gaussian = np.exp(-(dy**2.0 + dx**2.0) / (2 * sigma**2))
        gaussian[np.maximum(abs(dy), abs(dx)) > int(3 * sigma + 1)] = 0
        heatmap = np.maximum(heatmap, gaussian.astype(np.float32))
        offsets[mask] = np.stack([dy, dx], -1)[mask]
        inside[mask] = 1
        if mask.sum() < small_instance_area:
            weight[mask] = small_instance_weight
    crowd = np.isin(semantic, THINGS) & (label % DIVISOR == 0)
    counted = (~crowd & (semantic != IGNORE)).astype(np.float32)
    values = (semantic, heatmap[..., None], offsets), (weight, counted, inside)
    return tuple(dict(zip(OUTPUTS, part, strict=True)) for part in values)


def _assert_equal(ours, plain):
    for part, expected in zip(ours, plain, strict=True):
        assert set(part) == set(OUTPUTS)
        for name, value in part.items():
            assert value.dtype == (np.int32 if expected[name].dtype.kind == "i" else np.float32)
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        np.int32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.integers(0, 10 * DIVISOR - 1),
    ),
    st.sampled_from([1.0, 8.0]),
    st.sampled_from([0, 2, 4096]),
)
def test_they_are_those_made_one_instance_after_the_other(label, sigma, area):
    made = _targets(label, sigma=sigma, small_instance_area=area)
    _assert_equal(made, _plain(label, sigma, area))


def test_a_centre_between_two_pixels_goes_to_the_even_one():
    label = np.zeros((8, 8), int)
    label[2:4, 3:5] = 21  # mean (2.5, 3.5)
    targets, _ = _targets(label)
    assert targets["offset_map"][2, 3].tolist() == [0, 1]
    assert np.argwhere(targets["center_heatmap"][..., 0] == 1).tolist() == [[2, 4]]


def test_the_gaussian_ends_after_three_sigma_and_one_pixel():
    label = np.zeros((40, 40), int)
    label[20, 20] = 21
    heatmap = _targets(label, sigma=2.0)[0]["center_heatmap"][..., 0]
    assert np.count_nonzero(heatmap) == 15 * 15
    assert heatmap[13, 13] == pytest.approx(np.exp(-98 / 8)) and heatmap[12, 20] == 0


def test_where_gaussians_overlap_the_larger_stands():
    label = np.zeros((1, 9), int)
    label[0, 2], label[0, 6] = 21, 22
    heatmap = _targets(label, sigma=2.0)[0]["center_heatmap"][0, :, 0]
    assert heatmap.max() == 1 and heatmap[4] == pytest.approx(np.exp(-0.5))


def test_a_crowd_keeps_its_class_and_teaches_no_centre():
    label = np.array([[20, 20, 21, 0]])
    targets, weights = _targets(label)
    assert targets["semantic_logits"].tolist() == [[2, 2, 2, 0]]
    assert weights["center_heatmap"].tolist() == [[0, 0, 1, 1]]
    assert weights["offset_map"].tolist() == [[0, 0, 1, 0]]
    assert crowd_mask(label, label_divisor=10, thing_classes=THINGS).numpy().tolist() == [
        [True, True, False, False]
    ]


def test_stuff_with_an_instance_number_is_stuff():
    targets, weights = _targets([[13, 13, 0]])
    assert not targets["center_heatmap"].any() and not weights["offset_map"].any()
    assert (weights["semantic_logits"] == 1).all()


@pytest.mark.parametrize("label", [np.zeros((5, 7), int), np.full((5, 7), 90), np.zeros((0, 3))])
def test_a_picture_without_instances_has_finite_targets(label):
    targets, weights = _targets(label)
    assert not targets["center_heatmap"].any() and not targets["offset_map"].any()
    assert targets["offset_map"].shape == (*label.shape, 2)
    assert (weights["center_heatmap"] == (label != 90)).all()


def test_no_thing_classes_make_no_instances():
    targets, weights = _targets([[21, 35]], thing_classes=())
    assert not targets["center_heatmap"].any() and not weights["offset_map"].any()


def test_labels_below_zero_and_beyond_the_classes_are_no_instances():
    targets, weights = _targets([[-7, 10**6 + 1, 21]])
    assert weights["offset_map"].tolist() == [[0, 0, 1]]


def test_a_large_instance_has_its_exact_centre():
    # The sum of 3.2 million float32 coordinates would be off by more than a pixel.
    label = np.full((800, 4001), 21, np.int32)
    targets, _ = _targets(label)
    assert targets["offset_map"][0, 0].tolist() == [400, 2000]


def test_thousands_of_instances_are_each_drawn():
    y, x = np.indices((90, 90))
    label = 2 * 4096 + 1 + (y // 2) * 45 + x // 2
    targets, weights = _targets(label, label_divisor=4096, sigma=1.0)
    assert len(np.unique(label)) == 2025
    assert (targets["center_heatmap"] == 1).sum() == 2025
    assert np.abs(targets["offset_map"]).max() <= 1 and weights["offset_map"].all()


def test_they_are_made_in_a_pipeline_of_unknown_sizes():
    labels = [np.full((5, 7), 21, np.int32), np.full((9, 4), 20, np.int32)]
    spec = tf.TensorSpec((None, None), tf.int32)
    dataset = tf.data.Dataset.from_generator(lambda: labels, output_signature=spec)
    dataset = dataset.map(lambda label: panoptic_targets(label, **OPTIONS))
    assert dataset.element_spec[0]["offset_map"].shape.as_list() == [None, None, 2]
    for label, (targets, weights) in zip(labels, dataset, strict=True):
        made = tuple({k: v.numpy() for k, v in part.items()} for part in (targets, weights))
        _assert_equal(made, _plain(label))


def test_instances_of_the_mask_transformers_are_numbered_by_first_appearance():
    label = np.array([[0, 35, 35, 21], [20, 21, 35, 99]])
    mask, classes = thing_id_targets(label, label_divisor=10, thing_classes=THINGS, max_thing_id=3)
    assert mask.numpy().tolist() == [[-1, 0, 0, 1], [-1, 1, 0, -1]]
    assert classes.numpy().tolist() == [3, 2, -1]


def test_more_instances_than_there_are_numbers_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="more instances"):
        thing_id_targets([[21, 22, 23]], label_divisor=10, thing_classes=THINGS, max_thing_id=2)


def test_a_mask_transformer_gets_classes_numbered_instances_and_the_same_weights():
    label = np.array([[0, 35, 35, 21], [20, 21, 35, 99]], np.int32)
    labels = dict(label_divisor=DIVISOR, thing_classes=THINGS)
    made = mask_targets(label, **labels, max_thing_id=4, small_instance_area=3)
    things, classes = thing_id_targets(label, **labels, max_thing_id=4)
    _, weights = _targets(label, small_instance_area=3)
    assert made["semantic_label"].numpy().tolist() == [[0, 3, 3, 2], [2, 2, 3, 9]]
    np.testing.assert_array_equal(made["thing_id_mask"], things)
    np.testing.assert_array_equal(made["thing_id_class"], classes)
    np.testing.assert_array_equal(made["semantic_weight"], weights["semantic_logits"])
    assert made["semantic_weight"].numpy().tolist() == [[1, 1, 1, 3], [1, 3, 1, 1]]
    plain = mask_targets(label, **labels)
    assert plain["semantic_weight"].numpy().min() == plain["semantic_weight"].numpy().max() == 1
    assert plain["thing_id_class"].shape == (128,)
