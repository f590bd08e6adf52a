"""Own pictures with instances: a PNG of classes and one of instance numbers each."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deeplab_tf.datasets.classes import Classes, find_classes
from deeplab_tf.datasets.findings import listed
from deeplab_tf.datasets.folder import (
    MASK_FOLDERS,
    Listing,
    class_file,
    picture_files,
    read_indices,
)
from deeplab_tf.datasets.masks import VALUES
from deeplab_tf.datasets.panoptic_source import (
    PanopticFolder,
    Read,
    read_numbers,
    read_values,
    size_text,
    with_divisor,
)
from deeplab_tf.datasets.parallel import WORKERS
from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json
from deeplab_tf.panoptic_format import recode, values_of
from deeplab_tf.pictures import voc_colors

INSTANCES = "instances"
# Label PNGs looked at to find out how instances are numbered.
_SAMPLES = 5


def list_pairs(root: Path, classes, label_divisor: int | None) -> PanopticFolder:
    images, doubles = picture_files(root / "images")
    if not images:
        raise InputError(f"{root / 'images'}: no pictures in there; put them there, JPEG or PNG.")
    names = ("semantic", *MASK_FOLDERS)
    place = next((root / name for name in names if (root / name).is_dir()), None)
    if place is None:
        raise InputError(
            f"{root}: instances/ tells instances apart, but no folder has their classes; name it "
            f"one of {', '.join(names)}."
        )
    masks, more = picture_files(place)
    numbers, others = picture_files(root / INSTANCES)
    if not masks or not numbers:
        raise InputError(f"{root}: no PNGs in {place.name}/ or in {INSTANCES}/; put them in.")
    found, values, segments = _meaning(root, classes)
    listing = Listing(root, images, masks, (*doubles, *more, *others), read_indices(root))
    problems = [("no instances", str(path)) for stem, path in masks.items() if stem not in numbers]
    problems += [("no mask", str(path)) for stem, path in numbers.items() if stem not in masks]
    listed_there = {stem: path for stem, path in masks.items() if stem in numbers}
    listing = dataclasses.replace(listing, masks=listed_there)
    if segments is not None:
        problems += [
            ("no segments", str(path))
            for stem, path in listed_there.items()
            if stem not in segments
        ]
        problems += [
            ("no png", f"{root / 'segments.json'}: {stem}")
            for stem in segments
            if stem in images and stem not in listed_there
        ]
    both = [(listed_there[stem], numbers[stem]) for stem in listed_there]
    filled = _is_filled(both[:: max(1, len(both) // _SAMPLES)], found, values)
    highest = _highest_number([path for _, path in both])
    found = with_divisor(found, highest, label_divisor)
    reader = _PairReader(found, listed_there, numbers, values, filled, segments)
    return PanopticFolder(
        listing,
        found,
        reader.read,
        lambda stem: (numbers[stem],),
        problems,
        ["stuff holds its class in instances/, and numbers start at 0 there"] if filled else [],
    )


def _meaning(root: Path, classes) -> tuple[Classes, np.ndarray | None, dict | None]:
    """Classes of a folder; label by value of its masks, None if they are the same; segments by
    picture, where segments.json gives them."""
    path, given = root / "segments.json", class_file(root) or ""
    value = read_json(path) if path.exists() else None
    segments = _segments(path, value) if value is not None else None
    if classes is not None or given:
        found = find_classes(given if classes is None else classes)
        if not found.things:
            raise InputError(
                f"{classes or given}: says of no class that it is a thing, so {root / INSTANCES} "
                "means nothing; add a column `thing`, 1 for each class whose instances are told "
                "apart."
            )
        return found, None, segments
    if value is None:
        raise InputError(
            f"{root}: nothing says what the values of its masks mean, and which are things. Add "
            "classes.csv (index,name,thing) or segments.json, or name a known list: --classes "
            "coco_stuff."
        )
    return (*_numbered_classes(path, value), segments)


def _numbered_classes(path: Path, value: dict) -> tuple[Classes, np.ndarray]:
    """The classes of segments.json: background, then its categories by id; and label by id."""
    try:
        rows = sorted(
            (int(row["id"]), str(row["name"]), bool(row.get("isthing", True)), row.get("color"))
            for row in value["categories"]
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: `categories` need an id and a name each ({error!r}).") from None
    ids = [row[0] for row in rows]
    if len({*ids}) < len(ids) or not rows or ids[0] < 0 or ids[-1] > 254:
        raise InputError(
            f"{path}: ids of categories lie in 0..254 and are there once; got {listed(ids)}. 0 may "
            "be left out: it is the background then; 255 is ignored."
        )
    if ids[0] != 0:
        rows.insert(0, (0, "background", False, [0, 0, 0]))
        ids.insert(0, 0)
    colors = voc_colors(len(rows))
    table = np.full(VALUES, -1, np.int32)
    table[ids], table[255] = np.arange(len(ids)), 255
    found = Classes(
        names=tuple(row[1] for row in rows),
        colors=tuple(
            tuple(row[3]) if row[3] is not None else color
            for row, color in zip(rows, colors, strict=True)
        ),
        ignore_label=255,
        things=tuple(label for label, row in enumerate(rows) if row[2]),
        category_ids=tuple(ids),
    )
    return found, table


def _segments(path: Path, value) -> dict[str, dict[int, int]] | None:
    """Picture -> segment number -> category id, where the file lists them."""
    try:
        return {
            Path(str(image["name"])).stem
            if str(image["name"]).endswith((".png", ".jpg"))
            else str(image["name"]): {
                int(row["id"]): int(row["category_id"]) for row in image["segments"]
            }
            for image in value["images"]
        } or None
    except (AttributeError, KeyError, TypeError, ValueError):
        if isinstance(value, dict) and "images" not in value:
            return None
        raise InputError(
            f"{path}: `images` need a name and `segments` (id, category_id) each."
        ) from None


def _is_filled(paths: Sequence[tuple[Path, Path]], classes: Classes, values) -> bool:
    """Whether stuff holds its class in the PNG of instances, as some tools write it.

    Then 0 is no mark of "none" there but the number of an instance.
    """
    same = other = 0
    for mask, number in paths:
        try:
            label, instance = read_values(mask, classes), read_numbers(number)
        except InputError:
            continue
        if label.shape != instance.shape:
            continue
        labels = _to_labels(label, values)
        stuff = ~np.isin(labels, classes.things) & (labels != classes.ignored) & (label != 0)
        agree = int((label[stuff] == instance[stuff]).sum())
        same, other = same + agree, other + int(stuff.sum()) - agree
    return same > other


def _to_labels(label: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    return label if values is None else values[label]


def _highest_number(paths: Sequence[Path]) -> int:
    """A bound of the instance numbers: files of 8 bits needn't be opened to know it."""
    deep = [path for path in paths if not _is_shallow(path)]
    if not deep:
        return 255

    def highest(path: Path) -> int:
        try:
            return int(read_numbers(path).max(initial=0))
        except InputError:  # said where it is read
            return 0

    with ThreadPoolExecutor(WORKERS) as pool:
        return max(pool.map(highest, deep))


