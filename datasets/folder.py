"""A plain folder of pictures and masks: what it holds, and what its masks mean.

my_set/images/ID.jpg      pictures
my_set/masks/ID.png       label maps of the same size (or labels/, annotations/)
my_set/classes.csv        index,name[,red,green,blue]: optional for two-class masks
my_set/train.txt          one ID a line: optional, as val.txt and test.txt
"""

import dataclasses
import functools
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from deeplab_tf.datasets.classes import (
    CAMVID,
    FILE_NAMES,
    PORTRAIT,
    TWO_CLASSES,
    Classes,
    find_classes,
    read_classes,
)
from deeplab_tf.datasets.findings import Report, listed
from deeplab_tf.datasets.masks import read_mask
from deeplab_tf.datasets.source import Item
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import is_image

__all__ = ["Classes", "FolderSet", "Listing", "read_classes", "read_mask", "scan_folder"]

MASK_FOLDERS = ("masks", "labels", "annotations")
SPLITS = ("train", "val", "test")
# Without index files, every tenth picture is kept for validation.
_VAL_SHARE = 0.1
# The first line of the portrait set's list of sources.
_PORTRAIT_HEADER = "id,source,original_name,split"


@dataclasses.dataclass(frozen=True)
class FolderSet:
    """Pictures, masks and their meaning, before any file has been opened: a `Source`."""

    name: str
    root: Path
    classes: Classes
    splits: dict[str, tuple[str, ...]]
    images: dict[str, Path]
    masks: dict[str, Path]
    binary: bool = False
    source: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Split -> number of pictures."""
        return {split: len(ids) for split, ids in self.splits.items()}

    def stamp(self) -> list:
        """Names, sizes and times of all files, and what masks mean."""
        files = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for ids in self.splits.values()
            for name in ids
            for path in (self.images[name], self.masks[name])
        ]
        return [dataclasses.asdict(self.classes), self.splits, files]

    def items(self, split: str, part: int, parts: int) -> Iterator[Item]:
        """Every `parts`-th picture of a split, from `part` on."""
        return (self.item(name) for name in self.splits[split][part::parts])

    def item(self, name: str) -> Item:
        """The picture of that ID."""
        path = self.masks[name]
        read = functools.partial(read_mask, path, self.classes, binary=self.binary)
        return Item(self.images[name].name, self.images[name], str(path), read)


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder as they lie there, whether they fit together or not.

    Attributes:
        images, masks: ID -> file.
        doubles: files that have the same ID as another of their folder.
        indices: split -> IDs as its index file lists them.
    """

    root: Path
    images: dict[str, Path]
    masks: dict[str, Path]
    doubles: tuple[Path, ...]
    indices: dict[str, tuple[str, ...]]

    def index_file(self, split: str) -> Path:
        return self.root / f"{split}.txt"


def list_folder(root: str | os.PathLike) -> Listing:
    """Lists a folder.

    Raises:
        InputError: it doesn't exist, or has no pictures or no masks at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder.")
    images, doubles = picture_files(root / "images")
    if not images:
        what = "no pictures in there" if (root / "images").is_dir() else "no such folder"
        raise InputError(f"{root / 'images'}: {what}; put the pictures there, as JPEG or PNG.")
    folder = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{root}: no folder of masks; name it one of {', '.join(MASK_FOLDERS)}.")
    masks, more = picture_files(folder)
    if not masks:
        raise InputError(f"{folder}: no masks in there; put them in as PNG.")
    return Listing(root, images, masks, (*doubles, *more), read_indices(root))


def read_indices(root: Path) -> dict[str, tuple[str, ...]]:
    """Split -> IDs, of the index files that there are."""
    paths = {split: root / f"{split}.txt" for split in SPLITS}
    return {split: _read_index(path) for split, path in paths.items() if path.exists()}


def picture_files(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Stem -> picture file of a folder, sorted; and files whose stem was there before."""
    found: dict[str, Path] = {}
    doubles = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_image(path):
            if path.stem in found:
                doubles.append(path)
            else:
                found[path.stem] = path
    return found, doubles


