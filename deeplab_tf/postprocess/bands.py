"""Large maps some rows at a time: logits are enlarged, and read, in bands that fit into memory."""

import keras
from keras import ops

from deeplab_tf.layers.resize import resize_rows

# Enlarged logits of a band: 16 MB in float32, of which there are some copies.
MOST_LOGITS = 2**22


def by_bands(function, logits, size, like):
    """What a function says of all rows of the enlarged logits, corners aligned.

    Args:
        function: takes rows [R, W, S] and gives arrays [R, n].
        logits: float32 [h, w, S].
        size: (H, W), integers or, in a TensorFlow graph, scalar tensors.
        like: n and the type of each array.

    Returns:
        Arrays [H, n].
    """
    height, width = size
    bands = _parts(height, MOST_LOGITS // (width * logits.shape[-1]) + 1)
    rows = _parts(height, bands)  # of one band; the last one repeats the last row

    def band(i):
        places = ops.minimum(i * rows + ops.arange(rows, dtype="int32"), height - 1)
        return function(resize_rows(logits[None], places, size)[0])

    found = in_turn(band, bands, [ops.zeros((rows, length), dtype) for length, dtype in like])
    return [
        ops.reshape(x, (-1, length))[:height] for x, (length, _) in zip(found, like, strict=True)
    ]


def _parts(total, part):
    """How many parts, rounded up."""
    return (total + part - 1) // part


def in_turn(function, number, like):
    """What a function gives for 0, 1, ..., each array stacked.

    `ops.map` would begin with several at once on TensorFlow, and take the memory of all. In a scan
    there, what is stacked is like what is carried on: the answer before.

    Args:
        function: takes an integer and gives arrays.
        number: how many times it is called.
        like: arrays of the shapes and types that it gives.
    """
    if isinstance(number, int) and number == 1:
        return [x[None] for x in function(0)]

    def step(_, i):
        found = list(function(i))
        return found, found

    return ops.scan(step, like, ops.arange(number, dtype="int32"))[1]


def largest(x):
    """The largest value along the last axis and its place, the first of equals."""
    if keras.backend.backend() == "tensorflow":
        # Its argmax goes over the array four times more, to tell -0.0 from 0.0.
        values, places = ops.top_k(x, 1)
        return values[..., 0], ops.cast(places[..., 0], "int32")
    places = ops.cast(ops.argmax(x, axis=-1), "int32")
    return value_at(x, places), places


def value_at(x, places):
    """Values of [..., S] at places [...]."""
    length = x.shape[-1]
    flat = ops.reshape(places, (-1,))
    flat = ops.take(ops.reshape(x, (-1,)), ops.arange(ops.shape(flat)[0]) * length + flat)
    return ops.reshape(flat, ops.shape(places))


def count(values, length):
    """How often 0, 1, ... are among whole numbers of any shape: int32 [length]."""
    values = ops.reshape(values, (-1,))
    # Not `ops.bincount`, which no compiler that needs fixed sizes takes.
    return ops.segment_sum(ops.ones_like(values), values, length)
