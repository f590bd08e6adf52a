"""The permutohedral lattice: Gaussian filtering of points in several dimensions in linear time.

Paper: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(2010). Points are placed on a plane of d + 1 coordinates that add up to 0, tiled by simplices. A
point's value is spread over the d + 1 corners of its simplex, the vertices are blurred along d + 1
axes, and the result is read at the points again. It approximates a sum over all pairs of points
with weights exp(-|f_i - f_j|^2 / 2).
"""

import dataclasses
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from deeplab_tf.errors import InputError

# While a lattice of five dimensions is built and its values are blurred for eight classes.
_BYTES_OF_VERTEX = 120
LANES = 8  # numbers that the compiled loops take at once
_ONE = np.ones(LANES, np.float32)


def loops() -> ModuleType:
    """The compiled loops.

    Raises:
        InputError: numba isn't installed.
    """
    try:
        return importlib.import_module("deeplab_tf.postprocess.lattice_loops")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("numba", "llvmlite"):
            raise
        raise InputError(
            'The CRF needs numba, which is not installed: pip install "deeplab-tf[crf]".'
        ) from None


def free_memory() -> float:
    """Bytes that this machine can give, as Linux tells; elsewhere infinity."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    values = {name: text for name, _, text in (line.partition(":") for line in lines)}
    return int(values["MemAvailable"].split()[0]) * 1024


def elevation(dimensions: int) -> np.ndarray:
    """float32 [d]: scale of each feature before it is rotated into the plane (Sec. 3.1).

    With it, the vertices' distance along an axis makes the blur a Gaussian of deviation one.
    """
    deviation = np.float32(np.sqrt(2 / 3) * (dimensions + 1))
    i = np.arange(dimensions)
    return (1 / np.sqrt((i + 2.0) * (i + 1.0)) * np.float64(deviation)).astype(np.float32)


def gain(dimensions: int) -> np.float32:
    """What the filter's result is multiplied by, so that a lone point keeps about its value."""
    return np.float32(1 / (1 + 2.0**-dimensions))


@dataclasses.dataclass(frozen=True)
class Digits:
    """How a vertex is written as one whole number.

    The first d coordinates of a vertex (the last follows from them) leave the same remainder r
    when divided by d + 1. The digits of its code are r and the quotients.

    Attributes:
        low: smallest quotient of each coordinate, neighbours included.
        counts: quotients of each coordinate, from `low` on.
    """

    low: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of_features(cls, low: Sequence[float], high: Sequence[float]) -> "Digits":
        """Enough for points between two corners of feature space.

        Args:
            low, high: smallest and largest value of each feature.
        """
        scale = elevation(len(low)).astype(np.float64)
        low_scaled, high_scaled = np.asarray(low) * scale, np.asarray(high) * scale
        lowest, counts = [], []
        for i in range(len(low)):
            # Coordinate i: the features from i on, less i times the one before.
            least, most = low_scaled[i:].sum(), high_scaled[i:].sum()
            if i:
                least, most = least - i * high_scaled[i - 1], most - i * low_scaled[i - 1]
            # One for rounding, one for coming back to the plane, one each for a corner and its
            # neighbour.
            first = int(np.floor(least / (len(low) + 1))) - 4
            lowest.append(first)
            counts.append(int(np.ceil(most / (len(low) + 1))) + 4 - first + 1)
        return cls(tuple(lowest), tuple(counts))

    @property
    def strides(self) -> tuple[int, ...]:
        """Value of one in each quotient's digit; r has the last, of value one."""
        strides, value = [], len(self.low) + 1
        for count in self.counts:
            strides.append(value)
            value *= count
        return tuple(strides)

    @property
    def codes(self) -> int:
        """All codes are below this."""
        return self.strides[-1] * self.counts[-1]

    def steps(self, axis: int) -> tuple[int, int]:
        """From a vertex' code to that of the next along an axis, 0..d.

        The next has d more in the axis' coordinate and one less in all others: in quotients, one
        more there and r one less; or, of remainder 0, one less elsewhere and r = d.

        Returns:
            (for a remainder above 0, for remainder 0).
        """
        strides = (*self.strides, 0)
        others = sum(strides) - strides[axis]
        return strides[axis] - 1, len(self.low) - others


