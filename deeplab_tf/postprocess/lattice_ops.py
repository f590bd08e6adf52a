"""The permutohedral lattice in Keras' own operations, with shapes that are known beforehand.

The same vertices and weights as `permutohedral.Lattice` finds, on any backend and inside a graph.
There is no hash table there: vertices are found by sorting their codes, neighbours by bisection. A
code is cut into parts of less than 32 bits, because not every backend counts further: the first
part is replaced by its rank among all of them, rank and second part make the next code, and so on.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess.permutohedral import Digits, elevation, gain

_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the vertices of some points are numbered.

    Attributes:
        digits: of a vertex' code: a quotient for each coordinate but the last, then the remainder.
        vertices: room for so many.
        parts: of a code: which digits each holds.
    """

    digits: Digits
    vertices: int
    parts: tuple[range, ...]

    @classmethod
    def of_features(cls, low, high, vertices: int) -> "Plan":
        """For points between two corners of feature space.

        Args:
            low, high: smallest and largest value of each feature.
            vertices: room for so many.

        Raises:
            InputError: the points lie too far apart.
        """
        plan = cls(Digits.of_features(low, high), vertices, ())
        starts, size, room = [0], 1, _LARGEST
        for digit, count in enumerate(plan._counts):
            if size * count > room:
                # A rank comes before: a vertex' number, or that of none.
                starts, size, room = [*starts, digit], 1, _LARGEST // (vertices + 2)
            if count > room:
                raise InputError(
                    "The kernel widths are too small for a picture of this size: its points lie "
                    "too far apart in feature space. Take larger widths or a smaller picture."
                )
            size *= count
        ends = [*starts[1:], len(plan._counts)]
        parts = tuple(range(*bounds) for bounds in zip(starts, ends, strict=True))
        return dataclasses.replace(plan, parts=parts)

    @property
    def _counts(self) -> tuple[int, ...]:
        return (*self.digits.counts, len(self.digits.low) + 1)

    @property
    def corners(self) -> int:
        """Of a simplex, d + 1."""
        return len(self.digits.low) + 1

    def size(self, part: range) -> int:
        """All values of a part are below this."""
        return functools.reduce(lambda size, digit: size * self._counts[digit], part, 1)

    def stride(self, part: range, digit: int) -> int:
        """Value of one in a digit of a part; 0 if it isn't in there."""
        return self.size(range(digit + 1, part.stop)) if digit in part else 0


class Vertices(NamedTuple):
    """The lattice of a picture of N pixels; all whole numbers are int32.

    Attributes:
        ids: [N, d + 1], numbers of the corners around each pixel.
        weights: float32 [N, d + 1], of these.
        following, before: [d + 1, V + 1], each vertex' neighbours along each axis. V stands for
            none.
        fit: bool [], whether there are at most V.
    """

    ids: Any
    weights: Any
    following: Any
    before: Any
    fit: Any


def elevated_parts(features: np.ndarray) -> np.ndarray:
    """What `place` wants of features: float32 [N, d] -> float32 [N, d, 2].

    Every product on the way to the plane. A compiler that rounds a product and a sum but once
    would put points that lie on a border into another simplex.
    """
    scaled = np.asarray(features, np.float32) * elevation(features.shape[-1])
    return np.stack([scaled, scaled * np.arange(1, scaled.shape[-1] + 1, dtype=np.float32)], -1)


