"""What folders with instances have in common, whatever their layout: a `Source` of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.findings import KINDS, TOLERATED
from deeplab_tf.datasets.folder import SPLITS, Listing, picture_files
from deeplab_tf.datasets.masks import MaskError, read_mask
from deeplab_tf.datasets.source import Item
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import decode_ids
from deeplab_tf.pictures import open_image

# Of label maps, where nothing asks for another.
_DIVISOR = 256
_DIVISORS = (256, 1000, *(2**bits for bits in range(12, 25, 2)))
_PICTURES = "_leftImg8bit"
# What values mean is given by a table of our own, so that files are read by their values.
_PLAIN = Classes(("0", "1"), ((0, 0, 0), (255, 255, 255)))


class Read(NamedTuple):
    """A label as it was read.

    Attributes:
        label: int32 [H, W], void where a problem is.
        problems: (kind, message) of each; the kind is a key of `findings.KINDS`.
    """

    label: np.ndarray
    problems: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class PanopticFolder:
    """A folder as it lies there, whether its files fit together or not.

    Attributes:
        listing: pictures, and label files as its masks.
        classes: with things and label_divisor.
        read: ID -> its panoptic label.
        companions: ID -> further files that the label depends on.
        problems: (kind, message) of files that don't fit together.
        notes: what is worth knowing.
    """

    listing: Listing
    classes: Classes
    read: Callable[[str], Read]
    companions: Callable[[str], tuple[Path, ...]] = lambda _: ()
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def item(self, stem: str) -> Item:
        """The picture of that ID."""
        path = self.listing.images[stem]
        label = str(self.listing.masks[stem])
        read = functools.partial(self._read_label, stem)
        return Item(path.name, path, label, read, self.classes.label_divisor)

    def _read_label(self, stem: str) -> np.ndarray:
        label, problems = self.read(stem)
        for kind, message in problems:
            if kind not in TOLERATED:
                what, fix = KINDS[kind]
                raise MaskError(kind, f"{message}: {what}. {fix}")
        return label


@dataclasses.dataclass(frozen=True)
class PanopticSet:
    """Pictures and panoptic labels, before any has been opened: a `Source`."""

    name: str
    folder: PanopticFolder
    splits: dict[str, tuple[str, ...]]
    source: str

    @property
    def classes(self) -> Classes:
        """With things and label_divisor."""
        return self.folder.classes

    @property
    def counts(self) -> dict[str, int]:
        """Split -> number of pictures."""
        return {split: len(ids) for split, ids in self.splits.items()}

    def stamp(self) -> list:
        """Names, sizes and times of all files, and what labels mean."""
        listing = self.folder.listing
        paths = {
            path
            for ids in self.splits.values()
            for stem in ids
            for path in (
                listing.images[stem],
                listing.masks[stem],
                *self.folder.companions(stem),
            )
        }
        files = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(paths)]
        return [dataclasses.asdict(self.classes), self.splits, files]

    def items(self, split: str, part: int, parts: int) -> Iterator[Item]:
        """Every `parts`-th picture of a split, from `part` on."""
        return (self.folder.item(stem) for stem in self.splits[split][part::parts])


def with_divisor(classes: Classes, highest: int, given: int | None) -> Classes:
    """The classes with a label_divisor above `highest`, the highest instance number."""
    if given is not None:
        return classes.panoptic(given)
    wanted = (classes.label_divisor or _DIVISOR, *_DIVISORS)
    return classes.panoptic(next((divisor for divisor in wanted if divisor > highest), highest + 1))


def read_values(path: Path, classes: Classes | None = None) -> np.ndarray:
    """Values of a mask: of one channel, or by colour where `classes` have colours."""
    return read_mask(path, classes or _PLAIN, binary=False)


def read_numbers(path: Path) -> np.ndarray:
    """Instance numbers of a PNG of one channel, or of RGB as COCO writes ids."""
    image = open_image(path)
    if image.mode in ("RGB", "RGBA"):
        return decode_ids(np.asarray(image))
    return read_values(path)


def size_text(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def short_id(stem: str) -> str:
    """ID of a Cityscapes file without what kind of file it is; other names as they are."""
    return stem.removesuffix(_PICTURES).removesuffix("_gtFine_panoptic")


def layout_pictures(root: Path) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """ID -> picture, wherever a layout keeps them; and files of an ID that was there before."""
    plain = root / "images"
    if (root / "leftImg8bit").is_dir():
        images, doubles = _files_of(sorted((root / "leftImg8bit").glob("*/*")))
    elif plain.is_dir():
        images, doubles = nested_files(plain)
    else:
        images, doubles = _files_of([root / f"{split}2017" for split in SPLITS])
    if not images:
        raise InputError(f"{plain}: no pictures in there; put them there, as JPEG or PNG.")
    return images, doubles


def nested_files(folder: Path) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """ID -> file of a folder, or of its sub-folders where it has none itself; and doubles."""
    found, doubles = _files_of([folder])
    if found or not folder.is_dir():
        return found, doubles
    return _files_of(sorted(folder.iterdir()))


def _files_of(places: Iterable[Path]) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """ID -> file of the folders among these, and files of an ID that was there before."""
    files: dict[str, Path] = {}
    doubles: list[Path] = []
    for place in places:
        found, more = picture_files(place)
        doubles += more
        for stem, path in found.items():
            if short_id(stem) in files:
                doubles.append(path)
            files.setdefault(short_id(stem), path)
    return files, tuple(doubles)


def folder_split(root: Path, picture: Path) -> str | None:
    """The split that a sub-folder of images/ stands for: training, validation and the like."""
    if picture.parent.parent != root / "images":
        return None
    return next((split for split in SPLITS if picture.parent.name.startswith(split)), None)
