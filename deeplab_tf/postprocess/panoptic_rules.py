"""The merge of Panoptic-DeepLab for one picture, written once for Keras and for NumPy.

`ops` is what an array library offers, under the names of `keras.ops` where these have them; see
`panoptic.py` and `panoptic_numpy.py`. Every function here works with sizes known only at run time
(TensorFlow graphs) and under a compiler that needs all sizes beforehand (`ops.compact` False:
JAX).

Paper: https://arxiv.org/abs/1911.10194, Sec. 3.2 and 3.3; rules in `merge_settings.py`.
"""

from typing import Any

import numpy as np

from deeplab_tf.postprocess.merge_settings import MAX_CLASSES, MergeSettings

# Cells times centres in the look-up of `_nearest`: bounds its memory.
_LOOKUP = 2**21
# Farther than any pixel from any centre.
_FAR = 1e7
# Offsets beyond this are cut: what a network says there means nothing, but stays finite.
_LARGEST_OFFSET = 2.0**15


def merge_picture(ops: Any, semantic, heatmap, offsets, settings: MergeSettings):
    """Groups thing pixels, votes on their classes and pastes stuff.

    Args:
        ops: the array library.
        semantic: class of each pixel, int32 [H, W].
        heatmap: float32 [H, W].
        offsets: float32 [H, W, 2], (y, x), centre minus pixel.
        settings: see there.

    Returns:
        The panoptic map int32 [H, W]; the instances before the vote, int32 [H, W], by centre from
        1, 0 on stuff; and the heatmap's value at each pixel's centre, float32 [H, W], 0 on stuff.
    """
    height, width = ops.shape(semantic)
    total = height * width
    positions, scores, count = find_centers(ops, heatmap, settings)
    # Flat from here on: TensorFlow is slow to broadcast numbers over more axes.
    semantic = ops.reshape(semantic, (-1,))
    semantic = ops.where((semantic >= 0) & (semantic < MAX_CLASSES), semantic, MAX_CLASSES)
    # Which thing class, from 0; -1 for stuff.
    known = np.full(MAX_CLASSES + 1, -1, np.int32)
    known[list(settings.thing_classes)] = np.arange(len(settings.thing_classes))
    kind = ops.take(known, semantic)
    thing = kind >= 0
    # What concerns things is done for their pixels alone, where sizes may depend on data.
    pixels = ops.nonzero(thing) if ops.compact else ops.arange(total)
    kind = ops.take(kind, pixels)
    offsets = ops.take(ops.reshape(offsets, (-1, 2)), pixels, axis=0)
    index = _assign(ops, pixels, width, kind, offsets, positions, count, settings)
    labels = _label_instances(ops, total - pixels, kind, index, positions, count, settings)

    def spread(values):
        """Values of thing pixels -> [H * W]."""
        return ops.scatter(pixels, values, total) if ops.compact else values

    panoptic = ops.where(
        thing, spread(ops.take(labels, index)), _label_stuff(ops, semantic, settings)
    )
    instance = ops.where((kind >= 0) & (count > 0), index + 1, 0)
    score = ops.where(instance > 0, ops.take(scores, index), 0.0)
    maps = panoptic, spread(instance), spread(score)
    return tuple(ops.reshape(x, (height, width)) for x in maps)


# --- Centres ---


