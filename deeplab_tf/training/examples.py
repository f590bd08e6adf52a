"""Pictures with labels to score on: from records, or straight from a folder of files."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor, load, reading
from deeplab_tf.datasets.descriptors import FILE_NAME
from deeplab_tf.datasets.folder import FolderSet, read_mask, scan_folder
from deeplab_tf.errors import InputError
from deeplab_tf.metrics.mean_iou import confusion_matrix
from deeplab_tf.pictures import Colors, read_image

# Name, uint8 [H, W, 3], class of each pixel [H, W].
Example = tuple[str, np.ndarray, np.ndarray]
_ANY_IGNORE_LABEL = 255
# Files that are decoded at the same time.
_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split that can be gone through any number of times.

    Attributes:
        name: the folder.
        split: its split.
        classes, colors, ignore_label: what label values mean.
        count: of pictures.
        read: starts one pass.
        thing_classes, label_divisor: of panoptic labels, see `DatasetDescriptor`; None without.
        read_panoptic: starts one pass that gives those in place of classes.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    colors: Colors
    ignore_label: int | None
    count: int
    read: Callable[[], Iterator[Example]]
    thing_classes: tuple[int, ...] = ()
    label_divisor: int | None = None
    read_panoptic: Callable[[], Iterator[Example]] | None = None

    def __iter__(self) -> Iterator[Example]:
        return self.read()

    def confusion(self, name: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """The `confusion_matrix` of a picture.

        Raises:
            InputError: its label has values outside the classes.
        """
        count = len(self.classes)
        try:
            return confusion_matrix(label, prediction, count, self.ignore_label)
        except ValueError:
            raise InputError(
                f"{self.name}: the label of {name} has values outside 0..{count - 1}; look for "
                "them with: deeplab-tf data check"
            ) from None

    def refuse_fewer(self, found: int, limit: int | None) -> None:
        """Refuses a split that is shorter than listed: a shard may end where a record ends.

        Raises:
            InputError: it is, though no more than `limit` pictures were wanted.
        """
        if found < min(self.count, limit or self.count):
            raise InputError(
                f"{self.name}: {found} pictures in {self.split!r}, though {self.count} are listed. "
                "A file is cut short: copy it or build the records again."
            )


def open_examples(data: str | os.PathLike, split: str) -> Examples:
    """Finds a split of a records folder or of a plain folder; reads no picture yet.

    Raises:
        InputError: there is no such folder or split, or the folder isn't laid out as it should.
    """
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    if (folder / FILE_NAME).is_file():
        return _from_records(folder, split)
    return _from_files(folder, split)


def _from_records(folder: Path, split: str) -> Examples:
    descriptor = DatasetDescriptor.load(folder)
    _check(folder, split, descriptor.splits)

    def read(label: str = keys.SEMANTIC_LABEL) -> Iterator[Example]:
        with reading(folder, split):
            for example in load(folder, split).as_numpy_iterator():
                name = example[keys.NAME].decode("utf-8", "replace")
                yield name, example[keys.IMAGE], example[label]

    return Examples(
        str(folder),
        split,
        descriptor.classes,
        descriptor.colors,
        descriptor.ignore_label,
        descriptor.splits[split],
        read,
        descriptor.thing_classes,
        descriptor.label_divisor,
        functools.partial(read, keys.PANOPTIC_LABEL),
    )


def _from_files(folder: Path, split: str) -> Examples:
    found = scan_folder(folder)
    _check(folder, split, found.splits)
    names, classes = found.splits[split], found.classes
    ignore = classes.ignore_label
    if ignore is None and not found.binary:
        ignore = _ANY_IGNORE_LABEL

    def read() -> Iterator[Example]:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for start in range(0, len(names), _AHEAD):
                yield from pool.map(lambda n: _pair(found, n), names[start : start + _AHEAD])

    return Examples(str(folder), split, classes.names, classes.colors, ignore, len(names), read)


def _pair(found: FolderSet, name: str) -> Example:
    image = read_image(found.images[name])
    label = read_mask(found.masks[name], found.classes, binary=found.binary)
    if label.shape != image.shape[:2]:
        raise InputError(
            f"{found.masks[name]} is {label.shape[1]} x {label.shape[0]} but its picture is "
            f"{image.shape[1]} x {image.shape[0]}; make them the same size."
        )
    return found.images[name].name, image, label


def _check(folder: Path, split: str, splits: dict) -> None:
    if split not in splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(splits) or 'none'}.")
