"""The dual-path transformer (MaX-DeepLab, https://arxiv.org/abs/2012.00759, Sec. 3.3 and Fig. 3).

Beside the map of pixels [B, H, W, C], a network has a memory [B, L, D]: a row for each slot that
may become a mask. Slots attend to pixels and to each other, and pixels attend to slots. Attention
between pixels isn't in here: that is the block before it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import initializers, layers, ops

from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, activate, conv1d_bn_act
from deeplab_tf.layers.drop_path import drop_path
from deeplab_tf.layers.normalization import AxesBatchNorm


@dataclasses.dataclass(frozen=True)
class Transformer:
    """What the parts of a transformer block share.

    Attributes:
        filters: base of the channels.
        num_heads: of every attention.
        bottleneck_expansion, key_expansion, value_expansion: channels before attention, of its
            keys and of its values, as multiples of `filters`.
        feed_forward_channels: inside the memory's feed-forward network.
        activation: of all parts.
        keep_prob: of each branch of the block by itself, in training.
        batch_norm: of all parts.
    """

    filters: int = 128
    num_heads: int = 8
    bottleneck_expansion: int = 2
    key_expansion: int = 1
    value_expansion: int = 2
    feed_forward_channels: int = 2048
    activation: str = "relu"
    keep_prob: float = 1.0
    batch_norm: BatchNormSettings = PANOPTIC_BN

    @property
    def bottleneck(self) -> int:
        return self.filters * self.bottleneck_expansion

    @property
    def key_depth(self) -> int:
        """Of all heads together."""
        return self.filters * self.key_expansion

    @property
    def value_depth(self) -> int:
        """Of all heads together."""
        return self.filters * self.value_expansion


def dual_path_transformer(pixels, memory, block: Transformer, *, name: str):
    """Both paths after one block: (pixels [B, H, W, C], memory [B, L, D]) -> the same shapes.

    The pixels come and go without activation; the memory's has been applied.
    """
    slots = memory_bottleneck(memory, block, name=name)
    slots_qkv = qkv(slots, block, name=f"{name}.memory_qkv_conv_bn")
    places = pixel_bottleneck(pixels, block, name=name)
    places_qkv = qkv(places, block, name=f"{name}.pixel_qkv_conv_bn")
    read = attention_branch(
        slots_qkv, [places_qkv, slots_qkv], memory.shape[-1], block, name=f"{name}.memory"
    )
    memory = add_and_activate([memory, read], block, name=f"{name}.memory_add")
    memory = feed_forward(memory, block, name=name)
    told = attention_branch(places_qkv, [slots_qkv], pixels.shape[-1], block, name=f"{name}.pixel")
    told = Unflatten(name=f"{name}.pixel_unflatten")([told, pixels])
    return layers.Add(name=f"{name}.pixel_add")([pixels, told]), memory


def memory_bottleneck(memory, block: Transformer, *, name: str):
    """[B, L, D] -> [B, L, bottleneck]."""
    return _conv(
        memory,
        block.bottleneck,
        block,
        activation=block.activation,
        name=f"{name}.memory_conv1_bn_act",
    )


def pixel_bottleneck(pixels, block: Transformer, *, name: str):
    """A map without activation [B, H, W, C] -> a row for each pixel, [B, H * W, bottleneck]."""
    x = activate(pixels, block.activation, name=f"{name}.pixel.{block.activation}")
    x = layers.Reshape((-1, x.shape[-1]), name=f"{name}.pixel_flatten")(x)
    return _conv(
        x,
        block.bottleneck,
        block,
        activation=block.activation,
        name=f"{name}.pixel_conv1_bn_act",
    )


def qkv(x, block: Transformer, *, parts: str = "qkv", name: str):
    """Queries, keys and values next to each other: [B, N, bottleneck] -> [B, N, depths].

    Args:
        parts: which of the three there are.
    """
    depths = {"q": block.key_depth, "k": block.key_depth, "v": block.value_depth}
    filters = sum(depths[part] for part in parts)
    return _conv(x, filters, block, initializer=block.bottleneck**-0.5, name=name)


def attention_branch(asking, answering: Sequence, channels: int, block: Transformer, *, name: str):
    """What is to be added to a path: qkv [B, N, depths] of both sides -> [B, N, channels].

    Args:
        asking: whose queries.
        answering: whose keys and values, all in one softmax.
        channels: of the path.
        name: of the block, and "memory" or "pixel".
    """
    x = JointAttention(
        block.key_depth,
        block.value_depth,
        num_heads=block.num_heads,
        batch_norm=block.batch_norm,
        name=f"{name}_attention",
    )([asking, *answering])
    x = activate(x, block.activation, name=f"{name}_attention.{block.activation}")
    return last_projection(x, channels, block, name=f"{name}_conv3_bn")


def feed_forward(memory, block: Transformer, *, name: str):
    """The memory's feed-forward network: [B, L, D] -> [B, L, D]."""
    x = _conv(
        memory,
        block.feed_forward_channels,
        block,
        activation=block.activation,
        name=f"{name}.memory_ffn_conv1_bn_act",
    )
    x = last_projection(x, memory.shape[-1], block, name=f"{name}.memory_ffn_conv2_bn")
    return add_and_activate([memory, x], block, name=f"{name}.memory_ffn_add")


def add_and_activate(terms: Sequence, block: Transformer, *, name: str):
    """The sum of a path and its branches, activated."""
    x = layers.Add(name=name)(list(terms))
    return activate(x, block.activation, name=f"{name}.{block.activation}")


