"""Where records come from: splits of pictures with labels, not yet read."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deeplab_tf.datasets.classes import Classes


@dataclasses.dataclass(frozen=True)
class Item:
    """One picture with its label.

    Attributes:
        name: file name of the picture, kept in the record.
        picture: its file, or what such a file holds.
        label_name: what messages call the label.
        read_label: reads it: uint8 or uint16 [H, W].
    """

    name: str
    picture: Path | bytes
    label_name: str
    read_label: Callable[[], np.ndarray]


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
        """What label values mean."""

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
