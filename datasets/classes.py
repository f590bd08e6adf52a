"""What the values and colours of masks mean: class files, and the lists of known data sets."""

import csv
import dataclasses
import os
from pathlib import Path

from deeplab_tf import class_lists
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import voc_colors

Color = tuple[int, int, int]
# A class's value in the masks, its name, and its colour if it has one.
_Row = tuple[int, str, Color | None]

FILE_NAMES = ("classes.csv", "classes.txt")
_IGNORED_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled")
_WANTED = "index,name[,thing][,red,green,blue]"
_YES, _NO = ("1", "yes", "true", "thing"), ("", "0", "no", "false", "stuff")


@dataclasses.dataclass(frozen=True)
class Classes:
    """What the values and colours of a mask mean.

    Attributes:
        names: by label value.
        colors: RGB 0..255 by label value.
        ignore_label: value that doesn't count, where the class file names one.
        ignore_color: its colour.
        binary: masks hold 0 and 1, or 0 and 255 for the same two classes.
        colored: the class file gave colours, so masks may be painted in them.
        things: label values of the classes whose instances are told apart.
        label_divisor: labels are panoptic, class * label_divisor + instance; None: classes alone.
        category_ids: by label value, what the data set's own files call it; empty: the same.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignore_label: int | None = None
    ignore_color: Color | None = None
    binary: bool = False
    colored: bool = False
    things: tuple[int, ...] = ()
    label_divisor: int | None = None
    category_ids: tuple[int, ...] = ()

    def semantic(self) -> "Classes":
        """The same classes where no instances are told apart."""
        return dataclasses.replace(self, things=(), label_divisor=None)

    def panoptic(self, label_divisor: int) -> "Classes":
        """The same classes of labels with that divisor.

        Raises:
            InputError: none is a thing, or labels would outgrow 32 bits.
        """
        if not self.things:
            raise InputError(
                "no class is a thing: give the class file a column `thing`, 1 for each class whose "
                "instances are told apart."
            )
        if self.ignored is None:
            raise InputError("classes of black and white have no instances; list them as 0, 1, ….")
        highest = max(len(self.names), self.ignored + 1)
        largest = 2**31 // highest  # labels are int32
        if not 2 <= label_divisor <= largest:
            raise InputError(
                f"label_divisor lies in 2..{largest} for labels up to {highest - 1}; "
                f"got {label_divisor}."
            )
        return dataclasses.replace(self, label_divisor=label_divisor)

    @property
    def void(self) -> int:
        """The panoptic label that doesn't count."""
        assert self.label_divisor is not None and self.ignored is not None
        return self.ignored * self.label_divisor

    @property
    def ignored(self) -> int | None:
        """The value that doesn't count: the one named, or the highest; None in binary masks."""
        if self.ignore_label is not None or self.binary:
            return self.ignore_label
        return 255 if len(self.names) <= 255 else 65535


TWO_CLASSES = Classes(("background", "foreground"), ((0, 0, 0), (0, 153, 255)), binary=True)
PORTRAIT = dataclasses.replace(TWO_CLASSES, names=("background", "person"))
CAMVID = Classes(
    names=(
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
        *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    ),
    colors=(
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
        *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ),
    ignore_label=11,
    ignore_color=(0, 0, 0),
    colored=True,
)
VOC = Classes(
    names=class_lists.VOC_NAMES,
    colors=voc_colors(21),
    ignore_label=255,
    ignore_color=(224, 224, 192),
    colored=True,
)
CITYSCAPES_PANOPTIC = Classes(
    names=class_lists.CITYSCAPES_NAMES,
    colors=class_lists.CITYSCAPES_COLORS,
    ignore_label=255,
    things=class_lists.CITYSCAPES_THINGS,
    label_divisor=1000,
)
COCO_PANOPTIC = Classes(
    names=("void", *class_lists.COCO_NAMES),
    colors=((0, 0, 0), *class_lists.COCO_COLORS),
    ignore_label=0,
    things=class_lists.COCO_THINGS,
    label_divisor=256,
    category_ids=(0, *class_lists.COCO_IDS),
)
ADE20K_PANOPTIC = Classes(
    names=class_lists.ADE20K_NAMES,
    colors=voc_colors(len(class_lists.ADE20K_NAMES)),
    ignore_label=0,
    things=class_lists.ADE20K_THINGS,
    label_divisor=1000,
    # Of its panoptic JSON files, which count from 0.
    category_ids=(255, *range(150)),
)
# Its label values are category ids minus one.
COCO_STUFF = Classes(
    names=class_lists.COCO_STUFF_NAMES,
    # The first of these colours is black, for background.
    colors=voc_colors(1 + len(class_lists.COCO_STUFF_NAMES))[1:],
    ignore_label=255,
    things=tuple(range(91)),
    label_divisor=256,
    category_ids=tuple(range(1, 183)),
)
# Lists that can be named where a class file could be.
KNOWN = {
    "binary": TWO_CLASSES,
    "portrait": PORTRAIT,
    "camvid": CAMVID,
    "voc": VOC,
    "cityscapes_panoptic": CITYSCAPES_PANOPTIC,
    "coco_panoptic": COCO_PANOPTIC,
    "ade20k_panoptic": ADE20K_PANOPTIC,
    "coco_stuff": COCO_STUFF,
}


