"""Compiled loops of the fully connected CRF: the permutohedral lattice and mean field.

Needs numba, which comes with `pip install "deeplab-tf[crf]"`; `permutohedral` and `crf` import this
file when they first have work for it. All of it is in one file because numba finds out by its date
whether what it keeps on disk is still right.

Values come in rows: one row for each pixel, one number for each class. Loops over classes take
eight at a time, a vector of the machine. Left to themselves, compilers don't find these vectors in
rows of 21. The lattice keeps its values by blocks of eight classes, so each is read in one go.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

LANES = 8
STRIP = 64
_NONE = np.int32(-1)
# "numpy": a division doesn't ask first whether it is by zero.
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def _compiled(function):
    """Machine code that lets other threads run, kept on disk where there is a place for it."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return njit(**_OPTIONS)(function)


# --- Eight numbers at once ---


class _Eight(types.Type):
    """Eight float32 numbers in one vector of the machine."""

    def __init__(self):
        super().__init__(name="Eight")


_EIGHT = _Eight()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
# a * b + c may be rounded once instead of twice.
_FUSED = ("contract",)


@register_model(_Eight)
class _EightModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _VECTOR)


def _address(context, builder, signature, arguments):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    index = context.cast(builder, arguments[1], signature.args[1], types.intp)
    return builder.bitcast(builder.gep(array.data, [index]), _VECTOR.as_pointer())


@intrinsic
def _load(typing_context, array, index):
    """array[index : index + 8]. Nobody checks that they exist."""

    def code(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature, arguments), align=4)

    return _EIGHT(array, index), code


