"""Where records come from: splits of pictures with labels, not yet read."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets.classes import Classes


@dataclasses.dataclass(frozen=True)
class Item:
    """One picture with its label.

    Attributes:
        name: file name of the picture, kept in the record.
        picture: its file, or what such a file holds.
        label_name: what messages call the label.
        read_label: reads it: uint8 or uint16 classes [H, W], or with a `label_divisor` an int32
            panoptic map.
        label_divisor: a panoptic label is class * label_divisor + instance.
    """

    name: str
    picture: Path | bytes
    label_name: str
    read_label: Callable[[], np.ndarray]
    label_divisor: int | None = None

    def read_maps(self) -> dict[str, np.ndarray]:
        """Label maps by their names in an example: int32 [H, W] each.

        Raises:
            InputError: the label can't be read.
        """
        label = self.read_label().astype(np.int32, copy=False)
        if self.label_divisor is None:
            return {keys.SEMANTIC_LABEL: label}
        return {keys.SEMANTIC_LABEL: label // self.label_divisor, keys.PANOPTIC_LABEL: label}


class Source(Protocol):
    """What `build` writes records of."""

    @property
    def name(self) -> str:
        """Of the data set."""

    @property
    def source(self) -> str:
        """Where its pictures come from, in words."""

    @property
    def classes(self) -> Classes:
        """What label values mean; with a `label_divisor`, labels are panoptic maps."""

    @property
    def counts(self) -> dict[str, int]:
        """Split -> number of pictures."""

    def stamp(self) -> Any:
        """JSON that is another one when the inputs are others."""

    def items(self, split: str, part: int, parts: int) -> Iterator[Item]:
        """The pictures of one of `parts` shards: `part_size` of them, the same at each call."""


def part_size(count: int, part: int, parts: int) -> int:
    """Pictures in one of `parts` shards, which differ by one at most."""
    return len(range(part, count, parts))
