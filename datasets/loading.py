"""Pictures with labels, one after the other, from records, a folder or a named source."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.datasets.audit_records import classes_of, look_at_record
from deeplab_tf.datasets.descriptors import FILE_NAME, DatasetDescriptor
from deeplab_tf.datasets.named import is_named, open_source
from deeplab_tf.datasets.parallel import WORKERS, map_ahead
from deeplab_tf.datasets.source import Item, Source
from deeplab_tf.datasets.targets import TOO_MANY_THINGS
from deeplab_tf.datasets.tfrecord import decode_example, find_shards, list_shards, read_records
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import read_image

# What TensorFlow raises for a file that is damaged, gone, or holds what can't be decoded.
_READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


def is_records(what: str | os.PathLike) -> bool:
    """Whether this is a folder of records rather than of pictures, or a name."""
    return not is_named(what) and ((Path(what) / FILE_NAME).exists() or bool(list_shards(what)))


def load(path_or_name: str | os.PathLike, split: str) -> tf.data.Dataset:
    """One ordered pass over a split, each picture at its own size.

    Args:
        path_or_name: a folder of records; or of pictures and masks, "synthetic" or "tfds:NAME",
            which are read as they are: handy to look at, slower to train on.
        split: "train", "val", …

    Yields:
        {"image": uint8 [H, W, 3], "semantic_label": int32 [H, W], "name": string}; where instances
        are told apart, with "panoptic_label": int32 [H, W].

    Raises:
        InputError: no such split, or it is incomplete.
    """
    if is_records(path_or_name):
        shards = [str(path) for path in find_shards(path_or_name, split)]
        divisor = _label_divisor(Path(path_or_name))
        return tf.data.TFRecordDataset(shards).map(
            lambda record: decode_example(record, divisor),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    source = open_source(path_or_name)
    check_split(path_or_name, split, source.counts)
    signature = {
        keys.IMAGE: tf.TensorSpec([None, None, 3], tf.uint8),
        keys.SEMANTIC_LABEL: tf.TensorSpec([None, None], tf.int32),
        keys.NAME: tf.TensorSpec([], tf.string),
    }
    if source.classes.label_divisor is not None:
        signature[keys.PANOPTIC_LABEL] = tf.TensorSpec([None, None], tf.int32)
    return tf.data.Dataset.from_generator(
        lambda: read_source(source, split), output_signature=signature
    )


def _label_divisor(folder: Path) -> int | None:
    """That of a folder's records; they may be read before anything describes them."""
    described = (folder / FILE_NAME).exists()
    return DatasetDescriptor.load(folder).label_divisor if described else None


def check_split(what: str | os.PathLike, split: str, splits: dict) -> None:
    """Raises InputError if there is no such split."""
    if split not in splits:
        raise InputError(f"{what} has no split {split!r}; it has {', '.join(splits) or 'none'}.")


def read_source(source: Source, split: str) -> Iterator[dict]:
    """The examples of a split, decoded a few ahead."""
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from map_ahead(pool, read_item, source.items(split, 0, 1))


def read_item(item: Item) -> dict:
    """A picture and its label as an example."""
    return {
        keys.IMAGE: read_image(item.picture),
        **item.read_maps(),
        keys.NAME: item.name.encode(),
    }


@contextlib.contextmanager
def reading(path_or_name: str | os.PathLike, split: str) -> Iterator[None]:
    """Turns what TensorFlow raises within the block on a bad record into an `InputError`.

    TensorFlow's error names neither file nor record, so the split is read again to find it. An
    error that has nothing to do with it passes as it is.

    Raises:
        InputError: a record is damaged; it names the shard, what is wrong and the fix.
    """
    try:
        yield
    except _READ_ERRORS as error:
        if TOO_MANY_THINGS in str(error):
            limit = str(error).partition(TOO_MANY_THINGS)[2].partition(")")[0]
            raise InputError(
                f"{path_or_name}: {TOO_MANY_THINGS}{limit}) in {split!r}; set a larger "
                "masks.max_thing_id."
            ) from error
        found = find_bad_record(path_or_name, split)
        if found is None:
            raise
        raise found from error


def find_bad_record(path_or_name: str | os.PathLike, split: str) -> InputError | None:
    """What is wrong with the first record of a split that can't be used, if one can't."""
    try:
        if not is_records(path_or_name):
            for _ in read_source(open_source(path_or_name), split):
                pass
            return None
        folder = Path(path_or_name)
        described = (folder / FILE_NAME).exists()
        classes = classes_of(DatasetDescriptor.load(folder)) if described else None
        for shard in find_shards(folder, split):
            for number, record in enumerate(read_records(shard)):
                for _, message in look_at_record(record, classes).problems:
                    return InputError(
                        f"{shard}, record {number}: {message}. `deeplab-tf data check {folder}` "
                        "lists all such records with the fix."
                    )
    except InputError as error:
        return error
    return None
