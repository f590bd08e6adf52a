"""Panoptic PNG and JSON files of COCO and Cityscapes, read and written: NumPy and Pillow only.

A PNG holds a segment id in each pixel, R + 256 G + 65536 B, 0 for nothing. The JSON file says of
each picture which category each of its segments has. In memory a panoptic map is int32 [H, W]:
class * label_divisor + instance, instances from 1 on; instance 0 of a thing is a crowd, and void is
ignore_label * label_divisor.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from deeplab_tf.class_lists import CITYSCAPES_THINGS
from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file, read_json
from deeplab_tf.pictures import Colors, open_image, save_image, voc_colors

# labelId of each of Cityscapes' 19 classes; all others are ignored.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# A segment id of Cityscapes is labelId * 1000 + instance, or labelId alone.
CITYSCAPES_DIVISOR = 1000
_LARGEST_ID = 256**3 - 1
# Up to here, counting and looking up by the value itself beat sorting the pixels.
_TABLE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Category:
    """A class as a JSON file describes it; `color` is RGB, None if it gives none."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int] | None = None


class Segment(NamedTuple):
    """A segment of a picture; `box` is (x, y, width, height)."""

    id: int
    category_id: int
    area: int | None = None
    box: tuple[int, int, int, int] | None = None
    is_crowd: bool = False


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The segments of one picture.

    Attributes:
        image_id: of the picture.
        file_name: of its panoptic PNG.
        segments: in the order of the file.
        image: file name of the picture, empty if the file names none.
        size: (height, width) of the picture as the file gives it.
    """

    image_id: int | str
    file_name: str
    segments: tuple[Segment, ...]
    image: str = ""
    size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a panoptic JSON file holds; one of predictions may have no categories."""

    categories: tuple[Category, ...]
    entries: tuple[Annotation, ...]


@dataclasses.dataclass(frozen=True)
class Coding:
    """How label values and the ids of a data set's files belong together.

    Attributes:
        category_ids: by label value.
        thing_classes: label values of things.
        label_divisor: of panoptic maps.
        ignore_label: label value of void.
    """

    category_ids: tuple[int, ...]
    thing_classes: tuple[int, ...]
    label_divisor: int
    ignore_label: int

    @property
    def void(self) -> int:
        """The panoptic value of void."""
        return self.ignore_label * self.label_divisor

    @property
    def labels(self) -> dict[int, int]:
        """Category id -> label value, without the class to ignore."""
        ids = enumerate(self.category_ids)
        return {category: label for label, category in ids if label != self.ignore_label}


class Decoded(NamedTuple):
    """A panoptic map, and what the PNG and its JSON entry say differently.

    Attributes:
        panoptic: int32 [H, W].
        unknown: ids in the PNG that the entry doesn't list, or whose category is none; void.
        missing: ids of the entry that the PNG lacks.
        split: label values of stuff that has several segments, here one.
        crowded: label values of things with more instances than the divisor allows; void.
    """

    panoptic: np.ndarray
    unknown: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    split: tuple[int, ...] = ()
    crowded: tuple[int, ...] = ()


def encode_ids(ids: np.ndarray) -> np.ndarray:
    """Segment ids 0..2^24 - 1 [H, W] -> uint8 RGB [H, W, 3]."""
    if ids.size and not 0 <= ids.min() <= ids.max() <= _LARGEST_ID:
        raise ValueError(f"segment ids lie in 0..{_LARGEST_ID}; got {ids.min()}..{ids.max()}.")
    return np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)[..., :3].copy()


