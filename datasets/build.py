"""Folder -> sharded records: checked first, in parallel, resumable."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.folder import FolderSet, read_mask, scan_folder, value_counts
from deeplab_tf.datasets.tfrecord import (
    count_records,
    encode_example,
    encode_label_map,
    shard_path,
    write_records,
)
from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file, read_json, write_json
from deeplab_tf.pictures import open_image, read_image

_STATE = ".build.json"
_RECORDS_PER_SHARD = 512


def build_folder(
    root: str | os.PathLike,
    out: str | os.PathLike,
    *,
    records_per_shard: int = _RECORDS_PER_SHARD,
    quiet: bool = False,
) -> DatasetDescriptor:
    """Writes the records of a folder of pictures and masks; see `datasets.folder` for its layout.

    Each shard is written under a temporary name and renamed. A build that was interrupted is
    completed by the same call: shards that are whole are read through and kept.

    Args:
        root: the folder.
        out: where the shards and dataset.json go.
        records_per_shard: pictures in each.
        quiet: no progress bar.

    Returns:
        The description written beside the shards.

    Raises:
        InputError: something is wrong with a file, or the disk is full; what is good stays.
    """
    found = scan_folder(root)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the records.")
    jobs = _shards(found, out, records_per_shard)
    state = _State(out, found, records_per_shard)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=quiet) as progress:
        total = sum(len(ids) for _, _, ids in jobs)
        task = progress.add_task("writing records", total=total)
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            for path, split, ids in jobs:
                if not state.is_done(path, len(ids)):
                    counts = np.zeros(65536, np.int64)
                    with atomic_file(path) as temporary:
                        pairs = pool.map(lambda name: _encode(found, name), ids)
                        write_records(
                            temporary, _tally(pairs, counts, lambda: progress.advance(task))
                        )
                    state.finish(path, split, counts)
                else:
                    progress.advance(task, len(ids))
    descriptor = _describe(found, state.train_counts())
    descriptor.save(out)
    return descriptor


def _tally(pairs, counts, advance):
    """Passes records on while adding up their label values."""
    for record, record_counts in pairs:
        counts += record_counts
        advance()
        yield record


def _shards(found: FolderSet, out: Path, size: int) -> list[tuple[Path, str, tuple[str, ...]]]:
    """(path, split, ids) of every shard."""
    jobs = []
    for split, ids in found.splits.items():
        count = max(1, -(-len(ids) // size))
        for index in range(count):
            jobs.append((shard_path(out, split, index, count), split, ids[index::count]))
    return jobs


class _State:
    """Which shards of this very build are done, and the label values they hold."""

    def __init__(self, out: Path, found: FolderSet, size: int):
        stamps = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for ids in found.splits.values()
            for name in ids
            for path in (found.images[name], found.masks[name])
        ]
        text = json.dumps([found.classes.names, found.classes.colors, size, stamps])
        key = hashlib.sha256(text.encode()).hexdigest()
        self._path = out / _STATE
        self._value: dict = {"inputs": key, "shards": {}}
        if self._path.exists():
            old = read_json(self._path)
            if old.get("inputs") == key:
                self._value = old

    def is_done(self, path: Path, count: int) -> bool:
        """Whether the shard is there, of this build, and readable to its end."""
        if path.name not in self._value["shards"] or not path.exists():
            return False
        try:
            return count_records(path) == count
        except InputError:
            return False

    def finish(self, path: Path, split: str, counts: np.ndarray) -> None:
        values = np.flatnonzero(counts)
        self._value["shards"][path.name] = {
            "split": split,
            "counts": {str(value): int(counts[value]) for value in values},
        }
        write_json(self._path, self._value)

    def train_counts(self) -> dict[int, int]:
        """Pixels by label value in the training split."""
        total: dict[int, int] = {}
        for shard in self._value["shards"].values():
            if shard["split"] == "train":
                for value, count in shard["counts"].items():
                    total[int(value)] = total.get(int(value), 0) + count
        return total


def _encode(found: FolderSet, name: str) -> tuple[bytes, np.ndarray]:
    """The record of one picture, and its label values.

    Raises:
        InputError: the picture or mask is broken, sizes differ, or a value is no class's.
    """
    image_path, mask_path = found.images[name], found.masks[name]
    image = open_image(image_path)
    plain = image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1
    if plain and image.format in ("JPEG", "PNG"):
        encoded, image_format = image_path.read_bytes(), image.format.lower()
        height, width = image.height, image.width
    else:
        # Anything else is brought to upright 8-bit RGB once, here, and kept without loss.
        import tensorflow as tf

        pixels = read_image(image)
        encoded, image_format = tf.io.encode_png(pixels).numpy(), "png"
        height, width = pixels.shape[:2]
    label = read_mask(mask_path, found.classes, binary=found.binary)
    if label.shape != (height, width):
        raise InputError(
            f"{mask_path} is {label.shape[1]} x {label.shape[0]} but {image_path.name} is "
            f"{width} x {height}; make them the same size (masks: nearest neighbour)."
        )
    counts = value_counts(label)
    classes = found.classes
    allowed = np.zeros(65536, bool)
    allowed[: len(classes.names)] = True
    ignore = 255 if classes.ignore_label is None else classes.ignore_label
    if not found.binary:
        allowed[ignore] = True
    wrong = np.flatnonzero((counts > 0) & ~allowed)
    if wrong.size:
        raise InputError(
            f"{mask_path}: label values {[int(v) for v in wrong[:8]]} are outside 0.."
            f"{len(classes.names) - 1} ({', '.join(classes.names)}). "
            "Add them to classes.csv, or paint them with a class or with the value to ignore."
        )
    record = encode_example(
        image=encoded,
        image_format=image_format,
        label=encode_label_map(label),
        height=height,
        width=width,
        name=image_path.name,
    )
    return record, counts


def _describe(found: FolderSet, counts: dict[int, int]) -> DatasetDescriptor:
    classes = found.classes
    counted = [counts.get(value, 0) for value in range(len(classes.names))]
    total = max(1, sum(counted))
    ignore = classes.ignore_label
    if ignore is None and not found.binary:
        ignore = 255
    return DatasetDescriptor(
        name=found.name,
        classes=classes.names,
        colors=classes.colors,
        ignore_label=ignore,
        splits={split: len(ids) for split, ids in found.splits.items()},
        pixel_share=tuple(round(count / total, 6) for count in counted),
        source=found.source,
    )
