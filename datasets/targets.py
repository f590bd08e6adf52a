"""Panoptic labels to what the heads learn: centre heatmaps, offsets, masks, and weights of pixels.

Panoptic-DeepLab, https://arxiv.org/abs/1911.10194, Sec. 3.2, and MaX-DeepLab,
https://arxiv.org/abs/2012.00759, Sec. 3, as the official input code makes them. A panoptic label
is int32 [H, W], class * label_divisor + instance; a thing pixel with instance 0 belongs to a
crowd, and stuff has instance 0.

Everything is TensorFlow ops for one picture, to be mapped over a `tf.data.Dataset`; sizes may be
unknown. Memory is a few arrays of the picture's size, however many instances there are. Time is
linear in pixels, plus (6 sigma + 3)^2 steps per instance for its Gaussian.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab_tf import keys

# Gaussians drawn at once: bounds the memory of their indices, 2601 each for sigma 8.
_GAUSSIANS_AT_ONCE = 64
# What the error says of a picture that doesn't fit.
TOO_MANY_THINGS = "a picture has more instances than max_thing_id"


class _Segments(NamedTuple):
    """The thing instances of a picture, and all else as one segment more.

    In order of first appearance, as `tf.unique` has it. One look-up per pixel serves all that
    follows: scattering to pixels takes five times as long.
    """

    semantic: tf.Tensor  # int32 [H, W]
    crowd: tf.Tensor  # bool [H, W]
    inside: tf.Tensor  # bool [H, W]: in an instance
    index: tf.Tensor  # int32 [H, W]: the segment, 0..N-1
    values: tf.Tensor  # int32 [N]: the instance's label, -1 for the segment of all else


def panoptic_targets(
    panoptic_label,
    *,
    label_divisor: int,
    thing_classes: Sequence[int],
    ignore_label: int,
    sigma: float = 8.0,
    small_instance_area: int | None = 4096,
    small_instance_weight: float = 3.0,
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Targets and weights of one picture, by the names of the model's outputs.

    A centre is the mean position of its instance's pixels, halves rounded to even. Around it
    lies a Gaussian of peak 1; where two overlap, the larger value stands. A label that no thing
    class has counts as stuff, whatever its instance number.

    Args:
        panoptic_label: integer [H, W].
        label_divisor: as above.
        thing_classes: the classes that have instances.
        ignore_label: class of pixels that aren't labelled.
        sigma: width of the Gaussians in pixels.
        small_instance_area: instances of fewer pixels weigh more in the semantic loss; None or 0:
            none does.
        small_instance_weight: the weight of their pixels.

    Returns:
        Targets: semantic_logits int32 [H, W] (classes), center_heatmap float32 [H, W, 1],
        offset_map float32 [H, W, 2] (centre minus pixel, (y, x); 0 outside instances). Weights,
        float32 [H, W] each: semantic_logits, center_heatmap (1 where neither crowd nor ignored),
        offset_map (1 inside instances). Ignored pixels keep semantic weight 1: the loss leaves
        them out by their label.
    """
    found = _find_segments(panoptic_label, label_divisor, thing_classes)
    area, centers = _measure(found)
    size = tf.shape(found.semantic)
    offsets = tf.gather(centers, found.index) - tf.stack(_coordinates(size), -1)
    heatmap = _draw_gaussians(tf.boolean_mask(centers, found.values >= 0), size, sigma)
    heatmap = tf.ensure_shape(heatmap, found.semantic.shape)
    labelled = tf.not_equal(found.semantic, ignore_label)
    targets = {
        keys.SEMANTIC_LOGITS: found.semantic,
        keys.CENTER_HEATMAP: heatmap[..., None],
        keys.OFFSET_MAP: tf.cast(tf.where(found.inside[..., None], offsets, 0), tf.float32),
    }
    weights = {
        keys.SEMANTIC_LOGITS: _semantic_weight(
            found, area, small_instance_area, small_instance_weight
        ),
        keys.CENTER_HEATMAP: tf.cast(labelled & ~found.crowd, tf.float32),
        keys.OFFSET_MAP: tf.cast(found.inside, tf.float32),
    }
    return targets, weights


def mask_targets(
    panoptic_label,
    *,
    label_divisor: int,
    thing_classes: Sequence[int],
    max_thing_id: int = 128,
    small_instance_area: int | None = None,
    small_instance_weight: float = 3.0,
) -> dict[str, tf.Tensor]:
    """What the mask transformers learn from one picture.

    Args:
        panoptic_label, label_divisor, thing_classes, small_instance_area, small_instance_weight:
            see `panoptic_targets`.
        max_thing_id: the most instances that a picture may have.

    Returns:
        semantic_label int32 [H, W], thing_id_mask int32 [H, W] and thing_id_class float32
        [max_thing_id] (see `thing_id_targets`), and semantic_weight float32 [H, W].

    Raises:
        InvalidArgumentError: more than `max_thing_id` instances.
    """
    found = _find_segments(panoptic_label, label_divisor, thing_classes)
    things, classes = _numbered_things(found, label_divisor, max_thing_id)
    weight = _semantic_weight(found, _area(found), small_instance_area, small_instance_weight)
    shape = found.semantic.shape
    return {
        keys.SEMANTIC_LABEL: found.semantic,
        keys.THING_ID_MASK: tf.ensure_shape(things, shape),
        keys.THING_ID_CLASS: classes,
        keys.SEMANTIC_WEIGHT: tf.ensure_shape(weight, shape),
    }


