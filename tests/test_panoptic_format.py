"""Panoptic PNG and JSON: what is written is read, and what doesn't fit together is told apart."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import (
    CITYSCAPES_IDS,
    Coding,
    PanopticWriter,
    Segment,
    boxes_of,
    decode_ids,
    encode_ids,
    from_instance_ids,
    measured,
    read_annotations,
    read_ids,
    recode,
    to_panoptic,
    values_of,
)

# Classes 0 and 1 are stuff, 2 and 3 things; their ids in files have gaps.
CODING = Coding((7, 20, 3, 90), (2, 3), 100, 255)
VOID = CODING.void
SIDES = st.integers(1, 9)
NAMES = ("sky", "grass", "person", "dog")


def maps(*, largest: int):
    """[H, W] int32 of 0..largest."""
    return st.builds(
        lambda height, width, seed: (
            np.random.default_rng(seed).integers(0, largest + 1, (height, width)).astype(np.int32)
        ),
        SIDES,
        SIDES,
        st.integers(0, 10**6),
    )


def panoptic_maps():
    """Of CODING, with crowds, void, and instances that are numbered from 1 without gaps."""
    kinds = np.array([0, 100, VOID, 200, 300, *range(201, 204), *range(301, 303)], np.int32)

    def renumbered(places):
        label = kinds[places]
        for thing in (200, 300):
            there = [v for v in np.unique(label).tolist() if thing < v < thing + 100]
            for number, value in enumerate(there, 1):
                label[label == value] = thing + number
        return label

    return maps(largest=len(kinds) - 1).map(renumbered)


@given(maps(largest=2**24 - 1))
def test_ids_become_colours_and_come_back(ids):
    pixels = encode_ids(ids)
    assert pixels.dtype == np.uint8 and pixels.shape == (*ids.shape, 3)
    np.testing.assert_array_equal(decode_ids(pixels), ids)
    assert int(ids[0, 0]) == sum(int(c) * 256**i for i, c in enumerate(pixels[0, 0]))


@pytest.mark.parametrize("wrong", [-1, 2**24])
def test_an_id_that_no_colour_can_hold_is_refused(wrong):
    with pytest.raises(ValueError, match="segment ids lie in 0..16777215"):
        encode_ids(np.array([[wrong]]))


@given(maps(largest=4), st.sampled_from([1, 1000, 2**28]))
def test_values_areas_and_boxes_are_those_of_a_plain_search(places, factor):
    labels = places * np.int32(factor)
    values, areas = values_of(labels)
    assert dict(zip(values, areas, strict=True)) == {
        value: (labels == value).sum() for value in np.unique(labels)
    }
    for value, (left, top, width, height) in zip(values, boxes_of(labels, values), strict=True):
        y, x = np.nonzero(labels == value)
        assert (left, top) == (x.min(), y.min())
        assert (width, height) == (x.max() - x.min() + 1, y.max() - y.min() + 1)
    np.testing.assert_array_equal(recode(labels, values, values + 3), labels + 3)


def test_values_below_zero_are_counted_too():
    labels = np.array([[-5, 2], [2, -5]])
    values, areas = values_of(labels)
    assert (values.tolist(), areas.tolist()) == ([-5, 2], [2, 2])
    assert recode(labels, values, np.array([1, 9])).tolist() == [[1, 9], [9, 1]]


@settings(max_examples=30, deadline=None)
@given(st.lists(panoptic_maps(), min_size=1, max_size=3))
def test_what_is_written_is_read(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("written") / "panoptic"
    with PanopticWriter(folder, CODING, names=NAMES) as writer:
        for number, label in enumerate(labels):
            writer.add(f"p{number}", label, image_id=number, image=f"p{number}.png")
    found = read_annotations(folder.parent / "panoptic.json")
    assert [(c.id, c.name, c.is_thing) for c in found.categories] == [
        *((7, "sky", False), (20, "grass", False), (3, "person", True), (90, "dog", True))
    ]
    assert [e.image_id for e in found.entries] == [*range(len(labels))]
    for number, (label, entry) in enumerate(zip(labels, found.entries, strict=True)):
        assert (entry.image, entry.size) == (f"p{number}.png", label.shape)
        ids = read_ids(folder / entry.file_name)
        panoptic, *differences = to_panoptic(ids, entry.segments, CODING)
        assert differences == [(), (), (), ()]
        np.testing.assert_array_equal(panoptic, label)
        assert panoptic.dtype == np.int32
        there = measured(ids)
        assert {s.id: (s.area, s.box) for s in entry.segments} == there


def test_crowds_are_marked_and_void_is_no_segment(tmp_path):
    label = np.array([[200, 201, VOID]], np.int32)
    with PanopticWriter(tmp_path / "out", CODING) as writer:
        writer.add("a", label, scores={201: 0.75})
    value = json.loads((tmp_path / "out.json").read_text())
    crowd, person = value["annotations"][0]["segments_info"]
    assert crowd["iscrowd"] == 1 and crowd["category_id"] == 3 and "score" not in crowd
    assert person["iscrowd"] == 0 and person["score"] == 0.75
    assert value["categories"] == []
    assert np.asarray(Image.open(tmp_path / "out" / "a.png"))[0, 2].tolist() == [0, 0, 0]


def test_thousands_of_segments_get_colours_of_their_own_near_their_class(tmp_path):
    coding = Coding((1, 2), (0, 1), 10_000, 255)
    label = np.arange(1, 3001, dtype=np.int32).reshape(50, 60)
    label[25:] += 10_000 - 1500
    with PanopticWriter(tmp_path / "out", coding, colors=[(0, 0, 0), (9, 9, 9)]) as writer:
        writer.add("a", label)
    ids = read_ids(tmp_path / "out" / "a.png")
    assert len(np.unique(ids)) == 3000 and ids.min() > 0
    assert np.asarray(Image.open(tmp_path / "out" / "a.png"))[0, :40].max() < 64


def test_a_writer_that_fails_leaves_no_list_of_files(tmp_path):
    with (
        pytest.raises(RuntimeError),
        PanopticWriter(tmp_path / "out", CODING) as writer,
    ):
        writer.add("a", np.zeros((2, 2), np.int32))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with PanopticWriter(tmp_path / "run.2", CODING):
        pass
    assert read_annotations(tmp_path / "run.2.json").entries == ()


def test_a_writer_refuses_what_would_be_read_wrongly(tmp_path):
    writer = PanopticWriter(tmp_path / "out", CODING)
    with pytest.raises(ValueError, match="with"):
        writer.add("a", np.zeros((2, 2), np.int32))
    with writer:
        with pytest.raises(ValueError, match=r"of no class: \[401\]"):
            writer.add("a", np.full((2, 2), 401))
        with pytest.raises(ValueError, match="no folder"):
            writer.add("../a", np.zeros((2, 2), np.int32))
    assert read_annotations(tmp_path / "out.json").entries == ()


IDS = np.array([[0, 5, 5], [6, 7, 8]], np.int32)


def test_instances_are_numbered_within_their_class_in_the_order_of_the_list():
    segments = [Segment(7, 3), Segment(5, 90), Segment(8, 3), Segment(6, 20)]
    found = to_panoptic(IDS, segments, CODING)
    assert found.panoptic.tolist() == [[VOID, 301, 301], [100, 201, 202]]


def test_segments_that_do_not_fit_are_told_apart():
    segments = [Segment(5, 7), Segment(6, 7), Segment(7, 1234), Segment(9, 3)]
    found = to_panoptic(IDS, segments, CODING)
    assert found.panoptic.tolist() == [[VOID, 0, 0], [0, VOID, VOID]]
    assert found.unknown == (7, 8) and found.missing == (9,) and found.split == (0,)


def test_more_instances_than_the_divisor_allows_are_said_and_ignored():
    ids = np.arange(1, 101).reshape(10, 10)
    found = to_panoptic(ids, [Segment(i, 3) for i in range(1, 101)], CODING)
    assert found.crowded == (2,) and found.panoptic[-1, -1] == VOID
    assert found.panoptic.max() == VOID and np.sort(found.panoptic.ravel())[-2] == 299


def test_a_class_to_ignore_has_no_category():
    coding = Coding((0, 5), (1,), 256, 0)
    found = to_panoptic(IDS, [Segment(5, 5), Segment(6, 0)], coding)
    assert found.panoptic.tolist() == [[0, 257, 257], [0, 0, 0]]
    assert 6 in found.unknown


def test_cityscapes_ids_become_training_classes_with_instances_from_one():
    ids = np.array([[7, 26, 26000, 26003], [4, 29001, 33999 - 1, 11]], np.uint16)
    found = from_instance_ids(ids)
    assert found.tolist() == [[0, 13000, 13001, 13004], [255000, 255000, 18999, 2000]]
    assert found.dtype == np.int32 and len(CITYSCAPES_IDS) == 19


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.pop("annotations"), "needs a list `annotations`"),
        (lambda v: v["annotations"][0].pop("file_name"), "entry 0: no 'file_name'"),
        (lambda v: v["annotations"][0].pop("segments_info"), "entry 0: no 'segments_info'"),
        (lambda v: v["annotations"][0]["segments_info"][0].pop("id"), "entry 0: no 'id'"),
        (lambda v: v["annotations"][0]["segments_info"][0].update(id="x"), "entry 0: invalid"),
        (
            lambda v: v["annotations"][0]["segments_info"].append({"id": 1, "category_id": 1}),
            "twice",
        ),
        (lambda v: v["annotations"].append(3), "annotations, entry 1"),
        (lambda v: v["categories"].append({"id": 1}), "categories: no 'name'"),
        (lambda v: v["categories"].append({"id": 1, "name": "b"}), "an id is there twice"),
        (lambda v: v["images"].append([]), "images: "),
    ],
)
def test_a_file_that_is_no_panoptic_json_says_what_it_lacks(tmp_path, change, reason):
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}
        ],
        "categories": [{"id": 1, "name": "a", "isthing": 1}],
    }
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(value))
    assert len(read_annotations(path).entries) == 1
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(InputError) as error:
        read_annotations(path)
    assert reason in str(error.value) and str(path) in str(error.value)


def test_a_grey_png_is_no_panoptic_one(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="this one is L"):
        read_ids(tmp_path / "a.png")
