"""The merge of Panoptic-DeepLab's outputs into panoptic maps, in Keras ops.

    merge(semantic_label, center_heatmap, offset_map, MergeSettings(...))["panoptic_label"]

Works eagerly, in a `tf.function` with unknown sizes, in a SavedModel, under `jax.jit` and with
PyTorch; on CPU and GPU. The rules are in `panoptic_rules.py`, what differs between the published
ones in `merge_settings.py`.
"""

from types import SimpleNamespace

import keras
from keras import ops

from deeplab_tf import keys
from deeplab_tf.postprocess.merge_settings import MAX_CENTERS, RULES, MergeSettings
from deeplab_tf.postprocess.panoptic_rules import merge_picture

__all__ = ["MAX_CENTERS", "RULES", "MergeSettings", "merge"]

# Pictures of a batch that are written out one by one; a larger batch is a loop.
_UNROLLED = 4


def merge(semantic_label, center_heatmap, offset_map, settings: MergeSettings) -> dict:
    """A batch of network outputs -> panoptic maps.

    Memory is some arrays of a picture's size, with no product of pixels and centres: pictures
    are merged one after another. Values that aren't numbers count as no centre and no offset.
    Distances to centres are float64; JAX has float32 there, unless float64 is switched on, and may
    choose another of two centres whose distances are equal up to rounding.

    Args:
        semantic_label: integer [B, H, W].
        center_heatmap: float [B, H, W, 1].
        offset_map: float [B, H, W, 2], (y, x), centre minus pixel.
        settings: see there.

    Returns:
        panoptic_label int32 [B, H, W]; instance_map int32 [B, H, W], the centre of each thing
        pixel by number from 1, before classes are voted on; instance_score float32 [B, H, W], the
        heatmap at that centre. Both are 0 on stuff.
    """
    batch = (
        ops.cast(semantic_label, "int32"),
        ops.cast(center_heatmap, "float32"),
        ops.cast(offset_map, "float32"),
    )

    def picture(arrays):
        semantic, heatmap, offsets = arrays
        return merge_picture(OPS, semantic, heatmap[:, :, 0], offsets, settings)

    size = batch[0].shape[0]
    if size is not None and 0 < size <= _UNROLLED:
        merged = [picture([array[i] for array in batch]) for i in range(size)]
        panoptic, instance, score = (ops.stack(maps) for maps in zip(*merged, strict=True))
    else:
        panoptic, instance, score = ops.map(picture, batch)
    return {
        keys.PANOPTIC_LABEL: panoptic,
        keys.INSTANCE_MAP: instance,
        keys.INSTANCE_SCORE: score,
    }


def _largest(x, k):
    """The k largest values, the largest first."""
    return ops.top_k(x, int(k) if keras.backend.backend() == "torch" else k)[0]


def _smaller(a: int, b):
    return min(a, b) if isinstance(b, int) else ops.minimum(a, b)


def _count(index, length):
    if _FIXED_SIZES:  # the length of a histogram depends on data there
        return ops.segment_sum(ops.ones_like(index), index, length)
    return ops.cast(ops.bincount(index, minlength=length), "int32")


def _scatter(places, values, size):
    # Not `ops.scatter`, which goes element by element on PyTorch.
    return ops.scatter_update(ops.zeros((size,), values.dtype), places[:, None], values)


_FIXED_SIZES = keras.backend.backend() == "jax"
OPS = SimpleNamespace(
    **{
        name: getattr(ops, name)
        for name in (
            "argmax argsort cast clip cond cumsum max maximum min minimum pad reshape "
            "segment_max shape square sum take where while_loop"
        ).split()
    },
    arange=lambda stop: ops.arange(stop, dtype="int32"),
    count=_count,
    largest=_largest,
    nonzero=lambda x: ops.cast(ops.nonzero(x)[0], "int32"),
    scatter=_scatter,
    smaller=_smaller,
    compact=not _FIXED_SIZES,
    wide="float32" if _FIXED_SIZES else "float64",
)
