"""What an architecture search finds: a cell, and the resolution of every cell of the network.

Papers: https://arxiv.org/abs/1712.00559 (Sec. 3.1) and https://arxiv.org/abs/1901.02985 (Sec. 3).
"""

import dataclasses
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_tf.errors import InputError

_OPERATION = re.compile(
    r"separable_([1-9])x\1_[1-9]|atrous_([1-9])x\2|(max|avg)_pool_([1-9])x\4|none"
)
# A level is a halving of the stem's stride 4; the search space ends at stride 32.
DEEPEST = 3
# Operations of a cell, and cells of a network: searches find ten or so. More takes hours to build.
_MOST = 100


@dataclasses.dataclass(frozen=True)
class Genotype:
    """A cell as a search found it.

    Attributes:
        operations: two for each combination, left and right: "separable_5x5_2" (twice),
            "atrous_3x3", "max_pool_3x3", "avg_pool_3x3" or "none".
        inputs: which state each operation reads: 0 is the newer input of the cell, 1 the older,
            2 the first combination, and so on.
        outputs: the combinations that are concatenated.

    Raises:
        InputError: these make no cell; says why.
    """

    operations: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self):
        count = len(self.operations)
        if count == 0 or count % 2 or count > _MOST:
            raise InputError(
                f"nas_genotype: operations come in pairs, {_MOST} at most; got {count} of them."
            )
        for operation in self.operations:
            if not isinstance(operation, str) or not _OPERATION.fullmatch(operation):
                raise InputError(
                    f"nas_genotype: no operation {reprlib.repr(operation)}; those there are look "
                    "like separable_5x5_2, atrous_3x3, max_pool_3x3, avg_pool_3x3 and none."
                )
        if len(self.inputs) != count:
            raise InputError(
                f"nas_genotype: one input for each of the {count} operations; "
                f"got {len(self.inputs)}."
            )
        for number, source in enumerate(self.inputs):
            # Combination i is state 2 + i, and reads only what is there by then.
            if not _is_index(source, 0, number // 2 + 1):
                raise InputError(
                    f"nas_genotype: operation {number} reads a state from 0 to "
                    f"{number // 2 + 1}; got {reprlib.repr(source)}."
                )
        last = count // 2 + 1
        proper = all(_is_index(state, 2, last) for state in self.outputs)
        if not self.outputs or not proper or len(set(self.outputs)) < len(self.outputs):
            # The cell's inputs, states 0 and 1, have another size where it has a stride.
            raise InputError(
                f"nas_genotype: outputs are different states from 2 to {last}, the combinations; "
                f"got {reprlib.repr([*self.outputs])}."
            )

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Genotype":
        """From {"operations": […], "inputs": […], "outputs": […]}.

        Raises:
            InputError: something else is given.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(given, Mapping) or set(given) != set(names):
            found = sorted(map(str, given)) if isinstance(given, Mapping) else given
            raise InputError(
                f"nas_genotype has the lists {', '.join(names)}; got {reprlib.repr(found)}."
            )
        for name in names:
            if not isinstance(given[name], list | tuple):
                raise InputError(
                    f"nas_genotype: {name} is a list; got {reprlib.repr(given[name])}."
                )
        return cls(**{name: tuple(given[name]) for name in names})


def check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """The level of each cell, if there is a way through them.

    Level n has stride 4 * 2 ** n. The stem is level 0, and from one cell to the next a network
    halves, keeps or doubles its size (Auto-DeepLab, Fig. 1).

    Raises:
        InputError: there is none.
    """
    if not isinstance(levels, list | tuple) or not 1 <= len(levels) <= _MOST:
        raise InputError(
            f"nas_levels is a list of one level per cell, for {_MOST} cells at most; "
            f"got {reprlib.repr(levels)}."
        )
    before = 0
    for cell, level in enumerate(levels):
        if not _is_index(level, 0, DEEPEST) or abs(level - before) > 1:
            allowed = [n for n in (before - 1, before, before + 1) if 0 <= n <= DEEPEST]
            raise InputError(
                f"nas_levels: cell {cell} is at one of {allowed}; got {reprlib.repr(level)}."
            )
        before = level
    return tuple(levels)


def _is_index(value, low: int, high: int) -> bool:
    """True for an integer from `low` to `high`; True and False are none."""
    return type(value) is int and low <= value <= high
