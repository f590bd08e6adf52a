"""Folders of pictures whose instances are told apart, in the layouts that such data come in.

Own pictures, one PNG of classes and one of instance numbers each:
    my_set/images/ID.jpg
    my_set/semantic/ID.png     classes (or masks/, labels/, annotations/)
    my_set/instances/ID.png    number of the instance, 8 or 16 bits, 0 for none
    my_set/classes.csv         index,name,thing[,red,green,blue]; thing is 1 or 0
    my_set/segments.json       instead of it: `categories` (id, name), whose ids `semantic` holds

COCO:
    my_set/images/ID.jpg       or, as published, train2017/, val2017/
    my_set/panoptic/ID.png     segment ids as colours
    my_set/panoptic.json       or annotations/panoptic_train2017.json beside folders of its name

Cityscapes:
    my_set/leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png
    my_set/gtFine/SPLIT/CITY/ID_gtFine_instanceIds.png
    my_set/gtFine/cityscapes_panoptic_SPLIT.json     taken first, with the folder of its name

Splits are those of train.txt, val.txt and test.txt, else the published ones, else every tenth
picture is for validation.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeplab_tf.datasets.classes import (
    CITYSCAPES_PANOPTIC,
    COCO_PANOPTIC,
    Classes,
    find_classes,
    read_classes,
)
from deeplab_tf.datasets.findings import KINDS, TOLERATED, listed
from deeplab_tf.datasets.folder import (
    MASK_FOLDERS,
    SPLITS,
    Listing,
    class_file,
    picture_files,
    read_indices,
    split_listing,
)
from deeplab_tf.datasets.masks import VALUES, MaskError, read_mask
from deeplab_tf.datasets.parallel import WORKERS
from deeplab_tf.datasets.source import Item
from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json
from deeplab_tf.panoptic_format import (
    Annotation,
    Category,
    Coding,
    decode_ids,
    entry_image,
    from_instance_ids,
    most_instances,
    read_annotations,
    read_ids,
    recode,
    to_panoptic,
    values_of,
)
from deeplab_tf.pictures import open_image, voc_colors

INSTANCES = "instances"
# Without another one that the data ask for.
_DIVISOR = 256
_DIVISORS = (256, 1000, *(2**bits for bits in range(12, 25, 2)))
# Label PNGs looked at to find out how instances are numbered.
_SAMPLES = 5
_PICTURES, _LABELS = "_leftImg8bit", "_gtFine_instanceIds"
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


def is_panoptic(root: str | os.PathLike, annotations: str | os.PathLike | None = None) -> bool:
    """Whether a folder has one of this module's layouts.

    A folder of instance numbers whose class file marks no thing is one of plain masks.
    """
    root = Path(root)
    if annotations is not None or (root / "gtFine").is_dir():
        return True
    if (root / "panoptic").is_dir() or _json_files(root):
        return True
    if not (root / INSTANCES).is_dir():
        return False
    path = class_file(root)
    return path is None or (root / "segments.json").exists() or _has_things(path)


def _has_things(path: Path) -> bool:
    try:
        return bool(read_classes(path).things)
    except InputError:
        return False


def list_panoptic(
    root: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
) -> PanopticFolder:
    """Lists a folder of one of this module's layouts; see `scan_panoptic` for the arguments.

    Raises:
        InputError: the folder lacks something without which nothing can be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder.")
    files = [(None, Path(annotations))] if annotations is not None else _json_files(root)
    if files:
        return _list_coded(root, files, classes, label_divisor)
    if (root / "gtFine").is_dir():
        return _list_cityscapes(root, classes, label_divisor)
    if (root / "panoptic").is_dir():
        raise InputError(
            f"{root}: panoptic/ has PNGs, but there is no panoptic.json beside it, which says what "
            "their segments are. Add it, or name the file with --annotations."
        )
    return _list_instances(root, classes, label_divisor)