def thing_id_targets(
    panoptic_label, *, label_divisor: int, thing_classes: Sequence[int], max_thing_id: int = 128
) -> tuple[tf.Tensor, tf.Tensor]:
    """Instances for the mask transformers, numbered by first appearance in raster order.

    Returns:
        The instance of each pixel, int32 [H, W], from 0, -1 outside; and the class of each
        instance, float32 [max_thing_id], -1 after the last.

    Raises:
        InvalidArgumentError: more than `max_thing_id` instances.
    """
    found = _find_segments(panoptic_label, label_divisor, thing_classes)
    return _numbered_things(found, label_divisor, max_thing_id)


def _numbered_things(
    found: _Segments, label_divisor: int, max_thing_id: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """See `thing_id_targets`."""
    instance = found.values >= 0
    classes = tf.boolean_mask(found.values // label_divisor, instance)
    check = tf.debugging.assert_less_equal(
        tf.size(classes), max_thing_id, f"{TOO_MANY_THINGS} ({max_thing_id})"
    )
    with tf.control_dependencies([] if check is None else [check]):
        number = tf.where(instance, tf.cumsum(tf.cast(instance, tf.int32)) - 1, -1)
        beyond = [[0, max_thing_id - tf.size(classes)]]
        classes = tf.pad(tf.cast(classes, tf.float32), beyond, constant_values=-1.0)
    return tf.gather(number, found.index), tf.ensure_shape(classes, [max_thing_id])


def crowd_mask(panoptic_label, *, label_divisor: int, thing_classes: Sequence[int]) -> tf.Tensor:
    """Where a thing class has instance 0: [H, W] -> bool [H, W]."""
    return _find_segments(panoptic_label, label_divisor, thing_classes).crowd


def _find_segments(panoptic_label, divisor: int, thing_classes: Sequence[int]) -> _Segments:
    label = tf.cast(panoptic_label, tf.int32)
    semantic = label // divisor
    # One look-up, whose last place stands for all classes beyond, instead of one comparison per
    # class.
    is_thing = np.zeros(max(thing_classes, default=0) + 2, bool)
    is_thing[list(thing_classes)] = True
    last = len(is_thing) - 1
    thing = tf.gather(is_thing, tf.where((semantic >= 0) & (semantic < last), semantic, last))
    crowd = thing & tf.equal(label % divisor, 0)
    inside = thing & ~crowd
    values, index = tf.unique(tf.reshape(tf.where(inside, label, -1), [-1]))
    return _Segments(semantic, crowd, inside, tf.reshape(index, tf.shape(label)), values)


def _coordinates(size) -> tuple[tf.Tensor, tf.Tensor]:
    """y and x of each pixel: int32 [H, W] each."""
    y, x = tf.meshgrid(tf.range(size[0]), tf.range(size[1]), indexing="ij")
    return y, x


def _area(found: _Segments) -> tf.Tensor:
    """Pixels of each segment, int32 [N]."""
    count = tf.size(found.values)
    return tf.math.bincount(tf.reshape(found.index, [-1]), minlength=count, maxlength=count)


def _semantic_weight(found: _Segments, area, small_area: int | None, weight: float) -> tf.Tensor:
    """More for the pixels of small instances: float32 [H, W]."""
    small = (area < (small_area or 0)) & (found.values >= 0)
    return tf.gather(tf.where(small, float(weight), 1.0), found.index)


def _measure(found: _Segments) -> tuple[tf.Tensor, tf.Tensor]:
    """Area int32 [N] and centre int32 [N, 2] of each segment."""
    index, count = tf.reshape(found.index, [-1]), tf.size(found.values)
    area = _area(found)
    # In float64, where sums of whole numbers are exact: a mean of float32 drifts over large
    # instances. `tf.round` rounds halves to even.
    sums = [
        tf.math.unsorted_segment_sum(tf.reshape(tf.cast(axis, tf.float64), [-1]), index, count)
        for axis in _coordinates(tf.shape(found.index))
    ]
    centers = tf.round(tf.stack(sums, -1) / tf.cast(area, tf.float64)[:, None])
    return area, tf.cast(centers, tf.int32)


def _draw_gaussians(centers: tf.Tensor, size: tf.Tensor, sigma: float) -> tf.Tensor:
    """Centres int32 [N, 2] -> float32 [H, W]: the largest of their Gaussians, 0 beyond them."""
    middle = 3 * sigma + 1
    distance = (np.arange(int(6 * sigma + 3)) - middle) ** 2
    gaussian = np.exp(-(distance[:, None] + distance) / (2 * sigma**2)).astype(np.float32)
    side, before = len(gaussian), round(middle)
    height, width = size[0], size[1] + side
    # On a canvas with a margin, a centre's position is the corner of its Gaussian.
    canvas = tf.zeros([(height + side) * width])
    patch = np.arange(side)[:, None] * width + np.arange(side)
    corners = centers[:, 0] * width + centers[:, 1]

    def draw(start, canvas):
        some = corners[start : start + _GAUSSIANS_AT_ONCE]
        places = some[:, None] + tf.reshape(patch, [1, -1])
        values = tf.tile(gaussian.reshape(1, -1), [tf.size(some), 1])
        drawn = tf.tensor_scatter_nd_max(
            canvas, tf.reshape(places, [-1, 1]), tf.reshape(values, [-1])
        )
        return start + _GAUSSIANS_AT_ONCE, drawn

    count = tf.size(corners)
    _, canvas = tf.while_loop(lambda start, _: start < count, draw, [tf.constant(0), canvas])
    canvas = tf.reshape(canvas, [-1, width])
    return canvas[before : before + height, before : before + size[1]]
