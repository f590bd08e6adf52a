"""Pictures and labels -> sharded records: checked, in parallel, resumable."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeplab_tf.datasets.descriptors import FILE_NAME, DatasetDescriptor
from deeplab_tf.datasets.encode import encode_item
from deeplab_tf.datasets.masks import VALUES, one_class_text
from deeplab_tf.datasets.named import is_named, open_source
from deeplab_tf.datasets.parallel import WORKERS, map_ahead
from deeplab_tf.datasets.progress import bar
from deeplab_tf.datasets.source import Item, Source, part_size
from deeplab_tf.datasets.tfrecord import count_records, shard_path, write_records
from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file, read_json, write_json

_STATE = ".build.json"
# Where a build goes that replaces finished records of other inputs, until it is finished too.
_NEXT = ".next"
_RECORDS_PER_SHARD = 512


class _ItemError(InputError):
    """Something is wrong with a picture or its label, and maybe with others."""


class _Shard(NamedTuple):
    split: str
    part: int
    parts: int
    records: int

    def path(self, folder: Path) -> Path:
        return shard_path(folder, self.split, self.part, self.parts)


def build_folder(
    root: str | os.PathLike,
    out: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
    records_per_shard: int = _RECORDS_PER_SHARD,
    quiet: bool = False,
) -> DatasetDescriptor:
    """Writes the records of a folder of pictures and masks.

    See `datasets.folder` for its layout, and `datasets.panoptic_folder` for those with instances.

    Args:
        root: the folder, or the name of a source: "synthetic", "tfds:oxford_iiit_pet".
        out: where the shards and dataset.json go.
        classes: a class file elsewhere, or the name of a known list; None takes the folder's own.
        annotations: a panoptic JSON file elsewhere.
        label_divisor: of panoptic labels; None takes one that fits.
        records_per_shard: pictures in each.
        quiet: no progress bar.

    Returns:
        The description written beside the shards.

    Raises:
        InputError: something is wrong with a file, or the disk is full; what is good stays.
    """
    source = open_source(
        root, classes=classes, annotations=annotations, label_divisor=label_divisor
    )
    try:
        return build(source, out, records_per_shard=records_per_shard, quiet=quiet)
    except _ItemError as error:
        if is_named(root):
            raise
        raise InputError(f"{error} To see all there is: deeplab-tf data check {root}") from None


def build(
    source: Source,
    out: str | os.PathLike,
    *,
    records_per_shard: int = _RECORDS_PER_SHARD,
    quiet: bool = False,
) -> DatasetDescriptor:
    """Writes the records of any source.

    Each shard is written under a temporary name and renamed. A build that was interrupted is
    completed by the same call: shards that are whole are read through and kept. Records of
    other inputs that are there already stay as they are until all new ones are written.

    Args:
        source: of pictures and labels.
        out: where the shards and dataset.json go.
        records_per_shard: pictures in each.
        quiet: no progress bar.

    Returns:
        The description written beside the shards.

    Raises:
        InputError: something is wrong with a file, or the disk is full; what is good stays.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the records.")
    shards = _shards(source.counts, records_per_shard)
    key = _key(source, records_per_shard)
    folder = _workplace(out, key)
    state = _State(folder, key)
    _sweep(folder)
    total = sum(shard.records for shard in shards)
    with bar("writing records", quiet) as advance, ThreadPoolExecutor(WORKERS) as pool:
        for shard in shards:
            if state.is_done(shard):
                advance(shard.records, total)
            else:
                items = source.items(shard.split, shard.part, shard.parts)
                counts = np.zeros(VALUES, np.int64)
                with atomic_file(shard.path(folder)) as temporary:
                    records = _encode(pool, items, source, counts)
                    write_records(temporary, _ticking(records, lambda: advance(1, total)))
                state.finish(shard, counts)
    descriptor = _describe(source, state.train_counts())
    if folder != out:
        _replace(out, folder)
    shutil.rmtree(out / _NEXT, ignore_errors=True)
    descriptor.save(out)
    return descriptor