def place(parts, plan: Plan) -> Vertices:
    """Finds the vertices around points, see `lattice_loops.place`.

    Args:
        parts: float32 [N, d, 2], see `elevated_parts`.
        plan: made for all that the points can be.
    """
    whole, rank, weights = _enclose(ops.convert_to_tensor(parts))
    corners, d = plan.corners, plan.corners - 1
    codes = []
    for part in plan.parts:
        code = 0
        for i in part:
            if i < d:
                # Corner r: r added to all coordinates, d + 1 taken off the r smallest.
                moved = ops.cast(rank[:, i, None] > d - ops.arange(corners), "int32")
                quotient = whole[:, i, None] - moved - plan.digits.low[i]
                code = code + quotient * plan.stride(part, i)
            else:
                code = code + ops.arange(corners, dtype="int32")[None]
        codes.append(ops.reshape(ops.broadcast_to(code, ops.shape(rank)), (-1,)))
    known, ids, fit = [], None, True
    for part, code in zip(plan.parts, codes, strict=True):
        code = code if ids is None else ids * plan.size(part) + code
        distinct, count = _distinct(code, plan.vertices)
        known.append(distinct)
        ids = ops.cast(ops.searchsorted(distinct, code), "int32")
        fit = ops.logical_and(fit, count <= plan.vertices)
    neighbours = [_neighbours(known, plan, axis, count) for axis in range(corners)]
    following, before = (ops.stack(side) for side in zip(*neighbours, strict=True))
    ids = ops.minimum(ops.reshape(ids, ops.shape(rank)), plan.vertices)
    return Vertices(ids, weights, following, before, fit)


def _enclose(parts):
    """The simplex around each point, see `lattice_loops._enclose`.

    Returns:
        (whole int32, rank int32, weights float32), all [N, d + 1].
    """
    d = parts.shape[1]
    height, inverse = float(d + 1), 1 / (d + 1)
    total, elevated = ops.zeros_like(parts[:, 0, 0]), []
    for j in range(d - 1, -1, -1):
        elevated.append(total - parts[:, j, 1])
        total = total + parts[:, j, 0]
    elevated = ops.stack([total, *reversed(elevated)], axis=1)
    whole = ops.round(elevated * inverse)
    rest = elevated - whole * height
    # How many of the others are larger; of equal ones, those behind count as smaller.
    i = ops.arange(d + 1)
    ahead = ops.where(
        i[:, None] < i[None], rest[:, :, None] < rest[:, None], rest[:, :, None] <= rest[:, None]
    )
    ahead = ops.logical_and(ahead, i[:, None] != i[None])
    rank = ops.sum(ops.cast(ahead, "float32"), axis=2) + ops.sum(whole, axis=1, keepdims=True)
    back = ops.cast(rank < 0, "float32") - ops.cast(rank > d, "float32")
    rank, whole = rank + back * height, whole + back
    share = (elevated - whole * height) * inverse
    here = ops.cast(rank[:, :, None] == ops.cast(ops.arange(d, -1, -1), "float32"), "float32")
    # Of each point, largest remainder last: corner r has the r-th from the end less the one after.
    by_rank = ops.sum(share[:, :, None] * here, axis=1)
    first = by_rank[:, :1] + (1 - by_rank[:, -1:])
    weights = ops.concatenate([first, by_rank[:, 1:] - by_rank[:, :-1]], axis=1)
    return ops.cast(whole, "int32"), ops.cast(rank, "int32"), weights


def _distinct(codes, room: int):
    """The different codes in order, int32 [room], filled up with the largest; and their number."""
    codes = ops.sort(codes)
    new = ops.concatenate([ops.ones((1,), "int32"), ops.cast(codes[1:] != codes[:-1], "int32")])
    rank = ops.cumsum(new) - 1
    count, numbers = rank[-1] + 1, ops.arange(room, dtype="int32")
    # Not by a reduction over segments, which PyTorch does in floats.
    first = ops.minimum(ops.searchsorted(rank, numbers), codes.shape[0] - 1)
    return ops.where(numbers < count, ops.take(codes, first), _LARGEST), count