def find_centers(ops: Any, heatmap, settings: MergeSettings):
    """The peaks of a heatmap [H, W].

    Returns:
        Positions in raster order, int32 [K], y * W + x; the heatmap there, float32 [K]; and how
        many of them are peaks, at most `settings.max_centers`. K is that number, but at least 1;
        where `ops` needs fixed sizes, it is `settings.max_centers` or the number of pixels.
    """
    highest = heatmap
    for axis in (0, 1):
        highest = _running_maximum(ops, highest, settings.nms_kernel, axis)
    heatmap, highest = ops.reshape(heatmap, (-1,)), ops.reshape(highest, (-1,))
    # Values up to the threshold never hide one above it. One that isn't a number is no peak.
    peak = (heatmap > max(settings.center_threshold, 0.0)) & (heatmap == highest)
    total = ops.shape(heatmap)[0]
    if ops.compact:
        # One place more than there are peaks, so that there is one always.
        positions = ops.pad(ops.nonzero(peak), [(0, 1)], constant_values=total)
        scores = ops.take(heatmap, ops.minimum(positions, total - 1))
        scores = ops.where(positions < total, scores, 0.0)
    else:
        positions, scores = ops.arange(total), ops.where(peak, heatmap, 0.0)
    # Larger is earlier, so that the first in raster order are the largest.
    order = ops.where(scores > 0.0, total - positions, 0)
    limit = ops.smaller(settings.max_centers, ops.shape(order)[0])
    count = ops.sum(ops.cast(order > 0, "int32"))
    order = ops.cond(count > limit, lambda: _keep_highest(ops, scores, order, limit), lambda: order)
    count = ops.minimum(count, limit)
    kept = ops.maximum(count, 1) if ops.compact else limit
    positions = total - ops.largest(order, kept)
    return positions, ops.take(heatmap, ops.minimum(positions, total - 1)), count


