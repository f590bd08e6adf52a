"""ADE20K's challenge data: PNGs of classes and of instances, where no panoptic files were made.

Both are put together as the usual conversion to panoptic files does it: stuff is what the PNG of
classes says, every instance lies over it, and things without an instance are void.
"""

import dataclasses
from pathlib import Path

import numpy as np

from deeplab_tf.datasets.classes import ADE20K_PANOPTIC, Classes, find_classes
from deeplab_tf.datasets.findings import listed
from deeplab_tf.datasets.folder import Listing, read_indices
from deeplab_tf.datasets.panoptic_source import (
    PanopticFolder,
    Read,
    folder_split,
    layout_pictures,
    nested_files,
    read_values,
    size_text,
    with_divisor,
)
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import recode, values_of
from deeplab_tf.pictures import open_image

_CLASSES, _INSTANCES = "annotations", "annotations_instance"
# Numbers are 8 bits, and count over all classes of a picture.
_HIGHEST = 255


def is_ade20k(root: Path) -> bool:
    """Whether a folder has the challenge data, with PNGs of instances or still without."""
    classes = root / _CLASSES
    return (root / _INSTANCES).is_dir() or any(
        (classes / name).is_dir() for name in ("training", "validation")
    )


def list_ade20k(root: Path, classes, label_divisor: int | None) -> PanopticFolder:
    if classes is not None and find_classes(classes) != ADE20K_PANOPTIC:
        raise InputError(f"{root}: the classes of ADE20K are known; leave --classes out.")
    images, doubles = layout_pictures(root)
    masks, more = nested_files(root / _CLASSES)
    numbers, others = nested_files(root / _INSTANCES)
    for found, name, archive in (
        (masks, _CLASSES, "ADEChallengeData2016.zip"),
        (numbers, _INSTANCES, "annotations_instance.tar"),
    ):
        if not found:
            raise InputError(
                f"{root / name}: no training/ID.png or validation/ID.png in there. Unpack "
                f"{archive} in {root}, or add ade20k_panoptic_SPLIT.json with its folder."
            )
    both = {stem: path for stem, path in masks.items() if stem in numbers}
    indices: dict[str, list[str]] = {}
    for stem, path in images.items():
        split = folder_split(root, path)
        if split is not None and stem in both:
            indices.setdefault(split, []).append(stem)
    given = read_indices(root) or {split: tuple(ids) for split, ids in indices.items()}
    listing = Listing(root, images, both, (*doubles, *more, *others), given)
    problems = [
        ("no instances", str(path))
        for stem, path in masks.items()
        if stem in images and stem not in numbers
    ]
    if given:  # else they are found by the listing itself
        problems += [
            ("no mask", str(path))
            for stem, path in images.items()
            # The test pictures are published without.
            if stem not in masks and folder_split(root, path) != "test"
        ]
        problems += [
            ("no picture", str(path))
            for stem, path in sorted({**numbers, **masks}.items())
            if stem not in images
        ]
    known = with_divisor(ADE20K_PANOPTIC, _HIGHEST, label_divisor)
    assert known.label_divisor is not None
    if known.label_divisor <= _HIGHEST:
        raise InputError(
            f"ADE20K numbers up to {_HIGHEST} instances: label_divisor {known.label_divisor} is "
            "less."
        )
    reader = _Reader(known, both, numbers)
    return PanopticFolder(listing, known, reader.read, lambda stem: (numbers[stem],), problems)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads a PNG of classes and one of instances together.

    Attributes:
        classes: of the result.
        masks, numbers: ID -> file.
    """

    classes: Classes
    masks: dict[str, Path]
    numbers: dict[str, Path]

    def read(self, stem: str) -> Read:
        mask, number = self.masks[stem], self.numbers[stem]
        label, pairs = read_values(mask).astype(np.int32), _read_pairs(number)
        if label.shape != pairs.shape:
            text = f"{number} is {size_text(pairs)} but {mask} is {size_text(label)}"
            return Read(np.full(label.shape, self.classes.void, np.int32), [("sizes", text)])
        problems: list[tuple[str, str]] = []
        stuff = self._stuff(mask, label, problems)
        things = self._things(number, pairs, problems)
        return Read(np.where(pairs % 256 > 0, things, stuff), problems)

    def _stuff(self, path: Path, label: np.ndarray, problems: list) -> np.ndarray:
        """Panoptic values of stuff, void elsewhere."""
        values, _ = values_of(label)
        wrong = values >= len(self.classes.names)
        if wrong.any():
            text = f"{path}: values {listed(values[wrong].tolist())}"
            problems.append(("category", f"{text}; there are 0..{len(self.classes.names) - 1}"))
        void = wrong | (values == self.classes.ignored) | np.isin(values, self.classes.things)
        codes = np.where(void, self.classes.void, values * self.classes.label_divisor)
        return recode(label, values, codes.astype(np.int32))

    def _things(self, path: Path, pairs: np.ndarray, problems: list) -> np.ndarray:
        """Panoptic values of instances, counted from 1 in each class by their numbers."""
        values, _ = values_of(pairs)
        categories, numbers = np.divmod(values, 256)
        codes = np.full(len(values), self.classes.void, np.int32)
        proper = numbers > 0
        for number in np.unique(numbers[proper]).tolist():
            found = categories[numbers == number].tolist()
            if len(found) > 1 or not 1 <= found[0] <= len(self.classes.things):
                text = f"{path}: instance {number} has category {' and '.join(map(str, found[:8]))}"
                count = len(self.classes.things)
                problems.append(("category", f"{text}; each has one of 1..{count}"))
                proper &= numbers != number
        for category in np.unique(categories[proper]).tolist():
            mine = np.flatnonzero(proper & (categories == category))
            label = self.classes.things[category - 1]
            codes[mine] = label * self.classes.label_divisor + 1 + np.arange(len(mine))
        return recode(pairs, values, codes)


def _read_pairs(path: Path) -> np.ndarray:
    """Category * 256 + number of a PNG of instances, int32 [H, W].

    Raises:
        InputError: it can't be read, or isn't RGB.
    """
    image = open_image(path)
    if image.mode not in ("RGB", "RGBA"):
        raise InputError(
            f"{path}: a PNG of instances is RGB (red: category, green: number); this one is "
            f"{image.mode}."
        )
    pixels = np.asarray(image).astype(np.int32)
    return pixels[..., 0] * 256 + pixels[..., 1]
