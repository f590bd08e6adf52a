"""The same pictures and labels come from records, from their folder, and from named sources."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.datasets import load, reading
from deeplab_tf.datasets.synthetic import CLASSES, Shapes, draw
from deeplab_tf.errors import InputError


def by_name(what, split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        example["name"].decode(): (example["image"], example["semantic_label"])
        for example in load(what, split).as_numpy_iterator()
    }


def test_a_folder_and_its_records_give_the_same(shapes_folder, shapes_records):
    one, other = by_name(shapes_folder, "train"), by_name(shapes_records, "train")
    assert len(one) == 11 and one.keys() == other.keys()
    for name, (image, label) in one.items():
        np.testing.assert_array_equal(image, other[name][0])
        np.testing.assert_array_equal(label, other[name][1])
    specs = load(shapes_folder, "val").element_spec, load(shapes_records, "val").element_spec
    assert specs[0] == specs[1]
    assert specs[0]["semantic_label"].dtype == tf.int32


def test_drawn_shapes_are_loaded_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    example = next(load("synthetic", "train").as_numpy_iterator())
    image, label = Shapes().pair("train", 0)
    np.testing.assert_array_equal(example["image"], image)
    np.testing.assert_array_equal(example["semantic_label"], label)


def test_an_unknown_split_is_answered_with_those_there_are(shapes_folder, shapes_records):
    with pytest.raises(InputError, match="has no split 'test'; it has train, val"):
        load(shapes_folder, "test")
    with pytest.raises(InputError, match="no records of the split 'test'. It has: train, val"):
        load(shapes_records, "test")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load("nowhere", "train")


def test_a_broken_file_of_a_folder_is_named(folder):
    folder.mask("p1").write_bytes(b"no mask")
    with pytest.raises(InputError, match="p1.png isn't a picture"), reading(folder.root, "train"):
        list(load(folder.root, "train"))


def test_shapes_are_the_same_for_the_same_seed_and_hold_all_classes():
    np.testing.assert_array_equal(draw(5)[0], draw(5)[0])
    assert (draw(5)[0] != draw(6)[0]).any()
    seen = np.unique([draw(seed)[1] for seed in range(12)])
    assert seen.tolist() == [*range(len(CLASSES.names))]


def test_the_label_of_a_shape_is_exact():
    """Without noise each class has a colour of its own, right up to its edge."""
    for seed in range(8):
        image, label = draw(seed, (64, 48))
        assert image.shape == (64, 48, 3) and label.shape == (64, 48)
        means = {value: image[label == value].mean(0) for value in np.unique(label)}
        ground = means.pop(0)
        assert means
        for mean in means.values():
            assert abs(mean - ground).max() > 25


def test_splits_share_no_picture():
    shapes = Shapes({"train": 30, "val": 30}, (16, 16))
    found = [shapes.pair(split, i)[0].tobytes() for split in shapes.counts for i in range(30)]
    assert len({*found}) == 60
