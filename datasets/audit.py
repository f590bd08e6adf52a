"""Looks through a folder of pictures and masks, before training does: all problems at once."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.descriptors import FILE_NAME
from deeplab_tf.datasets.encode import SIZES_FIX, describe_sizes, look_at_picture
from deeplab_tf.datasets.findings import Report, listed
from deeplab_tf.datasets.folder import FolderSet, check_listing, folder_classes, list_folder
from deeplab_tf.datasets.masks import MaskError, value_counts, wrong_values
from deeplab_tf.datasets.panoptic_folder import is_panoptic
from deeplab_tf.datasets.panoptic_pairs import INSTANCES
from deeplab_tf.datasets.parallel import WORKERS, map_ahead
from deeplab_tf.datasets.progress import Advance, bar
from deeplab_tf.datasets.source import Item
from deeplab_tf.errors import InputError

# With an unreadable class file, masks are still opened and counted.
_ANY = Classes(("0", "1"), ((0, 0, 0), (255, 255, 255)))


def check(
    target: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
    quiet: bool = True,
) -> Report:
    """Checks a folder of pictures and masks, or one of records, file by file.

    Args:
        target: the folder.
        classes: a class file elsewhere, or the name of a known list.
        annotations: a panoptic JSON file elsewhere.
        label_divisor: of panoptic labels; None takes the records' own, or one that fits.
        quiet: no progress bar.

    Raises:
        InputError: there is nothing to check.
    """
    folder = Path(target)
    with bar("checking", quiet) as advance:
        if (folder / FILE_NAME).exists() or any(folder.glob("*.tfrecord")):
            from deeplab_tf.datasets.audit_records import check_records

            return check_records(folder, classes, advance, label_divisor)
        if is_panoptic(folder, annotations):
            from deeplab_tf.datasets.audit_panoptic import check_panoptic

            return check_panoptic(
                folder,
                advance,
                classes=classes,
                annotations=annotations,
                label_divisor=label_divisor,
            )
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
    found = found and found.semantic()
    report = Report(str(folder), "folder", found, listing.indices or ("train", "val"))
    if mistake:
        report.add("class file", mistake)
    if (folder / INSTANCES).is_dir():
        report.notes.append("instances/ isn't used: the class file marks no thing (column `thing`)")
    split_of = check_listing(listing, report)
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
            report.compare_digest(digests, result.digest, stem, split_of)
    return report.conclude()


def _look(item: Item, classes: Classes | None) -> _Looked:
    """Opens a picture and its mask."""
    result, label = _Looked(), None
    image, result.digest = look_at_picture(item, result.problems)
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
