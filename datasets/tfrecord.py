"""The record schema: the official features, so that existing files work."""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

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


def encode_raw_map(label: np.ndarray) -> bytes:
    """A panoptic map [H, W] as the "raw" format has it: int32, little-endian, in C order."""
    return np.ascontiguousarray(label, "<i4").tobytes()


def decode_example(record: tf.Tensor, label_divisor: int | None = None) -> dict[str, tf.Tensor]:
    """A serialised record -> {"image": uint8 [H, W, 3], "semantic_label": int32 [H, W], "name"}.

    Runs eagerly and inside `tf.data`. Records without a label feature get an empty label.

    Args:
        record: a scalar string.
        label_divisor: labels are class * label_divisor + instance: adds "panoptic_label", int32
            [H, W], and divides. A label stored as PNG holds classes alone. None takes labels as
            they are.
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

    def png(dtype):
        return tf.cast(tf.io.decode_png(encoded, channels=1, dtype=dtype)[..., 0], tf.int32)

    def png_of_its_depth():
        # A PNG says its depth in this byte. Read as 16 bits, 8-bit values would come out times
        # 257, and later.
        deep = tf.strings.substr(encoded, 24, 1) == b"\x10"
        return tf.cond(deep, lambda: png(tf.uint16), lambda: png(tf.uint8))

    def nothing():
        return tf.zeros([0, 0], tf.int32)

    label = tf.cond(
        parsed[keys.RECORD_LABEL_FORMAT] == "raw",
        raw,
        lambda: tf.cond(encoded == "", nothing, png_of_its_depth),
    )
    label.set_shape([None, None])
    example = {
        keys.IMAGE: image,
        keys.SEMANTIC_LABEL: label,
        keys.NAME: parsed[keys.RECORD_FILENAME],
    }
    if label_divisor is not None:
        is_raw = parsed[keys.RECORD_LABEL_FORMAT] == "raw"
        panoptic = tf.where(is_raw, label, label * label_divisor)
        example[keys.PANOPTIC_LABEL] = panoptic
        example[keys.SEMANTIC_LABEL] = panoptic // label_divisor
    return example


def shard_path(folder: str | os.PathLike, split: str, index: int, count: int) -> Path:
    """`folder/split-00000-of-00010.tfrecord`."""
    return Path(folder) / f"{split}-{index:05d}-of-{count:05d}.tfrecord"


class Shard(NamedTuple):
    """A shard as its name tells it: one of `parts`."""

    part: int
    parts: int
    path: Path


def list_shards(folder: str | os.PathLike) -> dict[str, list[Shard]]:
    """Split -> the shards that are there, in order."""
    found: dict[str, list[Shard]] = {}
    for path in sorted(Path(folder).glob("*.tfrecord")):
        match = _SHARD.fullmatch(path.name)
        if match:
            shard = Shard(int(match["index"]), int(match["count"]), path)
            found.setdefault(match["split"], []).append(shard)
    return found


def missing_shards(shards: list[Shard]) -> str:
    """What is missing of a split's shards, in words; empty if they are whole."""
    parts = {shard.parts for shard in shards}
    if len(parts) == 1 and len(shards) == max(parts):
        return ""
    return f"{len(shards)} of {max(parts)} shards"


def find_shards(folder: str | os.PathLike, split: str) -> list[Path]:
    """The shards of a split, in order.

    Raises:
        InputError: there are none, or one of them is missing.
    """
    found = list_shards(folder)
    if split not in found:
        there = f" It has: {', '.join(sorted(found))}." if found else ""
        raise InputError(f"{folder}: no records of the split {split!r}.{there}")
    missing = missing_shards(found[split])
    if missing:
        raise InputError(
            f"{folder}: the split {split!r} is incomplete ({missing}). "
            "Run the same `deeplab-tf data build` again: it makes only what is missing."
        )
    return [shard.path for shard in found[split]]


def count_records(path: str | os.PathLike) -> int:
    """Reads a shard through, checksums included.

    Raises:
        InputError: it is cut short or corrupt.
    """
    return sum(1 for _ in read_records(path))


def read_records(path: str | os.PathLike) -> Iterator[bytes]:
    """Serialised records of one shard.

    Raises:
        InputError: it is cut short or corrupt, once its good records are read.
    """
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            yield record.numpy()
            count += 1
    except tf.errors.OpError as error:
        raise record_error(path, count, error) from None


def record_error(path: str | os.PathLike, good: int, error: Exception) -> InputError:
    """What to say of a shard that can't be read on."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    reason = reason.rpartition("}} ")[2].partition(" [Op:")[0]  # the place in TensorFlow's graph
    return InputError(
        f"{path}: damaged after {good} good records ({reason}). "
        "Delete it and run the same `deeplab-tf data build` again: it makes only what is missing."
    )


def write_records(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes serialised records to `path` as it is; callers give a temporary name.

    Raises:
        OSError: the disk is full, as Python itself would say it.
        InputError: no more can be written for another reason.
    """
    count = 0
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
                count += 1
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    except tf.errors.OpError as error:
        reason = error.message.rpartition("; ")[2]  # the path goes before
        raise InputError(
            f"{Path(path).parent}: no more can be written there ({reason}). "
            "Free some space or choose another folder, and run the command again."
        ) from None
    return count
