"""What a data set is: classes, colours, ignored value, splits. Stored beside its records."""

import dataclasses
import os
from pathlib import Path

from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json, write_json

FILE_NAME = "dataset.json"
_PADDING = 255


@dataclasses.dataclass(frozen=True)
class DatasetDescriptor:
    """Facts of a data set that training, evaluation and export need.

    Attributes:
        name: of the set.
        classes: names by label value.
        colors: RGB 0..255 by label value.
        ignore_label: value of pixels that don't count, None if there are none.
        splits: split -> number of pictures.
        pixel_share: share of the counted training pixels by class.
        source: where the pictures come from, in words.
        thing_classes: label values of the classes whose instances are told apart.
        label_divisor: labels are panoptic, class * label_divisor + instance; None: classes alone.
        category_ids: by label value, what the data set's own files call it; empty: the same.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_label: int | None = None
    splits: dict[str, int] = dataclasses.field(default_factory=dict)
    pixel_share: tuple[float, ...] = ()
    source: str = ""
    thing_classes: tuple[int, ...] = ()
    label_divisor: int | None = None
    category_ids: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def padding_label(self) -> int:
        """What a label is filled up with: the ignored value, or 255 where every pixel counts."""
        return _PADDING if self.ignore_label is None else self.ignore_label

    def save(self, folder: str | os.PathLike) -> None:
        """Writes dataset.json into `folder`, atomically."""
        write_json(Path(folder) / FILE_NAME, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "DatasetDescriptor":
        """Reads dataset.json of a folder of records.

        Raises:
            InputError: the folder has none, or it isn't one.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file() and any(Path(folder).glob("*.tfrecord")):
            raise InputError(
                f"{folder}: these records have no {FILE_NAME}, which says what label values mean. "
                f"Write it with: deeplab-tf data describe {folder} --classes FILE"
            )
        if not path.is_file():
            raise InputError(
                f"{folder}: no {FILE_NAME} in there, so it isn't a folder of records. "
                f"Make one with: deeplab-tf data build {folder} --out RECORDS"
            )
        value = read_json(path)
        try:
            value["classes"] = tuple(value["classes"])
            value["colors"] = tuple(tuple(color) for color in value["colors"])
            value["pixel_share"] = tuple(value["pixel_share"])
            for name in ("thing_classes", "category_ids"):
                value[name] = tuple(value.get(name, ()))  # files of earlier versions lack them
            found = cls(**value)
            wrong = found._mistake()
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: not a data set description ({error!r}).") from None
        if wrong:
            raise InputError(f"{path}: {wrong}. Correct it, or build the records again.")
        return found

    def _mistake(self) -> str:
        """What contradicts itself in what is said of instances, if anything does."""
        if any(not 0 <= value < self.num_classes for value in self.thing_classes):
            return f"thing_classes {[*self.thing_classes]} aren't all of 0..{self.num_classes - 1}"
        if len(self.category_ids) not in (0, self.num_classes):
            return f"{len(self.category_ids)} category_ids for {self.num_classes} classes"
        if self.label_divisor is None:
            return ""
        if self.label_divisor < 2:
            return f"a label_divisor is 2 or more, got {self.label_divisor}"
        missing = "thing_classes" if not self.thing_classes else "an ignore_label"
        lacks = not self.thing_classes or self.ignore_label is None
        return f"panoptic labels need {missing}" if lacks else ""