def scan_panoptic(
    root: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
    seed: int = 0,
) -> PanopticSet:
    """Finds pictures, labels, classes and splits of a folder.

    Args:
        root: laid out as this module's first lines say.
        classes: a class file elsewhere, or the name of a known list; None takes the folder's own.
        annotations: a panoptic JSON file elsewhere.
        label_divisor: of the labels; None takes one that the instances of every picture fit in.
        seed: of the split, where there are no index files.

    Raises:
        InputError: something is missing or doesn't fit together.
    """
    folder = list_panoptic(
        root, classes=classes, annotations=annotations, label_divisor=label_divisor
    )
    listing = folder.listing
    if listing.doubles:
        raise InputError(
            f"{listing.doubles[0]}: another file has the same name but for its suffix; keep one."
        )
    if not listing.indices:
        for kind, message in folder.problems:
            if kind not in TOLERATED:
                what, fix = KINDS[kind]
                raise InputError(f"{message}: {what}. {fix}")
    name = listing.root.resolve().name
    return PanopticSet(name, folder, split_listing(listing, seed), f"the folder {name}")


def _with_divisor(classes: Classes, highest: int, given: int | None) -> Classes:
    """The classes with a label_divisor above `highest`, the highest instance number."""
    if given is not None:
        return classes.panoptic(given)
    wanted = (classes.label_divisor or _DIVISOR, *_DIVISORS)
    return classes.panoptic(next((divisor for divisor in wanted if divisor > highest), highest + 1))


# --- a PNG of classes and one of instance numbers -------------------------------------------------


def _list_instances(root: Path, classes, label_divisor: int | None) -> PanopticFolder:
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
    found = _with_divisor(found, highest, label_divisor)
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


def _read_values(path: Path, classes: Classes | None = None) -> np.ndarray:
    """Values of a mask: of one channel, or by colour where `classes` have colours."""
    return read_mask(path, classes or _PLAIN, binary=False)


def _read_numbers(path: Path) -> np.ndarray:
    """Instance numbers of a PNG of one channel, or of RGB as COCO writes ids."""
    image = open_image(path)
    if image.mode in ("RGB", "RGBA"):
        return decode_ids(np.asarray(image))
    return _read_values(path)


def _is_filled(paths: Sequence[tuple[Path, Path]], classes: Classes, values) -> bool:
    """Whether stuff holds its class in the PNG of instances, as some tools write it.

    Then 0 is no mark of "none" there but the number of an instance.
    """
    same = other = 0
    for mask, number in paths:
        try:
            label, instance = _read_values(mask, classes), _read_numbers(number)
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
            return int(_read_numbers(path).max(initial=0))
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
        values, instance = _read_values(mask, self.classes), _read_numbers(number)
        void = self.classes.void
        if values.shape != instance.shape:
            text = f"{number} is {_size(instance)} but {mask} is {_size(values)}"
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


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


# --- PNGs of segment ids and a JSON file ----------------------------------------------------------


def _json_files(root: Path) -> list[tuple[str | None, Path]]:
    """Panoptic JSON files by split: those with a folder of their name, or panoptic.json."""
    plain = root / "panoptic.json"
    if plain.exists():
        return [(None, plain)]
    found = [
        path
        for place in (root, root / "annotations", root / "gtFine")
        for path in sorted(place.glob("*panoptic_*.json"))
        if path.with_suffix("").is_dir()
    ]
    if len(found) < 2:
        return [(None, path) for path in found]
    # Of two of one split the last one is taken: Cityscapes' "_trainId" has the classes to train.
    by_split = {
        split: path
        for path in found
        for split in SPLITS
        if path.stem.partition("panoptic_")[2].startswith(split)
    }
    if not by_split:
        raise InputError(
            f"{root}: several panoptic JSON files, the first: {found[0]}; their names say no split "
            f"({', '.join(SPLITS)}). Name one with --annotations."
        )
    return [*by_split.items()]


def _png_folder(root: Path, path: Path) -> Path:
    """Where the PNGs of a JSON file are."""
    beside = path.with_suffix("")
    found = next((place for place in (beside, root / "panoptic") if place.is_dir()), None)
    if found is None:
        raise InputError(f"{path}: no folder {beside} of panoptic PNGs beside it, which it names.")
    return found