def _encode(pool, items: Iterable[Item], source: Source, counts: np.ndarray) -> Iterator[bytes]:
    """Records in order; adds their label values up in `counts`."""
    try:
        for record, found in map_ahead(pool, lambda i: encode_item(i, source.classes), items):
            counts += found
            yield record
    except InputError as error:
        raise _ItemError(str(error)) from None


def _ticking(values: Iterable, tick) -> Iterator:
    for value in values:
        yield value
        tick()


def _shards(counts: dict[str, int], size: int) -> list[_Shard]:
    shards = []
    for split, count in counts.items():
        parts = max(1, -(-count // size))
        shards += [_Shard(split, i, parts, part_size(count, i, parts)) for i in range(parts)]
    return shards


def _key(source: Source, size: int) -> str:
    """Another one for every other set of inputs."""
    return hashlib.sha256(json.dumps([source.stamp(), size]).encode()).hexdigest()


def _state_key(folder: Path) -> str | None:
    """The key of the build whose shards lie in a folder, if any."""
    try:
        return read_json(folder / _STATE).get("inputs")
    except (InputError, AttributeError):
        return None


def _workplace(out: Path, key: str) -> Path:
    """Where to build: `out`, or beside finished records of other inputs."""
    if _state_key(out) != key and (out / FILE_NAME).exists():
        if _state_key(out / _NEXT) != key:
            shutil.rmtree(out / _NEXT, ignore_errors=True)
        return out / _NEXT
    return out


def _replace(out: Path, new: Path) -> None:
    """Puts finished records in the place of others."""
    # Without its description the folder is no data set, so a mixture is never taken for one.
    (out / FILE_NAME).unlink(missing_ok=True)
    for old in out.glob("*.tfrecord"):
        old.unlink()
    for path in new.iterdir():
        os.replace(path, out / path.name)
    new.rmdir()


def _sweep(folder: Path) -> None:
    """Removes the unfinished file of a build that was killed."""
    for path in folder.glob(".*.tfrecord.*"):
        path.unlink(missing_ok=True)


class _State:
    """Which shards of this very build are done, and the label values they hold."""

    def __init__(self, folder: Path, key: str):
        self._folder = folder
        self._value: dict = {"inputs": key, "shards": {}}
        if _state_key(folder) == key:
            self._value = read_json(folder / _STATE)

    def is_done(self, shard: _Shard) -> bool:
        """Whether the shard is there, of this build, and readable to its end."""
        path = shard.path(self._folder)
        if path.name not in self._value["shards"] or not path.exists():
            return False
        try:
            return count_records(path) == shard.records
        except InputError:
            return False

    def finish(self, shard: _Shard, counts: np.ndarray) -> None:
        self._value["shards"][shard.path(self._folder).name] = {
            "split": shard.split,
            "counts": {str(value): int(counts[value]) for value in np.flatnonzero(counts)},
        }
        write_json(self._folder / _STATE, self._value)

    def train_counts(self) -> dict[int, int]:
        """Pixels by label value in the training split."""
        total: dict[int, int] = {}
        for shard in self._value["shards"].values():
            if shard["split"] == "train":
                for value, count in shard["counts"].items():
                    total[int(value)] = total.get(int(value), 0) + count
        return total


def _describe(source: Source, counts: dict[int, int]) -> DatasetDescriptor:
    classes = source.classes
    wrong = one_class_text(counts, classes) if "train" in source.counts else None
    if wrong:
        raise InputError(f"{source.source}: {wrong[0]}. {wrong[1]}")
    return describe(source.name, classes, source.counts, counts, source.source)


def describe(name, classes, splits, train_counts, source) -> DatasetDescriptor:
    """The description of records whose training labels have these pixels by value."""
    counted = [
        0 if value == classes.ignored else train_counts.get(value, 0)
        for value in range(len(classes.names))
    ]
    total = max(1, sum(counted))
    return DatasetDescriptor(
        name=name,
        classes=classes.names,
        colors=classes.colors,
        ignore_label=classes.ignored,
        splits=dict(splits),
        pixel_share=tuple(round(count / total, 6) for count in counted),
        source=source,
        thing_classes=classes.things if classes.label_divisor else (),
        label_divisor=classes.label_divisor,
        category_ids=classes.category_ids,
    )