def _is_shallow(path: Path) -> bool:
    """Whether a PNG holds one channel of at most 8 bits."""
    with open(path, "rb") as file:
        head = file.read(26)
    return len(head) == 26 and head[24] <= 8 and head[25] in (0, 3, 4)


@dataclasses.dataclass(frozen=True)
class _PairReader:
    """Reads a PNG of classes and one of instance numbers together.

    Attributes:
        classes: of the result.
        masks, numbers: ID -> file.
        values: label by value of the mask, -1 where there is none; None: they are the same.
        filled: see `_is_filled`.
        segments: ID -> number -> category id, to compare with; None if nothing says so.
    """

    classes: Classes
    masks: dict[str, Path]
    numbers: dict[str, Path]
    values: np.ndarray | None
    filled: bool
    segments: dict[str, dict[int, int]] | None

    def read(self, stem: str) -> Read:
        mask, number = self.masks[stem], self.numbers[stem]
        values, instance = read_values(mask, self.classes), read_numbers(number)
        void = self.classes.void
        if values.shape != instance.shape:
            text = f"{number} is {size_text(instance)} but {mask} is {size_text(values)}"
            return Read(np.full(values.shape, void, np.int32), [("sizes", text)])
        problems: list[tuple[str, str]] = []
        label = self._labels(mask, values, problems)
        count, divisor = len(self.classes.names), self.classes.label_divisor
        assert divisor is not None
        # One number for each pair, so that few pairs rather than many pixels are looked at.
        base = int(instance.max(initial=0)) + 1
        pair = label.astype(np.int64) * base + instance
        pairs, areas = values_of(pair)
        labels, instances = np.divmod(pairs, base)
        codes = np.full(len(pairs), void, np.int64)
        known = (labels < count) & (labels != self.classes.ignored)
        things = known & np.isin(labels, self.classes.things)
        codes[known] = labels[known] * divisor
        if self.filled:
            used = things & _owned(labels, instances, areas, things)
            instances = instances + 1
        else:
            used = things & (instances > 0)
            self._check_stuff(number, labels[known & ~things], instances[known & ~things], problems)
            if self.segments is not None:
                self._compare(stem, labels, instances, areas, problems)
        over = used & (instances >= divisor)
        if over.any():
            text = f"{number}: {listed(sorted({*instances[over].tolist()}))}"
            problems.append(("instances", f"{text}; the divisor is {divisor}"))
        codes[used] += instances[used]
        codes[over] = void
        return Read(recode(pair, pairs, codes.astype(np.int32)), problems)

    def _labels(self, mask: Path, values: np.ndarray, problems: list) -> np.ndarray:
        """Label values; what no class has becomes the one to ignore."""
        label = _to_labels(values.astype(np.int32), self.values)
        ignored = self.classes.ignored
        assert ignored is not None  # `Classes.panoptic` saw to it
        wrong = (label < 0) | ((label >= len(self.classes.names)) & (label != ignored))
        if wrong.any():
            problems.append(("values", f"{mask}: {listed(np.unique(values[wrong]).tolist())}"))
            label = np.where(wrong, ignored, label)
        return label

    def _check_stuff(self, path: Path, labels, instances, problems: list) -> None:
        """One number on all of a class's pixels does no harm; several look like instances."""
        for label in np.unique(labels).tolist():
            found = {*instances[labels == label].tolist()} - {0}
            if len(found) > 1:
                text = f"{path}: {self.classes.names[label]} has {len(found)}"
                problems.append(("stuff", text))

    def _compare(self, stem: str, labels, instances, areas, problems: list) -> None:
        """What segments.json says of the picture against what there is."""
        assert self.segments is not None
        said = self.segments.get(stem)
        if said is None:
            return  # listed as "no entry"
        path, there = self.numbers[stem], {*instances.tolist()} - {0}
        unlisted, missing = sorted(there - said.keys()), sorted(said.keys() - there)
        if unlisted:
            problems.append(("unlisted segments", f"{path}: {listed(unlisted)}"))
        if missing:
            problems.append(("missing segments", f"{path}: {listed(missing)}"))
        ids = self.classes.category_ids or range(len(self.classes.names))
        for number in sorted(there & said.keys()):
            mine = instances == number
            label = int(labels[mine][areas[mine].argmax()])
            if label >= len(ids) or ids[label] != said[number]:
                name = self.classes.names[label] if label < len(ids) else "ignored"
                text = f"{path}: segment {number} lies on {name}, not on category {said[number]}"
                problems.append(("segment class", text))


def _owned(labels, instances, areas, things) -> np.ndarray:
    """Which pairs of class and number are instances where stuff holds its class as number.

    The two PNGs come from two sources whose borders differ, so that an instance's number also lies
    on some pixels of other classes, and some pixels of a thing have no instance but their class.
    Those pixels are a crowd: they belong to the class and to none of its instances.
    """
    proper = things & (instances != labels)
    # Numbers run from 0 without gaps, so a higher one that equals the class is the class.
    bound = int(instances[proper].max(initial=-1)) + 1
    owned = np.zeros(len(labels), bool)
    candidates = np.flatnonzero(things & (instances <= bound))
    for number in np.unique(instances[candidates]):
        mine = candidates[instances[candidates] == number]
        owned[mine[areas[mine].argmax()]] = True
    return owned
