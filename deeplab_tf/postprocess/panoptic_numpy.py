"""The merge of Panoptic-DeepLab in NumPy, for networks that run without TensorFlow and Keras."""

from types import SimpleNamespace

import numpy as np

from deeplab_tf import keys
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.panoptic_rules import merge_picture


def merge(
    semantic_label: np.ndarray,
    center_heatmap: np.ndarray,
    offset_map: np.ndarray,
    settings: MergeSettings,
) -> dict[str, np.ndarray]:
    """The merge of one picture, with the labels of `panoptic.merge`.

    Args:
        semantic_label: integer [H, W].
        center_heatmap: float [H, W] or [H, W, 1].
        offset_map: float [H, W, 2], (y, x), centre minus pixel.
        settings: see there.

    Returns:
        panoptic_label int32 [H, W], instance_map int32 [H, W], instance_score float32 [H, W].

    Raises:
        ValueError: sizes that differ.
    """
    semantic = np.asarray(semantic_label).astype(np.int32, copy=False)
    heatmap = np.asarray(center_heatmap, np.float32)
    if heatmap.ndim == 3 and heatmap.shape[2] == 1:
        heatmap = heatmap[..., 0]
    offsets = np.asarray(offset_map, np.float32)
    if semantic.ndim != 2 or heatmap.shape != semantic.shape:
        raise ValueError(f"labels {semantic.shape} and heatmap {heatmap.shape} are [H, W] each.")
    if offsets.shape != (*semantic.shape, 2):
        raise ValueError(f"offset_map is [H, W, 2] of labels {semantic.shape}: {offsets.shape}.")
    panoptic, instance, score = merge_picture(OPS, semantic, heatmap, offsets, settings)
    return {
        keys.PANOPTIC_LABEL: panoptic.astype(np.int32, copy=False),
        keys.INSTANCE_MAP: instance.astype(np.int32, copy=False),
        keys.INSTANCE_SCORE: score.astype(np.float32, copy=False),
    }


def _while_loop(condition, body, values):
    while condition(*values):
        values = body(*values)
    return values


def _largest(x, k):
    """The k largest values, the largest first."""
    return np.sort(np.partition(x, len(x) - k)[len(x) - k :])[::-1]


def _scatter(places, values, size):
    result = np.zeros(size, values.dtype)
    result[places] = values
    return result


def _segment_max(values, index, count):
    result = np.zeros(count, values.dtype)
    np.maximum.at(result, index, values)
    return result


OPS = SimpleNamespace(
    # Names that NumPy and `keras.ops` share.
    **{
        name: getattr(np, name)
        for name in (
            "argmax argsort clip cumsum max maximum min minimum pad reshape square sum take where"
        ).split()
    },
    arange=lambda stop: np.arange(stop, dtype=np.int32),
    cast=lambda x, dtype: np.asarray(x).astype(dtype),
    cond=lambda condition, yes, no: yes() if condition else no(),
    count=lambda index, length: np.bincount(index, minlength=length).astype(np.int32),
    largest=_largest,
    nonzero=lambda x: np.flatnonzero(x).astype(np.int32),
    scatter=_scatter,
    segment_max=_segment_max,
    shape=np.shape,
    smaller=min,
    while_loop=_while_loop,
    compact=True,
    wide="float64",
)
