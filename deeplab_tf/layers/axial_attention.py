"""Position-sensitive axial attention (Axial-DeepLab, https://arxiv.org/abs/2003.07853, Sec. 3)."""

import contextlib
import contextvars

import keras
from keras import initializers, layers, ops

from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings
from deeplab_tf.layers.normalization import BatchNorm, SummedBatchNorm

# Positions to either side that have an embedding of their own; those beyond share the last one.
MAX_SPAN = 255
# Logits of one picture beyond which a prediction takes its lines one after the other: 64 MB in
# float32.
_MOST_LOGITS = 2**24
_HEIGHT, _WIDTH = 1, 2

_at_once = contextvars.ContextVar("at_once", default=False)


@contextlib.contextmanager
def all_lines_at_once():
    """Keeps loops out of graphs traced inside: TFLite's converter fails on them."""
    token = _at_once.set(True)
    try:
        yield
    finally:
        _at_once.reset(token)


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AxialAttention(layers.Layer):
    """Attention along one axis of a map: [B, H, W, C] -> [B, H, W, value_depth].

    Every pixel attends to those of its column (or row). Three logits are normalised and summed:
    query with key, query with the query's embedding of the relative position, key with the
    key's; what is retrieved are the values and the values' embeddings (Eq. 4). There is no
    scaling by the depth: batch norm does it. Weights depend on channels alone, so any size works.

    With L for the axis' length and N for the number of pixels, a picture costs
    N * L * (3 * key_depth + 2 * value_depth) multiply-adds beside the projection, and its
    largest arrays, the logits, are num_heads * N * L numbers: at 1025x1025 and stride 16
    8 * 65 ** 3, 9 MB in float32, but at stride 2, where the paper's models begin, 4.3 GB.
    Predictions take line after line where that is much and the size is known; training needs
    them all at once for its statistics, and keeps five such arrays for the gradients.

    Args:
        axis: 1 attends along the height, 2 along the width.
        key_depth, value_depth: channels of all heads together.
        num_heads: of the attention.
        span: how many pixels of its axis a pixel sees, itself in the middle (the paper's m, an odd
            number); None is all. It masks; it saves nothing.
        batch_norm: of its three batch norms.

    Raises:
        ValueError: a depth isn't a multiple of `num_heads`, or a span isn't odd.
    """

    def __init__(
        self,
        axis: int,
        *,
        key_depth: int,
        value_depth: int,
        num_heads: int = 8,
        span: int | None = None,
        batch_norm: BatchNormSettings = PANOPTIC_BN,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if axis not in (_HEIGHT, _WIDTH):
            raise ValueError(f"axis is 1 (height) or 2 (width); got {axis}.")
        if key_depth % num_heads or value_depth % num_heads:
            raise ValueError(
                f"key_depth and value_depth are multiples of num_heads ({num_heads}); got "
                f"{key_depth} and {value_depth}."
            )
        if span is not None and span % 2 == 0:
            raise ValueError(f"span is an odd number of pixels, or None; got {span}.")
        if isinstance(batch_norm, dict):  # out of a stored config
            batch_norm = BatchNormSettings(**batch_norm)
        self.axis, self.key_depth, self.value_depth = axis, key_depth, value_depth
        self.num_heads, self.span, self.batch_norm = num_heads, span, batch_norm
        shared = dict(
            epsilon=batch_norm.epsilon, momentum=batch_norm.momentum, dtype=self.dtype_policy
        )
        self.batch_norm_qkv = BatchNorm(name="batch_norm_qkv", **shared)
        self.batch_norm_similarity = SummedBatchNorm(
            3, (1,), name="batch_norm_similarity", **shared
        )
        self.batch_norm_retrieved_output = SummedBatchNorm(
            2, (1, 3), name="batch_norm_retrieved_output", **shared
        )

    def build(self, input_shape):
        channels, heads = input_shape[-1], self.num_heads
        depth = 2 * self.key_depth + self.value_depth
        self.qkv_kernel = self.add_weight(
            shape=(channels, depth),
            initializer=initializers.TruncatedNormal(stddev=channels**-0.5),
            name="qkv_kernel",
        )
        depths = {"query": self.key_depth, "key": self.key_depth, "value": self.value_depth}
        for name, total in depths.items():
            table = self.add_weight(
                shape=(2 * MAX_SPAN - 1, total // heads),
                initializer=initializers.TruncatedNormal(stddev=1.0),
                name=f"{name}_rpe",
            )
            setattr(self, f"{name}_rpe", table)
        self.batch_norm_qkv.build((None, None, depth))
        self.batch_norm_similarity.build((None, heads, None, None))
        self.batch_norm_retrieved_output.build((None, heads, None, self.value_depth // heads))
        self.built = True

    def call(self, inputs, training=None):
        x = inputs if self.axis == _WIDTH else ops.transpose(inputs, (0, 2, 1, 3))
        _, lines, length, channels = ops.shape(x)
        x = ops.reshape(x, (-1, length, channels))  # [rows or columns of all pictures, L, C]
        x = self.batch_norm_qkv(ops.matmul(x, self.qkv_kernel), training=training)
        places = ops.arange(length)
        away = places[None, :] - places[:, None]  # of the key [L, L], seen from the query
        index = ops.clip(away, 1 - MAX_SPAN, MAX_SPAN - 1) + (MAX_SPAN - 1)
        tables = [
            ops.take(ops.cast(table, x.dtype), index, axis=0)
            for table in (self.query_rpe, self.key_rpe, self.value_rpe)
        ]

        def attend(x):
            return self._attend(x, away, tables, training)

        if self._is_large(lines, length, training):
            x = ops.map(lambda line: attend(line[None])[0], x)
        else:
            x = attend(x)
        x = ops.reshape(x, (-1, lines, length, self.value_depth))
        return x if self.axis == _WIDTH else ops.transpose(x, (0, 2, 1, 3))

    def _is_large(self, lines, length, training) -> bool:
        """Whether logits take too much memory at once, as far as the sizes are known."""
        if not isinstance(lines, int) or not isinstance(length, int) or _at_once.get():
            return False
        if self.batch_norm_similarity.uses_batch_statistics(training):
            return False
        return self.num_heads * lines * length**2 > _MOST_LOGITS

    def _attend(self, x, away, tables, training):
        """Queries, keys and values [N, L, depth] -> what is retrieved, [N, L, value_depth]."""
        length = ops.shape(x)[1]
        query, key, value = (
            ops.transpose(ops.reshape(part, (-1, length, self.num_heads, depth)), (0, 2, 1, 3))
            for part, depth in self._split(x)
        )
        logits = self._similarity(query, key, tables[0], tables[1], training)
        if self.span is not None:
            logits = ops.where(ops.abs(away) <= self.span // 2, logits, -1e4)
        weights = ops.softmax(logits)
        retrieved = self.batch_norm_retrieved_output(
            [ops.matmul(weights, value), ops.einsum("bhlm,lmd->bhld", weights, tables[2])],
            training=training,
        )
        x = ops.transpose(retrieved, (0, 2, 1, 3))
        return ops.reshape(x, (-1, length, self.value_depth))

    def _split(self, x):
        """Query, key and value of all heads, each with its depth per head."""
        ends = (self.key_depth, 2 * self.key_depth)
        depths = (self.key_depth, self.key_depth, self.value_depth)
        parts = ops.split(x, ends, axis=-1)
        return [(part, depth // self.num_heads) for part, depth in zip(parts, depths, strict=True)]

    def _similarity(self, query, key, query_rpe, key_rpe, training):
        """The normalised sum of the three logits: [N, heads, L, d] twice -> [N, heads, L, L]."""
        norm = self.batch_norm_similarity
        trains = norm.uses_batch_statistics(training)
        by_content, by_query, by_key = query, query, key
        if not trains:
            # The factors go into the small operands, not over three arrays of logits.
            scales, shift = (ops.cast(x, query.dtype) for x in norm.scale_and_shift())
            by_content, by_query, by_key = query * scales[0], query * scales[1], key * scales[2]
        terms = [
            ops.matmul(by_content, ops.transpose(key, (0, 1, 3, 2))),
            ops.einsum("bhld,lmd->bhlm", by_query, query_rpe),
            ops.einsum("bhmd,lmd->bhlm", by_key, key_rpe),
        ]
        if trains:
            return norm(terms, training=training)
        return terms[0] + terms[1] + terms[2] + shift

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        """For one picture."""
        _, height, width, channels = input_shape
        seen = input_shape[self.axis] * (3 * self.key_depth + 2 * self.value_depth)
        projection = channels * (2 * self.key_depth + self.value_depth)
        return height * width * (projection + seen)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.value_depth)

    def get_config(self):
        batch_norm = {"epsilon": self.batch_norm.epsilon, "momentum": self.batch_norm.momentum}
        return {
            **super().get_config(),
            "axis": self.axis,
            "key_depth": self.key_depth,
            "value_depth": self.value_depth,
            "num_heads": self.num_heads,
            "span": self.span,
            "batch_norm": batch_norm,
        }


def axial_attention_2d(
    x,
    *,
    filters: int,
    key_expansion: int = 1,
    value_expansion: int = 2,
    num_heads: int = 8,
    strides: int = 1,
    batch_norm: BatchNormSettings = PANOPTIC_BN,
    name: str,
):
    """Attention along the height, then the width: [B, H, W, C] -> [B, h, w, F * value_expansion].

    A stride drops rows between the two and columns after them, so the first sees every pixel.
    """
    for axis, part in ((_HEIGHT, "height_axis"), (_WIDTH, "width_axis")):
        x = AxialAttention(
            axis,
            key_depth=filters * key_expansion,
            value_depth=filters * value_expansion,
            num_heads=num_heads,
            batch_norm=batch_norm,
            name=f"{name}.{part}",
        )(x)
        if strides > 1:
            step = (strides, 1) if axis == _HEIGHT else (1, strides)
            x = layers.MaxPooling2D(1, step, name=f"{name}.{part}.stride")(x)
    return x