def _conv(x, filters: int, block: Transformer, *, activation: str | None = None, **options):
    return conv1d_bn_act(x, filters, activation=activation, batch_norm=block.batch_norm, **options)


def last_projection(x, channels: int, block: Transformer, *, name: str):
    """The last projection of a branch, which begins at zero and may be left out."""
    x = _conv(x, channels, block, gamma_initializer="zeros", name=name)
    return drop_path(x, block.keep_prob, name=f"{name}.drop_path")


@keras.saving.register_keras_serializable(package="deeplab_tf")
class JointAttention(layers.Layer):
    """Attention of one set to several, all in one softmax: [B, N, depths] each -> [B, N, depth].

    Every input has queries, keys and values side by side, of all heads. The first one asks with its
    queries, the others answer with their keys and values; a set that attends to itself is among
    those too. Logits aren't scaled by the depth: batch norm does that, a number for each head, and
    there is one for each channel of what is retrieved.

    Args:
        key_depth, value_depth: channels of all heads together.
        num_heads: of the attention.
        batch_norm: of both batch norms.

    Raises:
        ValueError: a depth isn't a multiple of `num_heads`.
    """

    def __init__(
        self,
        key_depth: int,
        value_depth: int,
        *,
        num_heads: int = 8,
        batch_norm: BatchNormSettings = PANOPTIC_BN,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if key_depth % num_heads or value_depth % num_heads:
            raise ValueError(
                f"key_depth and value_depth are multiples of num_heads ({num_heads}); got "
                f"{key_depth} and {value_depth}."
            )
        if isinstance(batch_norm, dict):  # out of a stored config
            batch_norm = BatchNormSettings(**batch_norm)
        self.key_depth, self.value_depth, self.num_heads = key_depth, value_depth, num_heads
        self.batch_norm = batch_norm
        shared: dict[str, Any] = dict(
            epsilon=batch_norm.epsilon, momentum=batch_norm.momentum, dtype=self.dtype_policy
        )
        self.batch_norm_similarity = AxesBatchNorm((1,), name="batch_norm_similarity", **shared)
        self.batch_norm_retrieved_value = AxesBatchNorm(
            (1, 3), name="batch_norm_retrieved_value", **shared
        )

    def build(self, input_shape):
        heads = self.num_heads
        self.batch_norm_similarity.build((None, heads, None, None))
        self.batch_norm_retrieved_value.build((None, heads, None, self.value_depth // heads))
        self.built = True

    def call(self, inputs, training=None):
        asking, *answering = (self._split(x) for x in inputs)
        query = asking[0]
        key, value = (
            parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=2)
            for parts in ([x[1] for x in answering], [x[2] for x in answering])
        )
        norm = self.batch_norm_similarity
        if not training:
            # The query takes the scale of the logits, as it is smaller; softmax sees no shift.
            query = query * ops.cast(norm.scale_and_shift()[0], query.dtype)
        logits = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # [B, heads, N, M]
        if training:
            logits = norm(logits, training=training)
        x = ops.matmul(ops.softmax(logits), value)
        x = self.batch_norm_retrieved_value(x, training=training)
        x = ops.transpose(x, (0, 2, 1, 3))
        return ops.reshape(x, (-1, ops.shape(x)[1], self.value_depth))

    def _split(self, x):
        """Queries, keys and values by heads: [B, N, depths] -> three of [B, heads, N, d]."""
        parts = ops.split(x, (self.key_depth, 2 * self.key_depth), axis=-1)
        shape = (-1, ops.shape(x)[1], self.num_heads)
        return [
            ops.transpose(
                ops.reshape(part, (*shape, part.shape[-1] // self.num_heads)), (0, 2, 1, 3)
            )
            for part in parts
        ]

    def multiply_adds(self, input_shape) -> int:
        """For one picture."""
        asking, *answering = (shape[1] for shape in input_shape)
        return asking * sum(answering) * (self.key_depth + self.value_depth)

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], self.value_depth)

    def get_config(self):
        return {
            **super().get_config(),
            "key_depth": self.key_depth,
            "value_depth": self.value_depth,
            "num_heads": self.num_heads,
            "batch_norm": dataclasses.asdict(self.batch_norm),
        }


@keras.saving.register_keras_serializable(package="deeplab_tf")
class Unflatten(layers.Layer):
    """Rows become pixels again: [[B, H * W, C], a map [B, H, W, D]] -> [B, H, W, C]."""

    def call(self, inputs):
        x, like = inputs
        _, height, width, _ = ops.shape(like)
        return ops.reshape(x, (-1, height, width, x.shape[-1]))

    def compute_output_shape(self, input_shape):
        x, like = input_shape
        return (*like[:3], x[-1])


@keras.saving.register_keras_serializable(package="deeplab_tf")
class LearnedMemory(layers.Layer):
    """The memory before its first block, the same for every picture: [B, ...] -> [B, L, D].

    Its one variable has the name that follows the last dot of the layer's.

    Args:
        num_slots, channels: L and D.
    """

    def __init__(self, num_slots: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.num_slots, self.channels = num_slots, channels

    def build(self, input_shape):
        self.memory = self.add_weight(
            shape=(1, self.num_slots, self.channels),
            initializer=initializers.TruncatedNormal(stddev=1.0),
            name=self.name.rpartition(".")[2],
        )
        self.built = True

    def call(self, inputs):
        shape = (ops.shape(inputs)[0], self.num_slots, self.channels)
        return ops.broadcast_to(ops.convert_to_tensor(self.memory), shape)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_slots, self.channels)

    def get_config(self):
        return {
            **super().get_config(),
            "num_slots": self.num_slots,
            "channels": self.channels,
        }