def _list_coded(root: Path, files, classes, label_divisor: int | None) -> PanopticFolder:
    images, doubles = _pictures(root)
    problems: list[tuple[str, str]] = []
    entries: dict[str, Annotation] = {}
    masks: dict[str, Path] = {}
    json_of: dict[str, Path] = {}
    indices: dict[str, list[str]] = {}
    categories: tuple[Category, ...] = ()
    absent = 0
    for split, path in files:
        annotations = read_annotations(path)
        if not annotations.categories:
            raise InputError(f"{path}: no `categories`, which say what its category ids mean.")
        if categories and categories != annotations.categories:
            raise InputError(f"{path}: its categories aren't those of {files[0][1]}.")
        categories, place = annotations.categories, _png_folder(root, path)
        there = {png.name: png for png in sorted(place.glob("*.png"))}
        for entry in annotations.entries:
            png, stem = there.pop(entry.file_name, None), _short(entry_image(entry))
            if stem in entries:
                problems.append(("listed twice", f"{path}: {stem}"))
            elif png is not None:
                masks[stem], entries[stem], json_of[stem] = png, entry, path
                if split is not None and stem in images:
                    indices.setdefault(split, []).append(stem)
            elif stem in images:
                problems.append(("no png", f"{path}: {entry.file_name}"))
            else:
                absent += 1
        problems += [("no entry", str(png)) for png in there.values()]
    found, coding_ids = _category_classes(categories, classes)
    things = {coding_ids[label] for label in found.things}
    highest = max((most_instances(entry, things) for entry in entries.values()), default=0)
    found = _with_divisor(found, highest, label_divisor)
    assert found.label_divisor is not None and found.ignored is not None
    coding = Coding(coding_ids, found.things, found.label_divisor, found.ignored)
    given = read_indices(root) or {split: tuple(ids) for split, ids in indices.items()}
    notes = [f"{absent} entries have neither picture nor PNG here"] if absent else []
    reader = _CodedReader(found, coding, masks, entries)
    return PanopticFolder(
        Listing(root, images, masks, doubles, given),
        found,
        reader.read,
        lambda stem: (json_of[stem],),
        problems,
        notes,
    )


def _short(stem: str) -> str:
    """ID of a Cityscapes file without what kind of file it is; other names as they are."""
    return stem.removesuffix(_PICTURES).removesuffix("_gtFine_panoptic")


def _pictures(root: Path) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """ID -> picture, wherever a layout keeps them; and files of an ID that was there before."""
    plain = root / "images"
    places = [plain] if plain.is_dir() else [root / f"{split}2017" for split in SPLITS]
    if (root / "leftImg8bit").is_dir():
        places = sorted(path for path in (root / "leftImg8bit").glob("*/*") if path.is_dir())
    images: dict[str, Path] = {}
    doubles: list[Path] = []
    for place in places:
        found, more = picture_files(place)
        doubles += more
        for stem, path in found.items():
            if _short(stem) in images:
                doubles.append(path)
            images.setdefault(_short(stem), path)
    if not images:
        raise InputError(f"{plain}: no pictures in there; put them there, as JPEG or PNG.")
    return images, tuple(doubles)


def _category_classes(categories: tuple[Category, ...], given) -> tuple[Classes, tuple[int, ...]]:
    """Classes of a JSON file's categories, and the category id by label value."""
    ordered = sorted(categories, key=lambda category: category.id)
    ids, names = tuple(c.id for c in ordered), tuple(c.name for c in ordered)
    if given is not None:
        found = find_classes(given)
        by_name = dict(zip(names, ids, strict=True))
        lacking = [name for name in names if name not in found.names]
        if lacking:
            raise InputError(
                f"{given}: {len(lacking)} categories of the JSON file are no class there, the "
                f"first: {lacking[0]!r}. Leave --classes out to take the file's own."
            )
        # Ids from -1 down stand for classes that the file doesn't have.
        coded = tuple(by_name.get(name, -1 - label) for label, name in enumerate(found.names))
        flags = tuple(found.names.index(c.name) for c in ordered if c.is_thing)
        found = dataclasses.replace(found, things=found.things or tuple(sorted(flags)))
        return found, coded
    for known in (COCO_PANOPTIC, CITYSCAPES_PANOPTIC):
        first = 1 if known.ignored == 0 else 0
        if names == known.names[first:]:
            coded = (0, *ids) if first else ids
            return dataclasses.replace(known, category_ids=coded), coded
    colors = voc_colors(len(ordered))
    found = Classes(
        names=names,
        colors=tuple(c.color or color for c, color in zip(ordered, colors, strict=True)),
        ignore_label=255 if len(ordered) <= 255 else 65535,
        things=tuple(label for label, c in enumerate(ordered) if c.is_thing),
        category_ids=ids,
    )
    return found, ids