def decode_ids(pixels: np.ndarray) -> np.ndarray:
    """RGB [H, W, 3] -> segment ids, int32 [H, W]."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red + (green << 8) + (blue << 16)


def read_ids(path: str | os.PathLike) -> np.ndarray:
    """Segment ids of a panoptic PNG, int32 [H, W].

    Raises:
        InputError: it can't be read, or isn't an 8-bit RGB picture.
    """
    image = open_image(path)
    if image.mode not in ("RGB", "RGBA"):
        raise InputError(
            f"{path}: a panoptic PNG is RGB (id = R + 256 G + 65536 B); this one is {image.mode}."
        )
    # Four bytes at a time: a third of the time of adding up three channels.
    whole = np.asarray(image.convert("RGBA")).view("<u4")[..., 0]
    return (whole & _LARGEST_ID).astype(np.int32)


def values_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur in a map, in order, and the pixels of each: both [N], int64."""
    if not labels.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if labels.min() >= 0 and labels.max() < _TABLE:
        counts = np.bincount(labels.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    found, lengths = _stretches(labels)
    values, place = np.unique(found, return_inverse=True)
    return values.astype(np.int64), np.bincount(place, lengths).astype(np.int64)


def _stretches(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of a map that isn't empty, as long as they repeat in raster order, and how often.

    There are far fewer of them than pixels: what sorts or looks up sees these.
    """
    flat = labels.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(starts, append=flat.size)


def recode(labels: np.ndarray, values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Puts `codes[i]` where a map holds `values[i]`.

    Args:
        labels: [H, W], of no other values.
        values: in order, as `values_of` gives them.
        codes: [N, ...].

    Returns:
        [H, W, ...] of the type of `codes`.
    """
    codes = np.asarray(codes)
    if len(values) and values[0] >= 0 and values[-1] < _TABLE:
        table = np.zeros((int(values[-1]) + 1, *codes.shape[1:]), codes.dtype)
        table[values] = codes
        return table[labels]
    if not labels.size:
        return np.zeros((*labels.shape, *codes.shape[1:]), codes.dtype)
    found, lengths = _stretches(labels)
    spread = np.repeat(codes[np.searchsorted(values, found)], lengths, axis=0)
    return spread.reshape(*labels.shape, *codes.shape[1:])


def boxes_of(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The box of each value, int64 [N, 4] as x, y, width, height. All of `values` occur."""
    places = recode(labels, values, np.arange(len(values)))
    height, width = labels.shape
    rows, columns = np.zeros((len(values), height), bool), np.zeros((len(values), width), bool)
    rows[places, np.arange(height)[:, None]] = True
    columns[places, np.arange(width)[None, :]] = True
    top, left = rows.argmax(1), columns.argmax(1)
    bottom, right = height - rows[:, ::-1].argmax(1), width - columns[:, ::-1].argmax(1)
    return np.stack([left, top, right - left, bottom - top], 1)


def read_annotations(path: str | os.PathLike) -> Annotations:
    """Reads a panoptic JSON file of annotations or predictions.

    Raises:
        InputError: it is missing, no JSON, or lacks what it needs; it names the entry.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("annotations"), list):
        raise InputError(
            f"{path}: no panoptic annotations; it needs a list `annotations` whose entries have "
            "`file_name` and `segments_info`."
        )
    images: dict[Any, dict] = {}
    what = "images"
    try:
        for image in value.get("images") or ():
            images[image["id"]] = image
        what = "categories"
        categories = tuple(map(_category, value.get("categories") or ()))
        if len({category.id for category in categories}) < len(categories):
            raise ValueError("an id is there twice")
        entries = []
        for number, entry in enumerate(value["annotations"]):
            what = f"annotations, entry {number}"
            entries.append(_annotation(entry, images))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: {what}: {reason}.") from None
    return Annotations(categories, tuple(entries))


def _category(value: dict) -> Category:
    color = value.get("color")
    return Category(
        id=int(value["id"]),
        name=str(value["name"]),
        is_thing=bool(value.get("isthing", True)),
        color=None if color is None else (int(color[0]), int(color[1]), int(color[2])),
    )


def _annotation(entry: dict, images: Mapping[Any, dict]) -> Annotation:
    segments = entry["segments_info"]
    image = images.get(entry.get("image_id"), {})
    size = (int(image["height"]), int(image["width"])) if "height" in image else None
    found = tuple(map(_segment, segments))
    ids = {segment.id for segment in found}
    if len(ids) < len(found) or 0 in ids:
        raise ValueError("a segment id is 0 or there twice")
    name = str(entry["file_name"])
    image_id = entry.get("image_id", Path(name).stem)
    return Annotation(image_id, name, found, str(image.get("file_name", "")), size)


def _segment(value: dict) -> Segment:
    area, box = value.get("area"), value.get("bbox")
    return Segment(
        id=int(value["id"]),
        category_id=int(value["category_id"]),
        area=None if area is None else int(area),
        box=None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3])),
        is_crowd=bool(value.get("iscrowd", 0)),
    )


