"""The segments of a panoptic map, as a list."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deeplab_tf.postprocess.segments import FoundSegment, segments

OPTIONS = dict(label_divisor=10, thing_classes=(2, 3), void_label=9)


def test_each_segment_has_its_class_area_box_and_score():
    labels = np.array([[10, 10, 21, 21], [90, 10, 21, 20], [90, 32, 32, 32]])
    score = np.array([[0, 0, 0.4, 0.4], [0, 0, 0.4, 0], [0, 0.5, 0.7, 0.9]])
    found = segments(labels, score, **OPTIONS)
    assert [(s.id, s.class_id, s.instance, s.area, s.box) for s in found] == [
        (10, 1, None, 3, (0, 0, 2, 2)),
        (20, 2, 0, 1, (3, 1, 1, 1)),
        (21, 2, 1, 3, (2, 0, 2, 2)),
        (32, 3, 2, 3, (1, 2, 3, 1)),
    ]
    assert [s.score for s in found] == [None, 0, pytest.approx(0.4), pytest.approx(0.7)]


def test_without_scores_there_are_none():
    assert [s.score for s in segments(np.array([[21, 10]]), **OPTIONS)] == [None, None]


def test_json_takes_them():
    found = segments(np.array([[21, 21]], np.int32), np.full((1, 2), 0.5, np.float32), **OPTIONS)
    assert json.loads(json.dumps([s.to_dict() for s in found])) == [
        {"id": 21, "class": 2, "instance": 1, "area": 2, "box": [0, 0, 2, 1], "score": 0.5}
    ]


@pytest.mark.parametrize("labels", [np.zeros((0, 5), int), np.full((3, 2), 90)])
def test_a_map_of_nothing_has_no_segments(labels):
    assert segments(labels, np.zeros(labels.shape), **OPTIONS) == []


def test_scores_of_another_size_are_refused():
    with pytest.raises(ValueError, match="instance_score"):
        segments(np.zeros((2, 3), int), np.zeros((3, 2)), **OPTIONS)


@given(
    arrays.arrays(
        np.int32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=8),
        elements=st.integers(0, 99) | st.just(2**30),
    )
)
def test_they_cover_all_that_is_not_void(labels):
    found = segments(labels, **OPTIONS)
    assert sum(s.area for s in found) == (labels // 10 != 9).sum()
    assert len({s.id for s in found}) == len(found)
    for s in found:
        assert isinstance(s, FoundSegment) and s.area == (labels == s.id).sum()
        x, y, width, height = s.box
        inside = labels[y : y + height, x : x + width] == s.id
        assert inside.sum() == s.area and inside.any(1)[[0, -1]].all()
        assert inside.any(0)[[0, -1]].all()