def _running_maximum(ops: Any, x, size: int, axis: int):
    """Maximum over windows of `size` along an axis of [H, W], zeros beyond the edges.

    Windows double: log(size) steps where a pooling layer takes size^2.
    """
    padding = [(0, 0), (0, 0)]
    padding[axis] = ((size - 1) // 2, size // 2)
    x, done = ops.pad(x, padding), 1
    while done < size:
        step = min(done, size - done)
        if axis == 0:
            x = ops.maximum(x[:-step], x[step:])
        else:
            x = ops.maximum(x[:, :-step], x[:, step:])
        done += step
    return x


def _keep_highest(ops: Any, scores, order, limit):
    """`order`, zero but for the `limit` highest scores; of equal ones the first stay."""
    last = ops.largest(scores, limit)[-1]
    above, equal = scores > last, scores == last
    room = limit - ops.sum(ops.cast(above, "int32"))
    first = ops.largest(ops.where(equal, order, 0), limit)
    return ops.where(above | (equal & (order >= ops.take(first, room - 1))), order, 0)


# --- Pixels to centres ---


def _assign(ops: Any, pixels, width, kind, offsets, positions, count, settings: MergeSettings):
    """The centre nearest to where each of the pixels [P] points: int32 [P].

    The first of equally near centres wins.
    """
    # Sums in float32, as published; distances in float64, where the nearest stays the nearest.
    exists = ops.arange(ops.shape(positions)[0]) < ops.maximum(count, 1)
    places, centers = [], []
    for axis, split in enumerate((_quotient, _remainder)):
        offset = offsets[:, axis]
        # Pixels of stuff are here only where sizes are fixed; they shall not widen the range.
        offset = ops.where((offset == offset) & (kind >= 0), offset, 0.0)
        offset = ops.clip(offset, -_LARGEST_OFFSET, _LARGEST_OFFSET)
        place = ops.cast(split(pixels, width), "float32") + offset
        places.append(ops.cast(place, ops.wide))
        center = ops.cast(split(positions, width), ops.wide)
        centers.append(ops.where(exists, center, _FAR))
    return _nearest(ops, places, centers, settings.max_centers)


def _quotient(a, b):
    return a // b


def _remainder(a, b):
    return a % b


def _nearest(ops: Any, places, centers, most: int):
    """Index of the nearest centre: two [P] and two [K], K up to `most` -> int32 [P].

    Exact, without looking at all P * K distances: a grid of cells is laid over the places, and a
    centre comes into question in a cell only if its distance to the cell's nearest corner is at
    most the smallest distance of any centre to the farthest corner. All cells take their next
    candidate at once, until none has any left.
    """
    number = ops.shape(centers[0])[0]
    side = int(np.clip((_LOOKUP / most) ** 0.5, 16, 128))
    cells, nearest, farthest = [], [], []
    for place, center in zip(places, centers, strict=True):
        low, high = ops.min(place, initial=0.0), ops.max(place, initial=0.0)
        step = (high - low) / side + 1e-3
        cell = ops.cast((place - low) / step, "int32")
        cells.append(ops.clip(cell, 0, side - 1))
        # Cells overlap a little, which covers the rounding of their borders.
        start = low + step * ops.cast(ops.arange(side), ops.wide)[:, None] - 0.05
        before, after = start - center[None], center[None] - (start + step + 0.1)
        nearest.append(ops.square(ops.maximum(ops.maximum(before, after), 0.0)))
        farthest.append(ops.square(ops.minimum(before, after)))
    cell = cells[0] * side + cells[1]
    bound = ops.min(farthest[0][:, None] + farthest[1][None], axis=-1)
    candidates = nearest[0][:, None] + nearest[1][None] <= bound[..., None]
    candidates = ops.where(ops.reshape(candidates, (side * side, -1)), ops.arange(number), number)
    beyond = [ops.pad(center, [(0, 1)], constant_values=_FAR) for center in centers]

    def compare(taken, best, index):
        dy, dx = (
            place - ops.take(ops.take(center, taken), cell)
            for place, center in zip(places, beyond, strict=True)
        )
        distance = dy * dy + dx * dx
        nearer = distance < best
        index = ops.where(nearer, ops.take(taken, cell), index)
        taken = ops.min(ops.where(candidates > taken[:, None], candidates, number), axis=-1)
        return taken, ops.where(nearer, distance, best), index

    start = (ops.min(candidates, axis=-1), places[0] * 0.0 + 4 * _FAR**2, cell * 0)
    return ops.while_loop(lambda taken, *_: ops.min(taken) < number, compare, start)[2]


# --- Labels ---


def _label_stuff(ops: Any, semantic, settings: MergeSettings):
    """Panoptic labels of all pixels [H * W] as if they were stuff."""
    area = ops.count(semantic, MAX_CLASSES + 1)
    values = np.arange(MAX_CLASSES + 1, dtype=np.int32)
    values[-1] = settings.void_label
    least = settings.stuff_area_limit + (1 if settings.rule == "compiled" else 0)
    labels = ops.where(area >= least, values * settings.label_divisor, settings.void_value)
    return ops.take(labels, semantic)


def _label_instances(ops: Any, order, kind, index, positions, count, settings: MergeSettings):
    """The label of each instance, int32 [K], by the votes of its pixels.

    Args:
        order: of the pixels, int32 [P], larger is earlier.
        kind: their thing class, int32 [P], -1 for stuff.
        index: their instance, int32 [P].
        positions, count: of the centres.
    """
    number, kinds = ops.shape(positions)[0], max(1, len(settings.thing_classes))
    code = ops.where(kind >= 0, index * kinds + kind, number * kinds)
    votes = ops.count(code, number * kinds + 1)[: number * kinds]
    votes = ops.reshape(votes, (number, kinds))
    winner = ops.cast(ops.argmax(votes, axis=-1), "int32")
    exists = ops.max(votes, axis=-1) > 0
    if settings.rule != "compiled":
        exists = exists & (count > 0)
    member = (winner[:, None] == ops.arange(kinds)) & exists[:, None]
    member = ops.cast(member, "int32")
    if settings.rule == "pytorch":
        ids = ops.cumsum(member, axis=0)
    else:
        first = ops.segment_max(ops.where(kind >= 0, order, 0), index, number)
        rank = ops.argsort(-ops.maximum(first, 0))
        ids = ops.cumsum(ops.take(member, rank, axis=0), axis=0)
        ids = ops.take(ids, ops.argsort(rank), axis=0)
    ids = ops.sum(ids * member, axis=-1)
    classes = np.array(settings.thing_classes or [0], np.int32)
    labels = ops.take(classes, winner) * settings.label_divisor + ids
    return ops.where(exists & (ids < settings.label_divisor), labels, settings.void_value)