@dataclasses.dataclass(frozen=True)
class _CodedReader:
    """Reads PNGs of segment ids by their entries in a JSON file."""

    classes: Classes
    coding: Coding
    masks: dict[str, Path]
    entries: dict[str, Annotation]

    def read(self, stem: str) -> Read:
        path, entry = self.masks[stem], self.entries[stem]
        ids = read_ids(path)
        found = to_panoptic(ids, entry.segments, self.coding)
        problems = []
        for kind, values in (
            ("unlisted segments", found.unknown),
            ("missing segments", found.missing),
        ):
            if values:
                problems.append((kind, f"{path}: {listed(values)}"))
        for kind, labels in (("stuff segments", found.split), ("instances", found.crowded)):
            if labels:
                names = listed([self.classes.names[label] for label in labels])
                text = (
                    f"; the divisor is {self.coding.label_divisor}" if kind == "instances" else ""
                )
                problems.append((kind, f"{path}: {names}{text}"))
        if entry.size is not None and entry.size != ids.shape:
            height, width = entry.size
            problems.append(("entry size", f"{path} is {_size(ids)}, not {width} x {height}"))
        return Read(found.panoptic, problems)


# --- Cityscapes' PNGs of instance ids -------------------------------------------------------------


def _list_cityscapes(root: Path, classes, label_divisor: int | None) -> PanopticFolder:
    if classes is not None and find_classes(classes) != CITYSCAPES_PANOPTIC:
        raise InputError(f"{root}: the classes of Cityscapes are known; leave --classes out.")
    images, doubles = _pictures(root)
    masks: dict[str, Path] = {}
    indices: dict[str, list[str]] = {}
    for path in sorted((root / "gtFine").glob(f"*/*/*{_LABELS}.png")):
        stem, split = path.stem.removesuffix(_LABELS), path.parent.parent.name
        masks[stem] = path
        # The published test labels are empty.
        if split in ("train", "val") and stem in images:
            indices.setdefault(split, []).append(stem)
    if not masks:
        raise InputError(
            f"{root / 'gtFine'}: no SPLIT/CITY/ID{_LABELS}.png in there, and no "
            "cityscapes_panoptic_SPLIT.json with its folder. Unpack gtFine_trainvaltest.zip there."
        )
    problems = [
        ("no mask", str(path))
        for stem, path in images.items()
        if stem not in masks and "/test/" not in path.as_posix()
    ]
    problems += [("no picture", str(path)) for stem, path in masks.items() if stem not in images]
    given = read_indices(root) or {split: tuple(ids) for split, ids in indices.items()}
    found = _with_divisor(CITYSCAPES_PANOPTIC, 999, label_divisor)
    divisor = found.label_divisor
    assert divisor is not None
    if divisor < 1000:
        raise InputError(
            f"Cityscapes numbers up to 999 instances: label_divisor {divisor} is less."
        )

    def _over(value: int) -> bool:
        return value >= 1000 and value % 1000 + 1 >= divisor

    def read(stem: str) -> Read:
        ids = _read_numbers(masks[stem])
        strange = [
            value for value in values_of(ids)[0].tolist() if value // 1000 > 33 or _over(value)
        ]
        if strange:
            return Read(
                np.full(ids.shape, found.void, np.int32),
                [("unlisted segments", f"{masks[stem]}: {listed(strange)}")],
            )
        return Read(from_instance_ids(ids, label_divisor=divisor), [])

    return PanopticFolder(
        Listing(root, images, masks, doubles, given), found, read, problems=problems
    )