@intrinsic
def _store(typing_context, array, index, value):
    """array[index : index + 8] = value. Nobody checks that they exist."""

    def code(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.none(array, index, value), code


@intrinsic
def _load_up_to(typing_context, array, index):
    """array[index : index + 8]; beyond the array's end its last number stands again."""

    def code(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        last = builder.sub(array.nitems, array.nitems.type(1))
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        fits = builder.icmp_signed("<=", builder.add(index, index.type(LANES - 1)), last)
        with builder.if_else(fits) as (whole, part):
            with whole:
                address = _address(context, builder, signature, arguments)
                loaded, loaded_in = builder.load(address, align=4), builder.block
            with part:
                gathered = ir.Constant(_VECTOR, ir.Undefined)
                for lane in range(LANES):
                    at = builder.add(index, index.type(lane))
                    at = builder.select(builder.icmp_signed("<", at, last), at, last)
                    number = builder.load(builder.gep(array.data, [at]))
                    gathered = builder.insert_element(gathered, number, _lane(lane))
                gathered_in = builder.block
        result = builder.phi(_VECTOR)
        result.add_incoming(loaded, loaded_in)
        result.add_incoming(gathered, gathered_in)
        return result

    return _EIGHT(array, index), code


@intrinsic
def _store_first(typing_context, array, index, value, count):
    """array[index : index + count] = value[:count], for all eight if count is larger."""

    def code(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        count = context.cast(builder, arguments[3], signature.args[3], types.intp)
        whole = builder.icmp_signed(">=", count, count.type(LANES))
        with builder.if_else(whole) as (all_lanes, some):
            with all_lanes:
                address = _address(context, builder, signature, arguments)
                builder.store(arguments[2], address, align=4)
            with some:
                for lane in range(LANES - 1):
                    with builder.if_then(builder.icmp_signed(">", count, count.type(lane))):
                        at = builder.add(index, index.type(lane))
                        number = builder.extract_element(arguments[2], _lane(lane))
                        builder.store(number, builder.gep(array.data, [at]))
        return context.get_dummy_value()

    return types.none(array, index, value, count), code


@intrinsic
def _all(typing_context, number):
    """The same number eight times."""

    def code(context, builder, signature, arguments):
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], _lane(0))
        return builder.shuffle_vector(one, one, _lanes([0] * LANES))

    return _EIGHT(types.float32), code


def _lane(number):
    return ir.Constant(ir.IntType(32), number)


def _lanes(numbers):
    return ir.Constant(ir.VectorType(ir.IntType(32), LANES), numbers)


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


_OPERATIONS = {
    operator.add: lambda builder, a, b: builder.fadd(a, b, flags=_FUSED),
    operator.sub: lambda builder, a, b: builder.fsub(a, b, flags=_FUSED),
    operator.mul: lambda builder, a, b: builder.fmul(a, b, flags=_FUSED),
    max: _larger,
}


def _define(function, operation):
    """Teaches the compiler an operator between two vectors."""

    @intrinsic
    def apply(typing_context, a, b):
        def code(context, builder, signature, arguments):
            return operation(builder, *arguments)

        return _EIGHT(a, b), code

    @overload(function)
    def chosen(a, b):
        if isinstance(a, _Eight) and isinstance(b, _Eight):
            return lambda a, b: apply(a, b)


for _function, _operation in _OPERATIONS.items():
    _define(_function, _operation)


def _reduction(operation):
    """A function that folds a vector to one number: halves upon each other, three times."""

    @intrinsic
    def reduce(typing_context, vector):
        def code(context, builder, signature, arguments):
            (value,) = arguments
            for step in (4, 2, 1):
                turned = [(lane + step) % LANES for lane in range(LANES)]
                value = operation(
                    builder, value, builder.shuffle_vector(value, value, _lanes(turned))
                )
            return builder.extract_element(value, _lane(0))

        return types.float32(vector), code

    return reduce


_sum_of = _reduction(_OPERATIONS[operator.add])
_max_of = _reduction(_larger)


@intrinsic
def _bits_to_power(typing_context, vector):
    """2 ** n for whole numbers n, given as n + 127 + 1.5 * 2 ** 23.

    In a float of that size the last bits of the mantissa count ones: n + 127 stands there, which
    is the exponent's field of the result.
    """

    def code(context, builder, signature, arguments):
        whole = ir.VectorType(ir.IntType(32), LANES)
        shift = ir.Constant(whole, [23] * LANES)
        return builder.bitcast(builder.shl(builder.bitcast(arguments[0], whole), shift), _VECTOR)

    return _EIGHT(vector), code


@njit(inline="always")
def _exp(x):
    """exp of eight numbers, -80..0; relative error below 2e-7.

    Below that it is exp(-80): smaller ones, divided by their sum, come near to where a processor
    calculates slowly.
    """
    rounder = _all(np.float32(1.5 * 2**23 + 127))
    scaled = max(x, _all(np.float32(-80.0))) * _all(np.float32(1.4426950408889634))
    moved = scaled + rounder
    rest = scaled - (moved - rounder)  # -0.5..0.5
    # Taylor series of 2 ** rest, by Horner's rule.
    power = _all(np.float32(1.5252733804059841e-5))
    power = power * rest + _all(np.float32(1.5403530393381609e-4))
    power = power * rest + _all(np.float32(1.3333558146428443e-3))
    power = power * rest + _all(np.float32(9.6181291076284772e-3))
    power = power * rest + _all(np.float32(5.5504108664821580e-2))
    power = power * rest + _all(np.float32(2.4022650695910071e-1))
    power = power * rest + _all(np.float32(6.9314718055994531e-1))
    power = power * rest + _all(np.float32(1.0))
    return power * _bits_to_power(moved)


# --- Building the lattice ---


@njit(inline="always")
def _slot(table, code):
    """Where a code stands in the hash table, or the free slot where it belongs."""
    mask = np.int64(table.size - 1)
    mixed = np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while table[slot] >= 0 and table[slot] != code:
        slot = (slot + 1) & mask
    return slot


@njit
def _grown(table, ids, codes):
    """Tables of twice the size with the same content."""
    new_table = np.full(2 * table.size, np.int64(-1))
    new_ids = np.empty(2 * table.size, np.int32)
    for vertex in range(codes.size):
        slot = _slot(new_table, codes[vertex])
        new_table[slot], new_ids[slot] = codes[vertex], vertex
    return new_table, new_ids


@njit(error_model="numpy")
def _enclose(features, point, scale, elevated, whole, rank, at_rank, barycentric):
    """Finds the simplex around one point (Adams et al., Sec. 3.2).

    All arithmetic is in float32 and in the order of the reference: which simplex a point on a
    border falls into decides which vertices exist.

    Args:
        features, scale: see `place`.
        point: its number.
        elevated, whole, rank, at_rank, barycentric: room for d + 1 numbers, for the last d + 2.
            `whole` gets the corner of remainder 0, divided by d + 1; `at_rank` the coordinates in
            the order of what is left of them, largest first; `barycentric` the corners' weights.
    """
    d = scale.size
    inverse, height = np.float32(1) / np.float32(d + 1), np.float32(d + 1)
    rounder = np.float32(1.5 * 2**23)  # adding and subtracting it rounds, halves to even
    # Onto the plane whose coordinates add up to 0.
    total = np.float32(0)
    for j in range(d, 0, -1):
        scaled = features[point, j - 1] * scale[j - 1]
        elevated[j] = total - np.float32(j) * scaled
        total += scaled
    elevated[0] = total
    # The nearest point whose coordinates are multiples of d + 1, and what is left of each.
    excess = 0
    for i in range(d + 1):
        whole[i] = np.int64((inverse * elevated[i] + rounder) - rounder)
        excess += whole[i]
        rank[i] = 0
        barycentric[i] = elevated[i] - np.float32(whole[i]) * height
    for i in range(d):
        for j in range(i + 1, d + 1):
            if barycentric[i] < barycentric[j]:
                rank[i] += 1
            else:
                rank[j] += 1
    # Rounding may have left the plane: the coordinates that moved furthest come back.
    for i in range(d + 1):
        rank[i] += excess
        if rank[i] < 0:
            rank[i] += d + 1
            whole[i] += 1
        elif rank[i] > d:
            rank[i] -= d + 1
            whole[i] -= 1
        at_rank[rank[i]] = i
    barycentric[:] = 0
    for i in range(d + 1):
        share = (elevated[i] - np.float32(whole[i]) * height) * inverse
        barycentric[d - rank[i]] += share
        barycentric[d - rank[i] + 1] -= share
    barycentric[0] += np.float32(1) + barycentric[d + 1]


@_compiled
def place(features, row_length, scale, low, strides, limit, corners, weights):
    """Finds the simplex around each point and numbers all corners, as they are first met.

    Args:
        features: float32 [N, d].
        row_length: of the picture: it is walked through in strips of 64 columns, so that the
            vertices around them stay in the processor's cache. N for points of no picture.
        scale: float32 [d], see `permutohedral.elevation`.
        low, strides: int64 [d], see `permutohedral.Digits`.
        limit: of vertices; it stops when there are more.
        corners: int32 [N * (d + 1)], filled with the corners' numbers.
        weights: float32 [N * (d + 1)], filled with barycentric weights.

    Returns:
        (codes int64 [M] of the vertices, table int64, ids int32): the last two are a hash table.
    """
    points, d = features.shape
    elevated, barycentric = np.empty(d + 1, np.float32), np.empty(d + 2, np.float32)
    whole, rank, at_rank = np.empty((3, d + 1), np.int64)
    table, ids = np.full(1 << 16, np.int64(-1)), np.empty(1 << 16, np.int32)
    codes, count = np.empty(1 << 15, np.int64), 0
    for left in range(0, row_length, STRIP):
        right = min(left + STRIP, row_length)
        for start in range(0, points, row_length):
            for point in range(start + left, start + right):
                _enclose(features, point, scale, elevated, whole, rank, at_rank, barycentric)
                code = np.int64(0)
                for i in range(d):
                    code += (whole[i] - low[i]) * strides[i]
                for r in range(d + 1):
                    # Corner r: r added to all coordinates, d + 1 taken off the r smallest.
                    if r > 0:
                        moved = at_rank[d + 1 - r]
                        code += 1 - (strides[moved] if moved < d else 0)
                    slot = _slot(table, code)
                    if table[slot] < 0:
                        if count == codes.size:
                            codes = np.concatenate((codes, np.empty(count, np.int64)))
                            table, ids = _grown(table, ids, codes[:count])
                            slot = _slot(table, code)
                        table[slot], ids[slot], codes[count] = code, count, code
                        count += 1
                    corners[point * (d + 1) + r] = ids[slot]
                    weights[point * (d + 1) + r] = barycentric[r]
            if count > limit:
                return codes[:count], table, ids
    return codes[:count].copy(), table, ids


@_compiled
def lines(codes, table, ids, corners, step, step_over):
    """The vertices that have a neighbour along one axis, line by line.

    Args:
        codes, table, ids: see `place`.
        corners: d + 1.
        step: from a vertex' code to that of the next one, if it isn't of remainder 0.
        step_over: the same for those of remainder 0.

    Returns:
        (order int32: numbers of vertices, ends int32: where in it each line ends).
    """
    count = codes.size
    following, is_first = np.full(count, _NONE), np.ones(count, np.bool_)
    for vertex in range(count):
        code = codes[vertex]
        slot = _slot(table, code + (step if code % corners else step_over))
        if table[slot] >= 0:
            following[vertex] = ids[slot]
            is_first[ids[slot]] = False
    order, ends = np.empty(count, np.int32), np.empty(count // 2, np.int32)
    filled = number = 0
    for first in range(count):
        if is_first[first] and following[first] >= 0:
            link = np.int32(first)
            while link >= 0:
                order[filled] = link
                link = following[link]
                filled += 1
            ends[number] = filled
            number += 1
    return order[:filled].copy(), ends[:number].copy()


# --- Filtering ---


@_compiled
def splat(source, row, column, row_length, scale, corners, weights, count, values, width):
    """Adds the points' values to the corners of their simplices.

    Args:
        source: float32, flat: the values of point i begin at `i * row + column`.
        row, column: see `source`.
        row_length: see `place`.
        scale: float32 [N], of each point's values.
        corners, weights: see `place`.
        count: corners of a simplex, d + 1.
        values: float32 [M * width], overwritten.
        width: a multiple of 8.
    """
    values[:] = 0
    for left in range(0, row_length, STRIP):
        right = min(left + STRIP, row_length)
        for start in range(0, scale.size, row_length):
            for point in range(start + left, start + right):
                for block in range(0, width, LANES):
                    value = _load_up_to(source, point * row + column + block) * _all(scale[point])
                    for corner in range(point * count, (point + 1) * count):
                        at = np.int64(corners[corner]) * width + block
                        _store(values, at, _load(values, at) + value * _all(weights[corner]))


@_compiled
def blur(values, width, order, ends):
    """Adds to each vertex half of its two neighbours along one axis.

    A value is read and written once: the old one of the vertex before is carried along.

    Args:
        values: float32 [M * width], changed in place.
        width: a multiple of 8.
        order, ends: of the axis, see `lines`.
    """
    half, start = _all(np.float32(0.5)), np.int64(0)
    for end in ends:
        for block in range(0, width, LANES):
            at = np.int64(order[start]) * width + block
            before, current = _all(np.float32(0)), _load(values, at)
            for entry in range(start + 1, np.int64(end)):
                after = np.int64(order[entry]) * width + block
                following = _load(values, after)
                _store(values, at, current + half * (before + following))
                before, current, at = current, following, after
            _store(values, at, current + half * before)
        start = np.int64(end)


@njit(inline="always")
def _weighted(values, offset, width, corners, weights, start, count):
    total = _all(np.float32(0))
    for corner in range(start, start + count):
        at = offset + np.int64(corners[corner]) * width
        total = total + _all(weights[corner]) * _load(values, at)
    return total


@njit(inline="always")
def _slice(values, offset, width, corners, weights, start, count):
    """Eight values at one point: those at the corners of its simplex, weighted."""
    # Of a number that the compiler knows it makes no loop.
    if count == 6:
        total = _weighted(values, offset, width, corners, weights, start, 6)
    elif count == 3:
        total = _weighted(values, offset, width, corners, weights, start, 3)
    else:
        total = _weighted(values, offset, width, corners, weights, start, count)
    return total


@_compiled
def gather(values, corners, weights, count, scale, target, row, column, number):
    """Reads the lattice at the points.

    Args:
        values: float32 [M * 8].
        corners, weights, count: see `splat`.
        scale: float32 [N], of each point's result.
        target: float32, flat: the result of point i goes to `i * row + column`.
        number: values to write of each point, at most 8.
    """
    for point in range(scale.size):
        value = _slice(values, 0, LANES, corners, weights, point * count, count)
        _store_first(target, point * row + column, value * _all(scale[point]), number)


# --- Mean field ---


@_compiled
def update(q, unary, classes, first, second, costs, row_length, left):
    """An update of a strip of pixels: q = softmax(-unary + messages), read from the lattices.

    Args:
        q: float32 [N * classes], overwritten.
        unary: float32 [N * classes].
        classes: number of classes.
        first, second: a kernel: (values float32, offsets int64 [blocks], widths int64 [blocks],
            corners, weights, d + 1, scale float32 [N]). Block b of vertex v is at
            `offsets[b] + v * widths[b]`. A kernel without corners adds nothing.
        costs: float32 [classes * blocks * 8]: of a class (column) beside each class (row), rows
            padded; empty for Potts, where only equal classes pull.
        row_length: of the picture.
        left: column where the strip begins.
    """
    blocks = (classes + LANES - 1) // LANES
    x, message = np.empty(blocks * LANES, np.float32), np.empty(blocks * LANES, np.float32)
    # Takes the lanes beyond the last class out of the softmax.
    padding = np.zeros(blocks * LANES, np.float32)
    padding[classes:] = -np.inf
    (values_1, offsets_1, widths_1, corners_1, weights_1, count_1, scale_1) = first
    (values_2, offsets_2, widths_2, corners_2, weights_2, count_2, scale_2) = second
    right = min(left + STRIP, row_length)
    for start in range(0, q.size // classes, row_length):
        for pixel in range(start + left, start + right):
            one, two = pixel * count_1, pixel * count_2
            for block in range(blocks):
                total = _all(np.float32(0))
                if count_1:
                    value = _slice(
                        values_1,
                        offsets_1[block],
                        widths_1[block],
                        corners_1,
                        weights_1,
                        one,
                        count_1,
                    )
                    total = value * _all(scale_1[pixel])
                if count_2:
                    value = _slice(
                        values_2,
                        offsets_2[block],
                        widths_2[block],
                        corners_2,
                        weights_2,
                        two,
                        count_2,
                    )
                    total = total + value * _all(scale_2[pixel])
                _store(message, block * LANES, total)
            highest = _all(np.float32(-np.inf))
            for block in range(blocks):
                at = block * LANES
                if costs.size:
                    pull = _all(np.float32(0))
                    for other in range(classes):
                        cost = _load(costs, other * blocks * LANES + at)
                        pull = pull - cost * _all(message[other])
                else:
                    pull = _load(message, at)
                value = pull - _load_up_to(unary, pixel * classes + at) + _load(padding, at)
                highest = max(highest, value)
                _store(x, at, value)
            top, whole = _all(_max_of(highest)), _all(np.float32(0))
            for block in range(blocks):
                value = _exp(_load(x, block * LANES) - top)
                whole = whole + value
                _store(x, block * LANES, value)
            share = _all(np.float32(1) / _sum_of(whole))
            for block in range(blocks):
                # May run over into the next pixels of the row, whose turn is still to come.
                at = pixel * classes + block * LANES
                room = (start + right) * classes - at
                _store_first(q, at, _load(x, block * LANES) * share, room)
