"""Looks through a folder of pictures and masks, before training does: all problems at once."""

import dataclasses
import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.descriptors import FILE_NAME
from deeplab_tf.datasets.encode import SIZES_FIX, describe_sizes, open_item_picture
from deeplab_tf.datasets.findings import Report, listed
from deeplab_tf.datasets.folder import (
    SPLITS,
    FolderSet,
    Listing,
    folder_classes,
    list_folder,
    random_splits,
)
from deeplab_tf.datasets.masks import MaskError, value_counts, wrong_values
from deeplab_tf.datasets.parallel import WORKERS, map_ahead
from deeplab_tf.datasets.progress import Advance, bar
from deeplab_tf.datasets.source import Item
from deeplab_tf.errors import InputError

# With an unreadable class file, masks are still opened and counted.
_ANY = Classes(("0", "1"), ((0, 0, 0), (255, 255, 255)))


def check(
    target: str | os.PathLike, *, classes: str | os.PathLike | None = None, quiet: bool = True
) -> Report:
    """Checks a folder of pictures and masks, or one of records, file by file.

    Args:
        target: the folder.
        classes: a class file elsewhere, or the name of a known list.
        quiet: no progress bar.

    Raises:
        InputError: there is nothing to check.
    """
    folder = Path(target)
    with bar("checking", quiet) as advance:
        if (folder / FILE_NAME).exists() or any(folder.glob("*.tfrecord")):
            from deeplab_tf.datasets.audit_records import check_records

            return check_records(folder, classes, advance)
        return check_folder(folder, classes, advance)


@dataclasses.dataclass
class _Looked:
    """What one picture and its mask gave."""

    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counts: np.ndarray | None = None
    digest: bytes = b""


def check_folder(folder: Path, classes, advance: Advance) -> Report:
    """Checks a plain folder; see `datasets.folder` for its layout."""
    listing = list_folder(folder)
    found, mistake = None, None
    try:
        name, found = folder_classes(folder, classes)
    except InputError as error:
        name, mistake = folder.name, str(error)
    report = Report(str(folder), "folder", found, listing.indices or ("train", "val"))
    if mistake:
        report.add("class file", mistake)
    split_of = _check_listing(listing, report)
    usable = found or _ANY
    pairs = FolderSet(name, folder, usable, {}, listing.images, listing.masks, binary=usable.binary)
    ids = [stem for stem in listing.images if stem in listing.masks and stem in split_of]
    digests: dict[bytes, str] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        looked = map_ahead(pool, lambda stem: _look(pairs.item(stem), found), ids)
        for stem, result in zip(ids, looked, strict=True):
            advance(1, len(ids))
            report.splits[split_of[stem]] += 1
            for kind, message in result.problems:
                report.add(kind, message)
            if result.counts is not None:
                report.count(split_of[stem], result.counts)
            other = digests.setdefault(result.digest, stem) if result.digest else stem
            if split_of[other] != split_of[stem]:
                report.add(
                    "same picture", f"{stem} ({split_of[stem]}) is {other} ({split_of[other]})"
                )
    return report.conclude()


def _check_listing(listing: Listing, report: Report) -> dict[str, str]:
    """Checks names; returns the split of each picture that is to be looked at."""
    for path in listing.doubles:
        report.add("doubles", str(path))
    split_of: dict[str, str] = {}
    for split, ids in listing.indices.items():
        file = listing.index_file(split)
        for name, times in Counter(ids).items():
            if name not in listing.images or name not in listing.masks:
                lacks = "mask" if name in listing.images else "picture"
                report.add("index", f"{file}: {name} has no {lacks}")
            elif times > 1:
                report.add("listed twice", f"{file}: {name}, {times} times")
            if name in split_of:
                report.add("listed twice", f"{name} is in {split_of[name]} and in {split}")
            split_of.setdefault(name, split)
    if listing.indices:
        rest = [name for name in listing.images if name not in split_of]
        if rest:
            report.notes.append(f"{len(rest)} pictures are in no split: {listed(rest, 4)}")
        if "train" not in listing.indices:
            report.notes.append("there is no train.txt, so nothing to train on")
        return split_of
    for name in listing.images.keys() - listing.masks.keys():
        report.add("no mask", str(listing.images[name]))
    for name in sorted(listing.masks.keys() - listing.images.keys()):
        report.add("no picture", str(listing.masks[name]))
    pairs = sorted(listing.images.keys() & listing.masks.keys())
    splits = random_splits(pairs)
    report.notes.append("no index files, so every tenth picture is kept for validation")
    return {name: split for split in SPLITS for name in splits.get(split, ())}


def _look(item: Item, classes: Classes | None) -> _Looked:
    """Opens a picture and its mask."""
    result, image, label = _Looked(), None, None
    assert isinstance(item.picture, Path)
    try:
        image = open_item_picture(item)
        result.digest = hashlib.sha1(item.picture.read_bytes()).digest()
    except (InputError, OSError) as error:
        result.problems.append(("picture", str(error)))
    try:
        label = item.read_label()
    except MaskError as error:
        if classes is not None:  # else it says what the class file lacks
            result.problems.append((error.kind, str(error)))
    except InputError as error:
        result.problems.append(("mask", str(error)))
    if label is None:
        return result
    result.counts = value_counts(label)
    if image is not None:
        message = describe_sizes(item, image, label.shape)
        if message:
            result.problems.append(("sizes", message.removesuffix(f"; {SIZES_FIX}")))
    wrong = wrong_values(result.counts, classes) if classes else []
    if wrong:
        result.problems.append(("values", f"{item.label_name}: {listed(wrong)}"))
    return result
