"""Pictures with labels to score on: from records, or straight from a folder of files."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor, load, reading
from deeplab_tf.datasets.descriptors import FILE_NAME
from deeplab_tf.datasets.loading import check_split, read_source
from deeplab_tf.datasets.named import open_source
from deeplab_tf.errors import InputError
from deeplab_tf.metrics.mean_iou import confusion_matrix
from deeplab_tf.pictures import Colors

# Name, uint8 [H, W, 3], class of each pixel [H, W].
Example = tuple[str, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split that can be gone through any number of times.

    Attributes:
        name: the folder.
        split: its split.
        classes, colors, ignore_label: what label values mean.
        count: of pictures.
        read: starts one pass.
        thing_classes, label_divisor, category_ids: of panoptic labels, see `DatasetDescriptor`.
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
    category_ids: tuple[int, ...] = ()

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
    found = DatasetDescriptor.load(folder)
    check_split(folder, split, found.splits)

    def examples() -> Iterator[dict]:
        with reading(folder, split):
            yield from load(folder, split).as_numpy_iterator()

    return Examples(
        str(folder),
        split,
        found.classes,
        found.colors,
        found.ignore_label,
        found.splits[split],
        _reader(examples, keys.SEMANTIC_LABEL),
        found.thing_classes,
        found.label_divisor,
        _reader(examples, keys.PANOPTIC_LABEL),
        found.category_ids,
    )


def _from_files(folder: Path, split: str) -> Examples:
    source = open_source(folder)
    check_split(folder, split, source.counts)
    classes = source.classes

    def examples() -> Iterator[dict]:
        for example in read_source(source, split):
            image, label = example[keys.IMAGE], example[keys.SEMANTIC_LABEL]
            if label.shape != image.shape[:2]:
                raise InputError(
                    f"{folder}: the mask of {example[keys.NAME].decode()} is {label.shape[1]} x "
                    f"{label.shape[0]} but the picture is {image.shape[1]} x {image.shape[0]}; "
                    "make them the same size."
                )
            yield example

    return Examples(
        str(folder),
        split,
        classes.names,
        classes.colors,
        classes.ignored,
        source.counts[split],
        _reader(examples, keys.SEMANTIC_LABEL),
        classes.things,
        classes.label_divisor,
        _reader(examples, keys.PANOPTIC_LABEL),
        classes.category_ids,
    )


def _reader(examples: Callable[[], Iterator[dict]], label: str) -> Callable[[], Iterator[Example]]:
    """Starts passes that give one of the labels."""

    def read() -> Iterator[Example]:
        for example in examples():
            name = example[keys.NAME].decode("utf-8", "replace")
            yield name, example[keys.IMAGE], example[label]

    return read