def most_instances(annotation: Annotation, things: Collection[int]) -> int:
    """Instances of the category that has most of them in a picture.

    Args:
        annotation: of the picture.
        things: category ids that count.
    """
    counts: dict[int, int] = {}
    for segment in annotation.segments:
        if segment.category_id in things and not segment.is_crowd:
            counts[segment.category_id] = counts.get(segment.category_id, 0) + 1
    return max(counts.values(), default=0)


def to_panoptic(ids: np.ndarray, segments: Sequence[Segment], coding: Coding) -> Decoded:
    """The panoptic map of a picture's segment ids.

    Instances are numbered from 1 within their class, in the order of `segments`.

    Args:
        ids: int32 [H, W].
        segments: of the picture.
        coding: of the map.
    """
    labels, things = coding.labels, {*coding.thing_classes}
    values, _ = values_of(ids)
    numbers: dict[int, int] = {}
    codes, split, crowded = {0: coding.void}, [], []
    for segment in segments:
        label = labels.get(segment.category_id)
        if label is None:
            continue
        instance = 0
        if label not in things or not segment.is_crowd:
            instance = numbers[label] = numbers.get(label, 0) + 1
        if label not in things:
            split += [label] if instance == 2 else []
            instance = 0
        elif instance >= coding.label_divisor:
            crowded += [label] if instance == coding.label_divisor else []
            codes[segment.id] = coding.void
            continue
        codes[segment.id] = label * coding.label_divisor + instance
    unknown = [int(value) for value in values if int(value) not in codes]
    there = {*values.tolist()}
    missing = [segment.id for segment in segments if segment.id not in there]
    table = np.array([codes.get(int(value), coding.void) for value in values], np.int32)
    panoptic = recode(ids, values, table)
    return Decoded(panoptic, tuple(unknown), tuple(missing), tuple(split), tuple(crowded))