def find_classes(what: str | os.PathLike) -> Classes:
    """The classes of a known data set by its name, or of a class file.

    Raises:
        InputError: neither.
    """
    if str(what) in KNOWN:
        return KNOWN[str(what)]
    if not Path(what).is_file():
        raise InputError(
            f"{what}: no such class file; give one of {_WANTED}, or one of {', '.join(KNOWN)}."
        )
    return read_classes(what)


def read_classes(path: str | os.PathLike) -> Classes:
    """Reads a class file: `index,name[,thing][,red,green,blue]` with a header line, or one name a
    line.

    A class called void, ignore or unlabeled is none: its value is the ignore label. Where it
    comes first, as value 0, it keeps its place among the classes, so that values stay as they
    are. Indices 0 and 255 alone mean masks of black and white.

    Raises:
        InputError: it can't be read so, indices have gaps, a name or colour comes twice, or there
            are fewer than two classes.
    """
    path = Path(path)
    try:
        # "utf-8-sig": spreadsheets put a mark in front.
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: isn't UTF-8 text; save it as CSV or plain text.") from None
    first = lines[0].lower().replace(" ", "") if lines else ""
    delimiter = next((d for d in ",;\t" if first.startswith(f"index{d}name")), None)
    things: set[int] = set()
    if delimiter:
        rows, things = _read_table(path, lines, delimiter)
    elif "," in first or ";" in first or "\t" in first:
        raise InputError(f"{path}: the first line must be {_WANTED}; got {lines[0]!r}.")
    else:
        rows = [(index, line.strip(), None) for index, line in enumerate(lines)]
    return _to_classes(path, rows, things)


def _read_table(path: Path, lines: list[str], delimiter: str) -> tuple[list[_Row], set[int]]:
    """The rows, and the indices of things."""
    rows, things = [], set()
    lines = [lines[0].lower().replace(" ", ""), *lines[1:]]
    reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
    for number, row in enumerate(reader, start=2):
        try:
            name = (row["name"] or "").strip()
            if not name:
                raise ValueError("no name")
            color = None
            if (row.get("red") or "").strip():
                color = (int(row["red"]), int(row["green"]), int(row["blue"]))
                if not all(0 <= channel <= 255 for channel in color):
                    raise ValueError("a colour outside 0..255")
            index = int(row["index"])
            if not 0 <= index <= 65535:
                raise ValueError("an index outside 0..65535")
            thing = (row.get("thing") or "").strip().lower()
            if thing not in _YES + _NO:
                raise ValueError(f"the column thing holds 1 or 0, got {thing!r}")
            rows.append((index, name, color))
            things |= {index} if thing in _YES else set()
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: wanted {_WANTED} ({error}).") from None
    return rows, things


def _to_classes(path: Path, rows: list[_Row], things: set[int]) -> Classes:
    ignored = [row for row in rows if row[1].lower() in _IGNORED_NAMES]
    named = [row for row in rows if row not in ignored]
    if len(named) < 2 or len(ignored) > 1:
        raise InputError(
            f"{path}: needs two or more classes and at most one to ignore; got {len(named)} and "
            f"{len(ignored)}."
        )
    if ignored and ignored[0][0] == 0:
        named += ignored
    named.sort(key=lambda row: row[0])
    indices = [row[0] for row in named]
    binary = indices == [0, 255] and not ignored
    if not binary and indices != list(range(len(named))):
        raise InputError(
            f"{path}: class indices must be 0, 1, 2, … without gaps; got {_short(indices)}."
        )
    if ignored and ignored[0] not in named and ignored[0][0] in indices:
        raise InputError(
            f"{path}: {ignored[0][0]} is both {named[ignored[0][0]][1]} and {ignored[0][1]}."
        )
    for what, place in (("name", 1), ("colour", 2)):
        values = [row[place] for row in {*named, *ignored} if row[place] is not None]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise InputError(f"{path}: the {what} {twice} is there twice; each needs its own.")
    given = [row for row in named if row[2] is not None]
    if given and len(given) < len(named):
        plain = next(row for row in named if row[2] is None)
        raise InputError(f"{path}: {plain[1]} has no colour; give all classes one, or none.")
    defaults = voc_colors(len(named))
    return Classes(
        names=tuple(row[1] for row in named),
        colors=tuple(row[2] or defaults[place] for place, row in enumerate(named)),
        ignore_label=ignored[0][0] if ignored else None,
        ignore_color=ignored[0][2] if ignored else None,
        binary=binary,
        colored=bool(given),
        # The rows of masks of black and white are 0 and 255, their labels 0 and 1.
        things=tuple(
            place for place, row in enumerate(named) if row[0] in things and row not in ignored
        ),
    )


def _short(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:12]))
    return shown + (", …" if len(values) > 12 else "")
