"""What an audit found: a table of label values, and problems, each with its fix."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.masks import VALUES, one_class_text, values_fix, wrong_values

# Kind of problem -> (what it is, how to mend it).
KINDS = {
    "class file": ("the class file can't be used", "Correct it; then check again for the rest."),
    "index": ("names in an index file have no files", "Add the files, or take the names out."),
    "listed twice": (
        "pictures are listed twice",
        "Keep one line each: a picture of two splits makes scores look better than they are.",
    ),
    "same picture": (
        "splits share pictures of other names",
        "Take one of each out: a picture of two splits makes scores look better than they are.",
    ),
    "doubles": ("two files have one name but for the suffix", "Keep one of each."),
    "no mask": ("pictures have no mask", "Add masks, or list the pictures to use in train.txt."),
    "no picture": ("masks have no picture", "Add the pictures, or take the masks out."),
    "picture": (
        "pictures can't be read",
        "Copy or download them again, or save them anew as JPEG or PNG.",
    ),
    "mask": ("masks can't be read", "Copy or download them again, or save them anew as PNG."),
    "sizes": (
        "masks have another size than their picture",
        "Resize the masks with nearest neighbour, never with smoothing.",
    ),
    "values": ("masks hold values that no class has", ""),
    "colors": (
        "masks hold colours that no class has",
        "Add the colours to the class file as red,green,blue, or save masks as PNG unsmoothed.",
    ),
    "palette": (
        "palettes of masks contradict the class file",
        "Save these masks as RGB to go by colours, or as grey to go by indices.",
    ),
    "one class": ("training masks hold no two classes", ""),
    "empty class": (
        "classes never occur in the training masks",
        "Add pictures of them, or take them out of the class file and renumber the rest.",
    ),
    "description": ("the folder says nothing, or wrong things, of its records", ""),
    "shards": (
        "shards are missing or damaged",
        "Delete the damaged ones and run the same `deeplab-tf data build` again: it makes only "
        "what is missing.",
    ),
    "no instances": (
        "masks have no PNG of instance numbers",
        "Add them, or list the pictures to use in train.txt.",
    ),
    "no entry": (
        "panoptic PNGs have no entry in the JSON file",
        "Add their entries, or take the PNGs out; or list the pictures to use in train.txt.",
    ),
    "no png": (
        "entries of the JSON file have no PNG",
        "Add the PNGs, or take the pictures out; or list the pictures to use in train.txt.",
    ),
    "no segments": ("PNGs have no entry in segments.json", "Write that file anew."),
    "entry size": (
        "panoptic PNGs have another size than the JSON file says",
        "Resize them with nearest neighbour, or correct the file.",
    ),
    "unlisted segments": (
        "PNGs hold segments that the JSON file doesn't list or give a class",
        "Add them to the file, or paint them 0. Scaling with smoothing makes such values, too.",
    ),
    "missing segments": (
        "the JSON file lists segments that the PNGs don't hold",
        "Take them out of the file; if there are many, PNGs and file don't belong together.",
    ),
    "segment class": (
        "segments have one class in the PNG and another in the JSON file",
        "Correct either; if there are many, PNGs and file don't belong together.",
    ),
    "instances": (
        "instance numbers reach the divisor, so that they can't be told from classes",
        "Number instances from 1 in each picture, or give a larger --label-divisor.",
    ),
    "category": (
        "PNGs contradict the data set's list of categories",
        "Copy or download them again; smoothing and JPEG make such values, too.",
    ),
    "divisor": ("labels aren't class * divisor + instance", ""),
    "stuff": (
        "classes that are no things have several instances",
        "Mark them as things in the class file (column thing), or number their pixels 0.",
    ),
    "stuff segments": (
        "categories that are no things have several segments in a picture",
        "Mark them with isthing 1, or join their segments; here they are joined.",
    ),
    "no instance": (
        "things have pixels but never an instance",
        "Number their instances from 1 on, or don't mark them as things.",
    ),
    "record": ("records can't be decoded", "Build the records again from the pictures."),
    "no label": ("records have no label", "Build the records again from pictures and masks."),
}

# Problems that leave no doubt on what a label is, so that records are written all the same.
TOLERATED = ("no segments", "entry size", "missing segments", "segment class", "stuff segments")


@dataclasses.dataclass
class Problem:
    """One kind of problem, wherever it occurs.

    Attributes:
        kind: a key of `KINDS`.
        what: the kind in words.
        fix: how to mend it.
        places: a line for each place.
    """

    kind: str
    what: str
    fix: str
    places: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ValueRow:
    """One label value: how much there is of it.

    Attributes:
        value: as the masks hold it.
        meaning: its class, "(ignored)" or "(no class)".
        pixels: that have it.
        share: of all pixels.
        pictures: in which it occurs.
    """

    value: int
    meaning: str
    pixels: int
    share: float
    pictures: int


class Report:
    """Collects what an audit finds.

    Args:
        target: what is looked at.
        form: "folder" or "records".
        classes: what values mean, None if that couldn't be found out.
        splits: their names, in the order to show them.
    """

    def __init__(self, target: str, form: str, classes: Classes | None, splits: Iterable[str] = ()):
        self.target, self.form, self.classes = target, form, classes
        self.splits: Counter[str] = Counter(dict.fromkeys(splits, 0))
        self.notes: list[str] = []
        self._problems: dict[str, Problem] = {}
        self._pixels = np.zeros(VALUES, np.int64)
        self._pictures = np.zeros(VALUES, np.int64)
        self._train = np.zeros(VALUES, np.int64)

    @property
    def problems(self) -> list[Problem]:
        """In the order of `KINDS`."""
        return [self._problems[kind] for kind in KINDS if kind in self._problems]

    @property
    def values(self) -> list[ValueRow]:
        """A row for each class, occurring or not, and each other value that occurs."""
        count = len(self.classes.names) if self.classes else 0
        occurring = {int(value) for value in np.flatnonzero(self._pixels)}
        total = max(1, int(self._pixels.sum()))
        return [
            ValueRow(
                value,
                self._meaning(value),
                int(self._pixels[value]),
                float(self._pixels[value] / total),
                int(self._pictures[value]),
            )
            for value in sorted(occurring | {*range(count)})
        ]

    @property
    def train_counts(self) -> dict[int, int]:
        """Pixels by label value in the training split."""
        return {int(value): int(self._train[value]) for value in np.flatnonzero(self._train)}

    def _meaning(self, value: int) -> str:
        if self.classes is None:
            return ""
        if value == self.classes.ignored:
            return "(ignored)"
        return self.classes.names[value] if value < len(self.classes.names) else "(no class)"

    def add(self, kind: str, place: str, fix: str = "") -> None:
        """Notes a problem at a place."""
        what, usual = KINDS[kind]
        problem = self._problems.setdefault(kind, Problem(kind, what, fix or usual))
        problem.places.append(place)

    def advise(self, kind: str, fix: str) -> None:
        """Says another fix of a kind of problem, if it was found and there is one to say."""
        if fix and kind in self._problems:
            self._problems[kind].fix = fix

    def compare_digest(
        self, digests: dict[bytes, str], digest: bytes, name: str, split_of: dict[str, str]
    ) -> None:
        """Notes a picture that another split has under another name; keeps its digest."""
        other = digests.setdefault(digest, name) if digest else name
        if split_of[other] != split_of[name]:
            self.add("same picture", f"{name} ({split_of[name]}) is {other} ({split_of[other]})")

    def count(self, split: str, counts: np.ndarray) -> None:
        """Adds the label values of one picture."""
        self._pixels += counts
        self._pictures += counts > 0
        if split == "train":
            self._train += counts

    def conclude(self) -> "Report":
        """Adds what only all pictures together can show."""
        if self.classes is None:
            return self
        wrong = wrong_values(self._pixels, self.classes)
        if "values" in self._problems:
            self._problems["values"].fix = values_fix(wrong, self.classes)
        if self.splits.get("train") and self._train.any():
            text = one_class_text(self.train_counts, self.classes)
            if text:
                self.add("one class", *text)
            else:
                self._add_empty()
        return self

    def _add_empty(self) -> None:
        assert self.classes is not None
        for value, name in enumerate(self.classes.names):
            if not self._train[value] and value != self.classes.ignored:
                self.add("empty class", f"{value} {name}")

    def to_json(self) -> dict:
        """Everything, as JSON values."""
        return {
            "target": self.target,
            "form": self.form,
            "pictures": sum(self.splits.values()),
            "splits": dict(self.splits),
            "ignore_label": self.classes.ignored if self.classes else None,
            "values": [dataclasses.asdict(row) for row in self.values],
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "notes": self.notes,
        }


def listed(values: Sequence, count: int = 8) -> str:
    """The first few, and whether there are more."""
    shown = ", ".join(map(str, values[:count]))
    return shown + (", …" if len(values) > count else "")