class Lattice:
    """The vertices around some points: built once, then it filters any values at these points.

    Memory, with N points and M vertices: 8 N (d + 1) + 4 M (d + 1) bytes, and 20 to 44 M while
    it is built. M is at most N (d + 1), mostly far less.

    Args:
        features: float32 [N, d], of deviation one: positions and colours over kernel widths.
        row_length: width of the picture whose pixels they are, which divides N; None for none.

    Raises:
        InputError: no points, values that aren't finite, or so far apart that vertices can't be
            numbered or held in memory; numba isn't installed.
    """

    def __init__(self, features: np.ndarray, row_length: int | None = None):
        features = np.ascontiguousarray(features, np.float32)
        if features.ndim != 2 or not features.size:
            raise InputError(f"features are of shape [points, dimensions]; got {features.shape}.")
        low, high = features.min(axis=0), features.max(axis=0)
        if not np.isfinite([low, high]).all():
            raise InputError("features are finite; got NaN or infinity.")
        self.points, self.dimensions = features.shape
        self.corners = self.dimensions + 1
        self.row_length = row_length or self.points
        digits = Digits.of_features(low, high)
        if digits.codes >= 2**62 or max(map(abs, digits.low)) + max(digits.counts) >= 2**21:
            raise InputError(
                "The kernel widths are too small for a picture of this size: its points lie too "
                "far apart in feature space. Take larger widths or a smaller picture."
            )
        self.corner_ids = np.empty(self.points * self.corners, np.int32)
        self.weights = np.empty(self.points * self.corners, np.float32)
        numbers = [np.array(part, np.int64) for part in (digits.low, digits.strides)]
        limit = min(free_memory() // _BYTES_OF_VERTEX, 2**31 - 1)
        codes, *table = loops().place(
            *(features, self.row_length, elevation(self.dimensions), *numbers, int(limit)),
            *(self.corner_ids, self.weights),
        )
        if len(codes) > limit:
            raise InputError(
                f"The lattice has more than {limit:,} vertices, which is more than the free memory "
                "holds: take a smaller picture or larger kernel widths (least of all colours')."
            )
        self.vertices = len(codes)
        self._lines = [
            loops().lines(codes, *table, self.corners, *digits.steps(axis))
            for axis in range(self.corners)
        ]
        self.gain = gain(self.dimensions)

    def filter(self, values: np.ndarray, *, reverse: bool = False) -> np.ndarray:
        """float32 [N, C] -> float32 [N, C]: for each point, all points' values, weighted.

        Args:
            values: of each point.
            reverse: blur along the axes in the opposite order, which makes the transposed filter.

        Raises:
            InputError: of another shape.
        """
        values = np.ascontiguousarray(values, np.float32)
        if values.ndim != 2 or len(values) != self.points:
            raise InputError(f"values are of shape [{self.points}, C]; got {values.shape}.")
        flat, classes = values.reshape(-1), values.shape[1]
        result = np.empty_like(flat)
        block = np.empty(self.vertices * LANES, np.float32)
        for column in range(0, classes, LANES):
            self.spread(flat, classes, column, self._one, block, LANES, reverse=reverse)
            self._read(block, result, classes, column)
        return result.reshape(values.shape)

    def filter_ones(self) -> np.ndarray:
        """float32 [N]: the filter's answer where every value is one."""
        result = np.empty(self.points, np.float32)
        block = np.empty(self.vertices * LANES, np.float32)
        self.spread(_ONE, 0, 0, self._one, block, LANES)
        self._read(block, result, 1, 0)
        return result

    def spread(self, source, row: int, column: int, scale, values, width, *, reverse: bool = False):
        """Spreads values over the vertices and blurs them.

        Args:
            source: float32, flat: of point i, `width` values from `i * row + column` on.
            row, column: see `source`.
            scale: float32 [N], of each point's values.
            values: float32 [M * width], overwritten with the vertices' values.
            width: of the values, a multiple of 8.
            reverse: see `filter`.
        """
        compiled = loops()
        where = (self.corner_ids, self.weights, self.corners)
        compiled.splat(source, row, column, self.row_length, scale, *where, values, width)
        for line in reversed(self._lines) if reverse else self._lines:
            compiled.blur(values, width, *line)

    @property
    def _one(self) -> np.ndarray:
        return np.ones(self.points, np.float32)

    def _read(self, block, result, row: int, column: int) -> None:
        """Reads up to eight values of each point off the vertices."""
        where = (self.corner_ids, self.weights, self.corners, self.gain * self._one)
        loops().gather(block, *where, result, row, column, min(LANES, row - column))

    @property
    def bytes(self) -> int:
        """Memory held."""
        return (
            self.corner_ids.nbytes
            + self.weights.nbytes
            + sum(array.nbytes for line in self._lines for array in line)
        )
