"""A check of records finds damaged shards, records and labels, ours or of other code."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.datasets import DatasetDescriptor, check, load
from deeplab_tf.datasets.audit_records import describe_records
from deeplab_tf.datasets.tfrecord import (
    encode_example,
    encode_label_map,
    find_shards,
    read_records,
    shard_path,
    write_records,
)
from deeplab_tf.errors import InputError


@pytest.fixture
def records(shapes_records, tmp_path):
    """A copy to damage."""
    return shutil.copytree(shapes_records, tmp_path / "records")


def rewrite(shard, change) -> None:
    """Lets `change` have the features of each record, by its number."""
    changed = []
    for number, record in enumerate([*read_records(shard)]):
        example = tf.train.Example.FromString(record)
        change(number, example.features.feature)
        changed.append(example.SerializeToString())
    write_records(shard, changed)


def put(features, key: str, value: bytes) -> None:
    features[key].bytes_list.value[:] = [value]


LABEL = "image/segmentation/class/encoded"


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


def test_good_records_have_no_problems_and_the_counts_of_their_folder(
    shapes_records, shapes_folder
):
    report = check(shapes_records)
    assert report.problems == [] and report.form == "records"
    assert dict(report.splits) == {"train": 11, "val": 3}
    assert report.values == check(shapes_folder).values


def test_a_cut_shard_and_a_lost_one_are_named(records):
    shards = find_shards(records, "train")
    shards[0].write_bytes(shards[0].read_bytes()[:-5])
    shards[1].unlink()
    report = check(records)
    assert kinds(report) == ["shards"]
    places = report.problems[0].places
    assert places[0] == "train: 2 of 3 shards"
    assert f"{shards[0]}: damaged after 3 good records" in places[1]
    assert "data build` again" in report.problems[0].fix


def test_records_that_cannot_be_decoded_or_have_wrong_labels_are_named(records):
    def spoil(number, features):
        if number == 0:
            put(features, "image/encoded", b"no picture")
        if number == 1:
            put(features, LABEL, encode_label_map(np.full((24, 20), 77, np.uint8)))
        if number == 2:
            put(features, LABEL, encode_label_map(np.zeros((3, 20), np.uint8)))
        if number == 3:
            del features[LABEL]

    rewrite(find_shards(records, "train")[0], spoil)
    report = check(records)
    assert kinds(report) == ["sizes", "values", "record", "no label"]
    found = {problem.kind: problem.places[0] for problem in report.problems}
    assert "train_00003.png: 77" in found["values"]
    assert "label 20 x 3, picture 20 x 24" in found["sizes"]
    assert "train_00000.png: " in found["record"] and "{{" not in found["record"]
    assert found["no label"].endswith("train_00009.png")


def test_a_palette_label_is_told_apart_since_its_indices_would_be_lost(records):
    data = io.BytesIO()
    image = Image.fromarray(np.ones((24, 20), np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(data, "PNG")
    rewrite(
        find_shards(records, "train")[0],
        lambda number, features: put(features, LABEL, data.getvalue()),
    )
    report = check(records)
    assert "record" in kinds(report)
    record = next(problem for problem in report.problems if problem.kind == "record")
    assert "its label is a PNG of a palette" in record.places[0]


def test_counts_that_differ_from_the_description_are_found(records):
    value = json.loads((records / "dataset.json").read_text())
    value["splits"]["train"] = 12
    (records / "dataset.json").write_text(json.dumps(value))
    report = check(records)
    assert kinds(report) == ["description"]
    assert report.problems[0].places == ["dataset.json says 12 of train, not 11"]


def test_a_description_that_cannot_be_read_is_a_problem(records):
    (records / "dataset.json").write_text("{}")
    report = check(records)
    assert kinds(report) == ["description"] and dict(report.splits) == {"train": 11, "val": 3}
    assert "data describe" in report.problems[0].fix


@pytest.fixture
def foreign(tmp_path):
    """Records as other code writes them: official names and features, nothing beside them."""
    folder = tmp_path / "tfrecord"
    folder.mkdir()
    for split, count in (("train", 3), ("val", 1)):
        found = []
        for index in range(count):
            label = np.zeros((6, 8), np.uint8)
            label[0], label[1:3] = 255, 1 + index % 2
            image = tf.io.encode_jpeg(np.full((6, 8, 3), 90, np.uint8)).numpy()
            found.append(
                encode_example(
                    image=image,
                    image_format="jpeg",
                    label=encode_label_map(label),
                    height=6,
                    width=8,
                    name=f"{split}{index}",
                )
            )
        write_records(shard_path(folder, split, 0, 1), found)
    return folder


def test_records_of_other_code_get_a_description(foreign, tmp_path):
    (tmp_path / "classes.txt").write_text("ground\nplant\nstone\n")
    with pytest.raises(InputError, match="have no dataset.json.*data describe"):
        DatasetDescriptor.load(foreign)
    assert kinds(check(foreign)) == ["description"]
    descriptor = describe_records(foreign, tmp_path / "classes.txt")
    assert descriptor == DatasetDescriptor.load(foreign)
    assert descriptor.splits == {"train": 3, "val": 1} and descriptor.ignore_label == 255
    assert descriptor.pixel_share == (0.6, 0.266667, 0.133333)
    assert kinds(check(foreign)) == []
    assert len([*load(foreign, "train")]) == 3


def test_a_description_is_refused_where_labels_do_not_fit_it(foreign, tmp_path):
    (tmp_path / "classes.txt").write_text("ground\nplant\n")
    with pytest.raises(InputError) as error:
        describe_records(foreign, tmp_path / "classes.txt")
    assert "masks hold values that no class has" in str(error.value)
    assert "train-00000-of-00001.tfrecord: train1: 2" in str(error.value)
    assert not (foreign / "dataset.json").exists()
    with pytest.raises(InputError, match="no files called SPLIT-00000-of-00001"):
        describe_records(tmp_path, "voc")
