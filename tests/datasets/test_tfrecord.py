"""What goes into a record comes out of it; a file that is damaged is named."""

import errno

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deeplab_tf.datasets.tfrecord import (
    count_records,
    decode_example,
    encode_example,
    encode_label_map,
    find_shards,
    read_records,
    shard_path,
    write_records,
)
from deeplab_tf.errors import InputError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
NAMES = st.text(max_size=30).filter(lambda name: "\ud800" not in name)


def record(label: np.ndarray, *, raw=False, name="a.png", seed=0) -> tuple[bytes, np.ndarray]:
    image = np.random.default_rng(seed).integers(0, 256, (*label.shape, 3)).astype(np.uint8)
    encoded = encode_example(
        image=tf.io.encode_png(image).numpy(),
        image_format="png",
        label=label.tobytes() if raw else encode_label_map(label),
        height=label.shape[0],
        width=label.shape[1],
        name=name,
        label_format="raw" if raw else "png",
    )
    return encoded, image


@settings(deadline=None, max_examples=40)
@given(data=st.data(), size=SIZES, name=NAMES, kind=st.sampled_from("BHi"))
def test_decoding_gives_what_was_encoded(data, size, name, kind):
    label = data.draw(arrays.arrays(np.dtype(kind), size))
    encoded, image = record(label, raw=kind == "i", name=name)
    example = decode_example(encoded)
    np.testing.assert_array_equal(example["image"], image)
    np.testing.assert_array_equal(example["semantic_label"], label.astype(np.int32))
    assert example["name"].numpy().decode() == name
    assert example["semantic_label"].dtype == tf.int32 and example["image"].dtype == tf.uint8


def test_labels_of_all_kinds_are_decoded_in_one_stream():
    labels = [np.uint8([[0, 255]]), np.uint16([[300, 65535]]), np.int32([[-1, 10**6]])]
    records = [record(label, raw=label.dtype == np.int32)[0] for label in labels]
    stream = tf.data.Dataset.from_tensor_slices(records).map(decode_example)
    for label, example in zip(labels, stream, strict=True):
        np.testing.assert_array_equal(example["semantic_label"], label)


def test_features_are_the_official_ones():
    encoded, _ = record(np.zeros((3, 4), np.uint8), name="x.png")
    features = tf.train.Example.FromString(encoded).features.feature
    assert sorted(features) == [
        "image/channels",
        "image/encoded",
        "image/filename",
        "image/format",
        "image/height",
        "image/segmentation/class/encoded",
        "image/segmentation/class/format",
        "image/width",
    ]
    assert features["image/height"].int64_list.value == [3]
    assert features["image/segmentation/class/format"].bytes_list.value == [b"png"]


def test_a_record_without_a_label_has_an_empty_one():
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(
        tf.io.encode_png(np.zeros((3, 4, 3), np.uint8)).numpy()
    )
    decoded = decode_example(example.SerializeToString())
    assert decoded["image"].shape == (3, 4, 3) and decoded["semantic_label"].shape == (0, 0)


@pytest.fixture
def shard(tmp_path):
    path = shard_path(tmp_path, "train", 0, 1)
    assert path.name == "train-00000-of-00001.tfrecord"
    records = [record(np.full((5, 5), i, np.uint8), seed=i)[0] for i in range(6)]
    assert write_records(path, records) == 6 == count_records(path)
    assert list(read_records(path)) == records
    return path


def test_a_flipped_bit_is_found_and_the_shard_named(shard):
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError) as error:
        count_records(shard)
    assert f"{shard}: damaged after" in str(error.value) and "corrupted" in str(error.value)
    assert "run the same `deeplab-tf data build` again" in str(error.value)


def test_a_cut_shard_gives_its_good_records_first(shard):
    shard.write_bytes(shard.read_bytes()[:-7])
    records = read_records(shard)
    assert len([next(records) for _ in range(5)]) == 5
    with pytest.raises(InputError, match="damaged after 5 good records"):
        next(records)


def test_an_incomplete_split_is_refused(tmp_path):
    for index in (0, 2):
        write_records(shard_path(tmp_path, "train", index, 3), [])
    with pytest.raises(InputError, match=r"'train' is incomplete \(2 of 3 shards\)"):
        find_shards(tmp_path, "train")
    with pytest.raises(InputError, match="no records of the split 'val'. It has: train"):
        find_shards(tmp_path, "val")


def test_shards_come_in_order_and_other_files_are_left_out(tmp_path):
    for index in (1, 0):
        write_records(shard_path(tmp_path, "a-b", index, 2), [])
    (tmp_path / "notes.tfrecord").write_bytes(b"")
    assert find_shards(tmp_path, "a-b") == [shard_path(tmp_path, "a-b", i, 2) for i in (0, 1)]


class FullDisk:
    """A record writer on a disk that takes two records."""

    def __init__(self, error: Exception, at_close: bool = False):
        self.error, self.at_close, self.room = error, at_close, 2

    def __call__(self, path):
        self.file = open(path, "wb")  # what is half-written lies there
        return self

    def write(self, data):
        self.file.write(data)
        self.room -= 1
        if self.room < 0 and not self.at_close:
            raise self.error

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()
        if self.at_close:
            raise self.error


@pytest.mark.parametrize("at_close", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch, error, at_close):
    monkeypatch.setattr(tf.io, "TFRecordWriter", FullDisk(error, at_close))
    with pytest.raises(OSError) as raised:
        write_records(tmp_path / "x", [b"a"] * 5)
    assert raised.value.errno == errno.ENOSPC


def test_another_failure_to_write_names_the_folder(tmp_path, monkeypatch):
    error = tf.errors.OutOfRangeError(None, None, "x; File too large")
    monkeypatch.setattr(tf.io, "TFRecordWriter", FullDisk(error))
    with pytest.raises(InputError) as raised:
        write_records(tmp_path / "x", [b"a"] * 5)
    assert str(raised.value).startswith(
        f"{tmp_path}: no more can be written there (File too large)"
    )


def test_a_device_that_is_really_full_is_one_too(tmp_path):
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError) as raised:
        write_records("/dev/full", [bytes(10**6)] * 3)
    assert raised.value.errno == errno.ENOSPC
