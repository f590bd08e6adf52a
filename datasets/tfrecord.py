"""The record schema: the official features, so that existing files work."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError

_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.tfrecord")


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def encode_example(
    *,
    image: bytes,
    image_format: str,
    label: bytes,
    height: int,
    width: int,
    name: str,
    label_format: str = "png",
) -> bytes:
    """One serialised record.

    Args:
        image: encoded RGB picture.
        image_format: "jpeg" or "png".
        label: the label map: a PNG of one 8- or 16-bit channel, or for "raw" int32 values in
            C order.
        height, width: of both.
        name: file name of the picture.
        label_format: "png" or "raw".
    """
    features = {
        keys.RECORD_IMAGE: _bytes(image),
        keys.RECORD_FILENAME: _bytes(name.encode()),
        keys.RECORD_FORMAT: _bytes(image_format.encode()),
        keys.RECORD_HEIGHT: _int(height),
        keys.RECORD_WIDTH: _int(width),
        keys.RECORD_CHANNELS: _int(3),
        keys.RECORD_LABEL: _bytes(label),
        keys.RECORD_LABEL_FORMAT: _bytes(label_format.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def encode_label_map(label: np.ndarray) -> bytes:
    """PNG bytes of a label map [H, W] of uint8 or uint16."""
    return tf.io.encode_png(label[..., None]).numpy()


def decode_example(record: tf.Tensor) -> dict[str, tf.Tensor]:
    """A serialised record -> {"image": uint8 [H, W, 3], "semantic_label": int32 [H, W], "name"}.

    Runs eagerly and inside `tf.data`. Records without a label feature get an empty label.
    """
    string, integer = (
        tf.io.FixedLenFeature([], tf.string, ""),
        tf.io.FixedLenFeature([], tf.int64, 0),
    )
    parsed = tf.io.parse_single_example(
        record,
        {
            keys.RECORD_IMAGE: tf.io.FixedLenFeature([], tf.string),
            keys.RECORD_FILENAME: string,
            keys.RECORD_HEIGHT: integer,
            keys.RECORD_WIDTH: integer,
            keys.RECORD_LABEL: string,
            keys.RECORD_LABEL_FORMAT: string,
        },
    )
    image = tf.io.decode_image(parsed[keys.RECORD_IMAGE], channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    encoded = parsed[keys.RECORD_LABEL]

    def raw():
        size = (parsed[keys.RECORD_HEIGHT], parsed[keys.RECORD_WIDTH])
        return tf.reshape(tf.io.decode_raw(encoded, tf.int32), size)

    def png():
        # 16 bits hold both kinds of label map; 8-bit values come out times 257.
        values = tf.cast(tf.io.decode_png(encoded, channels=1, dtype=tf.uint8)[..., 0], tf.int32)
        return values

    label = tf.cond(parsed[keys.RECORD_LABEL_FORMAT] == "raw", raw, png)
    label.set_shape([None, None])
    return {
        keys.IMAGE: image,
        keys.SEMANTIC_LABEL: label,
        keys.NAME: parsed[keys.RECORD_FILENAME],
    }


def shard_path(folder: str | os.PathLike, split: str, index: int, count: int) -> Path:
    """`folder/split-00000-of-00010.tfrecord`."""
    return Path(folder) / f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def find_shards(folder: str | os.PathLike, split: str) -> list[Path]:
    """The shards of a split, in order.

    Raises:
        InputError: there are none, or one of them is missing.
    """
    folder = Path(folder)
    found: dict[int, Path] = {}
    counts, splits = set(), set()
    for path in sorted(folder.glob("*.tfrecord")):
        match = _SHARD.fullmatch(path.name)
        if match:
            splits.add(match["split"])
            if match["split"] == split:
                found[int(match["index"])] = path
                counts.add(int(match["count"]))
    if not found:
        there = f" It has: {', '.join(sorted(splits))}." if splits else ""
        raise InputError(f"{folder}: no records of the split {split!r}.{there}")
    if len(counts) != 1 or len(found) != max(counts):
        raise InputError(
            f"{folder}: the split {split!r} is incomplete ({len(found)} of {max(counts)} shards). "
            "Run the same `deeplab-tf data build` again: it makes only what is missing."
        )
    return [found[index] for index in sorted(found)]


def count_records(path: str | os.PathLike) -> int:
    """Reads a shard through, checksums included.

    Raises:
        InputError: it is cut short or corrupt.
    """
    count = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)):
            count += 1
    except tf.errors.OpError as error:
        raise record_error(path, count, error) from None
    return count


def record_error(path: str | os.PathLike, good: int, error: Exception) -> InputError:
    """What to say of a shard that can't be read on."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"{path}: damaged after {good} good records ({reason}). "
        "Delete it and run the same `deeplab-tf data build` again: it makes only what is missing."
    )


def write_records(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes serialised records to `path` as it is; callers give a temporary name."""
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
            count += 1
    return count
