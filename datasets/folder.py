"""A plain folder of pictures and masks: what it holds, and what its masks mean.

my_set/images/ID.jpg      pictures
my_set/masks/ID.png       label maps of the same size (or labels/, annotations/)
my_set/classes.csv        index,name[,red,green,blue]: optional for two-class masks
my_set/train.txt          one ID a line: optional, as val.txt and test.txt
"""

import csv
import dataclasses
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.pictures import is_image, open_image, voc_colors

MASK_FOLDERS = ("masks", "labels", "annotations")
_IGNORED_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled")
_INDEX_SPLITS = ("train", "val", "test")
# Without index files, every tenth picture is kept for validation.
_VAL_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Classes:
    """What the values and colours of a mask mean."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_label: int | None = None
    ignore_color: tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class FolderSet:
    """Pictures, masks and their meaning, before any file has been opened."""

    name: str
    root: Path
    classes: Classes
    splits: dict[str, tuple[str, ...]]
    images: dict[str, Path]
    masks: dict[str, Path]
    binary: bool = False
    source: str = ""


def read_classes(path: str | os.PathLike) -> Classes:
    """Reads a class file: `index,name[,red,green,blue]` with a header line, or one name a line.

    A class called void, ignore or unlabeled is no class: its value is the ignore label.

    Raises:
        InputError: it can't be read so, indices have gaps, or there are fewer than two classes.
    """
    path = Path(path)
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text ({error}).") from None
    rows: list[tuple[int, str, tuple[int, int, int] | None]] = []
    if lines and lines[0].lower().replace(" ", "").startswith("index,name"):
        for number, row in enumerate(csv.DictReader(lines, skipinitialspace=True), start=2):
            try:
                color = None
                if row.get("red"):
                    color = (int(row["red"]), int(row["green"]), int(row["blue"]))
                    if not all(0 <= c <= 255 for c in color):
                        raise ValueError("a colour outside 0..255")
                if not row["name"]:
                    raise ValueError("no name")
                rows.append((int(row["index"]), row["name"].strip(), color))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path}, line {number}: wanted index,name[,red,green,blue] ({error})."
                ) from None
    else:
        rows = [(index, line.strip(), None) for index, line in enumerate(lines)]
    ignored = [row for row in rows if row[1].lower() in _IGNORED_NAMES]
    rows = sorted(row for row in rows if row not in ignored)
    if [row[0] for row in rows] != list(range(len(rows))):
        raise InputError(
            f"{path}: class indices must be 0, 1, 2, … without gaps; got {[r[0] for r in rows]}."
        )
    if len(rows) < 2 or len(ignored) > 1:
        raise InputError(
            f"{path}: needs two or more classes and at most one to ignore; got {len(rows)} and "
            f"{len(ignored)}."
        )
    defaults = voc_colors(len(rows))
    return Classes(
        names=tuple(row[1] for row in rows),
        colors=tuple(row[2] or defaults[row[0]] for row in rows),
        ignore_label=ignored[0][0] if ignored else None,
        ignore_color=ignored[0][2] if ignored else None,
    )


def scan_folder(root: str | os.PathLike, *, seed: int = 0) -> FolderSet:
    """Finds pictures, masks, classes and splits of a folder; opens no picture.

    Args:
        root: laid out as this module's first lines say.
        seed: of the split, where there are no index files.

    Raises:
        InputError: the folder, its pictures, masks or classes are missing or don't match.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder.")
    images = _stems(root / "images")
    if not images:
        raise InputError(f"{root / 'images'}: no pictures in there; put them in as JPEG or PNG.")
    mask_folder = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if mask_folder is None:
        raise InputError(f"{root}: no folder of masks; name it one of {', '.join(MASK_FOLDERS)}.")
    masks = _stems(mask_folder)
    class_file = next(
        (root / n for n in ("classes.csv", "classes.txt") if (root / n).exists()), None
    )
    portrait = (root / "sources.csv").exists() and class_file is None
    if class_file is not None:
        classes = read_classes(class_file)
    else:
        names = ("background", "person" if portrait else "foreground")
        classes = Classes(names, ((0, 0, 0), (0, 153, 255)))
    splits = _read_splits(root, images, masks, seed)
    return FolderSet(
        name="portrait" if portrait else root.resolve().name,
        root=root,
        classes=classes,
        splits=splits,
        images=images,
        masks=masks,
        binary=class_file is None,
        source=f"the folder {root.resolve().name}",
    )


def _stems(folder: Path) -> dict[str, Path]:
    """Stem -> picture file of a folder, sorted."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if is_image(path)}


def _read_splits(root: Path, images, masks, seed: int) -> dict[str, tuple[str, ...]]:
    splits = {}
    for split in _INDEX_SPLITS:
        path = root / f"{split}.txt"
        if path.exists():
            ids = [line.strip() for line in path.read_text().splitlines() if line.strip()]
            ids = [Path(name).stem if is_image(name) else name for name in ids]
            lost = [name for name in ids if name not in images or name not in masks]
            if lost:
                raise InputError(
                    f"{path}: {len(lost)} names have no picture or no mask, the first: {lost[0]}."
                )
            splits[split] = tuple(ids)
    if splits:
        return splits
    without = [name for name in images if name not in masks]
    if without:
        raise InputError(
            f"{root}: {len(without)} of {len(images)} pictures have no mask, the first: "
            f"{images[without[0]].name}. Add the masks, or list the pictures to use in train.txt."
        )
    ids = sorted(images)
    random.Random(seed).shuffle(ids)
    held = max(1, round(len(ids) * _VAL_SHARE)) if len(ids) > 1 else 0
    return {"train": tuple(sorted(ids[held:])), "val": tuple(sorted(ids[:held]))}


def read_mask(path: str | os.PathLike, classes: Classes, *, binary: bool) -> np.ndarray:
    """A mask file -> label values, uint8 or uint16 [H, W].

    Palette masks give their indices, grey ones their values, colour ones the class whose colour
    it is. With `binary`, 255 counts as 1.

    Raises:
        InputError: unreadable, or a colour that no class has.
    """
    image = open_image(path)
    if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
        values = np.asarray(image)
        if values.dtype == bool:
            values = values.astype(np.uint8)
        if values.dtype not in (np.uint8, np.uint16):
            if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
                raise InputError(f"{path}: label values must lie in 0..65535.")
            values = values.astype(np.uint16)
        if binary and set(np.unique(values)) <= {0, 255}:
            values = (values > 0).astype(np.uint8)
        return values
    return _from_colors(np.asarray(image.convert("RGB")), classes, path)


def _from_colors(pixels: np.ndarray, classes: Classes, path) -> np.ndarray:
    """[H, W, 3] -> label values by colour."""
    packed = pixels.astype(np.int32) @ np.array([65536, 256, 1])
    known = [(color, value) for value, color in enumerate(classes.colors)]
    if classes.ignore_label is not None and classes.ignore_color is not None:
        known.append((classes.ignore_color, classes.ignore_label))
    labels = np.full(packed.shape, -1, np.int32)
    for (red, green, blue), value in known:
        labels[packed == red * 65536 + green * 256 + blue] = value
    if (labels < 0).any():
        y, x = np.argwhere(labels < 0)[0]
        raise InputError(
            f"{path}: the colour {tuple(int(c) for c in pixels[y, x])} at row {y}, column {x} is "
            "no class's; add it to classes.csv or save the mask without smoothing."
        )
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


def value_counts(labels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Pixels by label value, int64 [65536]."""
    return np.bincount(np.asarray(labels).ravel(), minlength=65536)