def _read_index(path: Path) -> tuple[str, ...]:
    """IDs of an index file, which may have them with a suffix or a folder."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text ({error}).") from None
    names = [line for line in lines if line]
    return tuple(Path(name).stem if is_image(name) else name for name in names)


def class_file(root: str | os.PathLike) -> Path | None:
    """The class file of a folder, if it has one."""
    return next((Path(root) / name for name in FILE_NAMES if (Path(root) / name).exists()), None)


def folder_classes(root: Path, classes: str | os.PathLike | None = None) -> tuple[str, Classes]:
    """Name of the data set and its classes.

    Args:
        root: of the set.
        classes: a class file or known list to take; None looks in the folder.

    Raises:
        InputError: the class file can't be used.
    """
    name, path = root.resolve().name, class_file(root)
    if classes is not None:
        return name, find_classes(classes)
    if path is not None:
        found = read_classes(path)
        return ("camvid" if found.names == CAMVID.names else name), found
    return ("portrait", PORTRAIT) if is_portrait(root) else (name, TWO_CLASSES)


def is_portrait(root: Path) -> bool:
    """Whether a folder is the portrait set, by its list of sources."""
    path = root / "sources.csv"
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().strip() == _PORTRAIT_HEADER


def scan_folder(
    root: str | os.PathLike, *, classes: str | os.PathLike | None = None, seed: int = 0
) -> FolderSet:
    """Finds pictures, masks, classes and splits of a folder; opens no picture.

    The portrait set and CamVid are known by their files.

    Args:
        root: laid out as this module's first lines say.
        classes: a class file elsewhere, or the name of a known list: binary, portrait, camvid,
            voc. None takes the folder's own, or black and white.
        seed: of the split, where there are no index files.

    Raises:
        InputError: the folder, its pictures, masks or classes are missing or don't match.
    """
    listing = list_folder(root)
    if listing.doubles:
        raise InputError(
            f"{listing.doubles[0]}: another file has the same name but for its suffix; keep one."
        )
    name, found = folder_classes(listing.root, classes)
    found = found.semantic()
    return FolderSet(
        name=name,
        root=listing.root,
        classes=found,
        splits=split_listing(listing, seed),
        images=listing.images,
        masks=listing.masks,
        binary=found.binary,
        source=f"the folder {listing.root.resolve().name}",
    )


def split_listing(listing: Listing, seed: int) -> dict[str, tuple[str, ...]]:
    """The splits of a folder, by its index files or at random.

    Raises:
        InputError: an index file is empty or names what isn't there, or pictures have no mask.
    """
    for split, ids in listing.indices.items():
        path = listing.index_file(split)
        lost = [name for name in ids if name not in listing.images or name not in listing.masks]
        if lost:
            raise InputError(
                f"{path}: {len(lost)} names have no picture or no mask, the first: {lost[0]}. "
                "Add the files, or take the names out."
            )
        if not ids:
            raise InputError(f"{path} is empty; list the IDs of the split, or delete the file.")
    if listing.indices:
        return dict(listing.indices)
    without = [name for name in listing.images if name not in listing.masks]
    if without:
        raise InputError(
            f"{listing.root}: {len(without)} of {len(listing.images)} pictures have no mask, the "
            f"first: {listing.images[without[0]].name}. Add the masks, or list the pictures to "
            "use in train.txt."
        )
    return random_splits(sorted(listing.images), seed)


def random_splits(ids: list[str], seed: int = 0) -> dict[str, tuple[str, ...]]:
    """A tenth for validation, the rest for training."""
    ids = list(ids)
    random.Random(seed).shuffle(ids)
    held = max(1, round(len(ids) * _VAL_SHARE)) if len(ids) > 1 else 0
    splits = {"train": tuple(sorted(ids[held:])), "val": tuple(sorted(ids[:held]))}
    return {split: found for split, found in splits.items() if found}


def check_listing(listing: Listing, report: Report) -> dict[str, str]:
    """Notes what is wrong with names; returns the split of each picture that is to be looked at."""
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