def _neighbours(known: list, plan: Plan, axis: int, count):
    """Each vertex' next one along an axis and the one before it, int32 [V + 1] both.

    Args:
        known: the different codes of each part, see `place`.
        plan: see `place`.
        axis: 0..d.
        count: of vertices.
    """
    room, d = plan.vertices, plan.corners - 1
    # From the last code back to the digits of each part.
    ids = ops.arange(room, dtype="int32")
    codes: list = []
    for distinct, part in zip(reversed(known), reversed(plan.parts), strict=True):
        code = ops.take(distinct, ids)
        if part != plan.parts[0]:
            ids, code = ops.floor_divide(code, plan.size(part)), code % plan.size(part)
            ids = ops.minimum(ids, room - 1)
        codes.insert(0, code)
    is_zero = codes[-1] % plan.corners == 0
    found, at = ops.arange(room) < count, None
    for distinct, part, code in zip(known, plan.parts, codes, strict=True):
        strides = [plan.stride(part, i) for i in range(d)] + [0]
        has_remainder = int(d in part)
        step = strides[axis] - has_remainder
        step_over = d * has_remainder - (sum(strides) - strides[axis])
        code = code + ops.where(is_zero, step_over, step)
        code = code if at is None else at * plan.size(part) + code
        at = ops.cast(ops.searchsorted(distinct, code), "int32")
        at = ops.minimum(at, room - 1)
        found = ops.logical_and(found, ops.take(distinct, at) == code)
    following = ops.where(found, at, room)
    numbers = ops.where(found, ops.arange(1, room + 1, dtype="int32"), 0)
    before = ops.segment_sum(numbers, following, num_segments=room + 1)[:room] - 1
    before = ops.where(before < 0, room, before)
    none = ops.full((1,), room, dtype="int32")
    return ops.concatenate([following, none]), ops.concatenate([before, none])


class Filter:
    """Filters values of a batch of pictures with the vertices of each, or with the same for all.

    Args:
        vertices: with one more axis in front, [B, …] or [1, …].
        plan: of these.
        batch: B, a number or a tensor.
    """

    def __init__(self, vertices: Vertices, plan: Plan, batch):
        self._rows = batch * (plan.vertices + 1)
        self._gain = float(gain(plan.corners - 1))
        # Where there was no room for all vertices, no number is right.
        fit = ops.where(vertices.fit, 1.0, math.nan)[:, None, None]
        first = ops.cast(ops.arange(batch), "int32")[:, None, None] * (plan.vertices + 1)
        self._ids = ops.reshape(first + vertices.ids, (-1, plan.corners))
        ones = ops.ones_like(first, dtype="float32")
        self._weights = ops.reshape(fit * vertices.weights * ones, (-1, plan.corners))
        # Of each axis: both neighbours, [2, B * (V + 1)].
        sides = ops.stack([vertices.following, vertices.before], axis=1) + first[:, None]
        self._axes = [
            ops.reshape(ops.transpose(sides[:, :, axis], (1, 0, 2)), (2, -1))
            for axis in range(plan.corners)
        ]

    def of_ones(self):
        """float32 [B * N, 1]: the filter's answer where every value is one."""
        return self(ops.ones_like(self._weights[:, :1]))

    def __call__(self, values):
        """float32 [B * N, C] -> float32 [B * N, C].

        The transposed filter, which gradients take, is the filter with its axes in reverse.
        """

        @ops.custom_gradient
        def apply(values):
            def gradient(*arguments, upstream=None):
                return self._apply(arguments[0] if upstream is None else upstream, reverse=True)

            return self._apply(values), gradient

        return apply(values)

    def _apply(self, values, *, reverse: bool = False):
        channels = values.shape[1]
        spread = self._weights[:, :, None] * values[:, None]
        spread = ops.segment_sum(
            ops.reshape(spread, (-1, channels)), ops.reshape(self._ids, (-1,)), self._rows
        )
        for neighbours in reversed(self._axes) if reverse else self._axes:
            spread = spread + 0.5 * ops.sum(ops.take(spread, neighbours, axis=0), axis=0)
        result = ops.take(spread, self._ids, axis=0) * self._weights[:, :, None]
        return ops.sum(result, axis=1) * self._gain