def from_instance_ids(
    ids: np.ndarray, *, label_divisor: int = CITYSCAPES_DIVISOR, ignore_label: int = 255
) -> np.ndarray:
    """Cityscapes' `*_instanceIds.png` -> panoptic map of the 19 training classes.

    Cityscapes numbers instances from 0; here they start at 1. A group that wasn't taken apart has
    the label id alone and becomes a crowd.

    Args:
        ids: labelId * 1000 + instance, or labelId, [H, W].
        label_divisor: of the map, at least 1000.
        ignore_label: of all other label ids.
    """
    if label_divisor < CITYSCAPES_DIVISOR:
        raise ValueError(f"label_divisor is at least {CITYSCAPES_DIVISOR}; got {label_divisor}.")
    values, _ = values_of(ids)
    train = {label_id: label for label, label_id in enumerate(CITYSCAPES_IDS)}
    codes = []
    for value in values.tolist():
        whole = value < CITYSCAPES_DIVISOR
        label = train.get(value if whole else value // CITYSCAPES_DIVISOR, ignore_label)
        counts = not whole and label in CITYSCAPES_THINGS
        instance = value % CITYSCAPES_DIVISOR + 1 if counts else 0
        codes.append(label * label_divisor + instance)
    return recode(ids, values, np.array(codes, np.int32))


class PanopticWriter:
    """Writes panoptic maps as PNGs and one JSON file, picture by picture.

    A context manager: the JSON file gets its name once the block succeeds, so that it never lists
    what isn't there. It goes to the disk as it grows.

    Args:
        folder: of the PNGs.
        coding: of the maps.
        names: of the classes by label value; None writes no categories.
        colors: of the classes; segments get colours near theirs.
        json_path: None takes the folder's name with `.json`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        coding: Coding,
        *,
        names: Sequence[str] | None = None,
        colors: Colors | None = None,
        json_path: str | os.PathLike | None = None,
    ):
        self.folder = Path(folder)
        # Not `with_suffix`: a folder may be called "run.2".
        beside = self.folder.parent / f"{self.folder.name}.json"
        self.json_path = beside if json_path is None else Path(json_path)
        self._coding, self._names = coding, names
        self._colors = colors or voc_colors(len(coding.category_ids))
        self._stack = contextlib.ExitStack()
        self._write: Callable[[str], Any] | None = None
        self._images: list[dict] = []

    def __enter__(self) -> "PanopticWriter":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_file(self.json_path, suffix=".json"))
            file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
            self._write = file.write
            self._write('{"annotations": [')
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> bool | None:
        if kind is None:
            assert self._write is not None
            self._write("\n],\n" + f'"images": {json.dumps(self._images)},\n')
            self._write(f'"categories": {json.dumps(self._categories())}' + "}\n")
        self._write = None
        return self._stack.__exit__(kind, error, trace)

    def _categories(self) -> list[dict]:
        coding = self._coding
        return [
            {
                "id": coding.category_ids[label],
                "name": name,
                "isthing": int(label in coding.thing_classes),
                "color": [*map(int, self._colors[label])],
            }
            for label, name in enumerate(self._names or ())
            if label != coding.ignore_label
        ]

    def add(
        self,
        name: str,
        panoptic: np.ndarray,
        *,
        image_id: int | str | None = None,
        image: str = "",
        scores: Mapping[int, float] | None = None,
    ) -> None:
        """Writes one picture.

        Args:
            name: of the PNG, without its suffix.
            panoptic: [H, W]. A thing with instance 0 is written as a crowd.
            image_id: None takes the name.
            image: file name of the picture; empty takes `name.jpg`.
            scores: panoptic value -> score, kept with the segments that have one.

        Raises:
            InputError: the place can't be written.
            ValueError: a value of no class, or a name that leads out of the folder.
        """
        if self._write is None:
            raise ValueError("a PanopticWriter is used in a `with` block.")
        if Path(name).name != name:
            raise ValueError(f"a name has no folder; got {name!r}.")
        coding = self._coding
        values, areas = values_of(panoptic)
        classes, instances = np.divmod(values, coding.label_divisor)
        counted = (classes != coding.ignore_label) & (areas > 0)
        outside = counted & ((classes < 0) | (classes >= len(coding.category_ids)))
        if outside.any():
            raise ValueError(f"panoptic values of no class: {values[outside][:8].tolist()}.")
        ids = self._segment_ids(classes, counted)
        boxes = boxes_of(panoptic, values) if len(values) else ()
        pixels = encode_ids(recode(panoptic, values, ids))
        save_image(self.folder / f"{name}.png", pixels)
        segments = []
        for place in np.flatnonzero(counted).tolist():
            label = int(classes[place])
            segment = {
                "id": int(ids[place]),
                "category_id": coding.category_ids[label],
                "area": int(areas[place]),
                "bbox": boxes[place].tolist(),
                "iscrowd": int(label in coding.thing_classes and instances[place] == 0),
            }
            if scores is not None and int(values[place]) in scores:
                segment["score"] = float(scores[int(values[place])])
            segments.append(segment)
        identity = name if image_id is None else image_id
        entry = {"image_id": identity, "file_name": f"{name}.png", "segments_info": segments}
        self._write((",\n" if self._images else "\n") + json.dumps(entry))
        height, width = panoptic.shape
        file_name = image or f"{name}.jpg"
        self._images.append(
            {"id": identity, "file_name": file_name, "height": height, "width": width}
        )

    def _segment_ids(self, classes: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """An id for each segment, 0 for void: its colour, read as a number, is near its class's."""
        ids, used = np.zeros(len(classes), np.int32), {0}
        numbers: dict[int, int] = {}
        for place in np.flatnonzero(counted).tolist():
            label = int(classes[place])
            found = 0
            while found in used:
                number = numbers[label] = numbers.get(label, -1) + 1
                found = _near(self._colors[label], number)
            used.add(found)
            ids[place] = found
        return ids


def _near(color: Sequence[int], number: int) -> int:
    """The colour of a class's segment of that number, as an id: one for each of thousands."""
    steps = number % 7, number // 7 % 7, number // 49
    if steps[2] >= 256:  # thousands of segments: any colour
        return number % (_LARGEST_ID + 1)
    # Odd steps in the circle of 256 meet no colour twice.
    shifted = [(channel + 9 * step) % 256 for channel, step in zip(color, steps, strict=True)]
    return int(decode_ids(np.array(shifted)))


def entry_image(annotation: Annotation) -> str:
    """Name of the picture of an entry, without its suffix: the JSON's, or that of the PNG."""
    return Path(annotation.image or annotation.file_name).stem


def measured(ids: np.ndarray) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Segment id -> its area and its box, of all ids but 0."""
    values, areas = values_of(ids)
    boxes = boxes_of(ids, values) if len(values) else ()
    return {
        int(value): (int(area), tuple(int(side) for side in box))
        for value, area, box in zip(values, areas, boxes, strict=True)
        if value
    }


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) by a picture's header alone."""
    with Image.open(path) as image:
        return image.height, image.width
