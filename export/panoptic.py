"""The merge of a panoptic model inside a TensorFlow graph, as `predict` does it outside.

`deeplab_tf.inference.panoptic.HeadScoreMap` is the same in NumPy, and says why; of masks it is
`deeplab_tf.inference.masks`.
"""

import dataclasses

import keras
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.inference.panoptic import center_settings, mask_settings
from deeplab_tf.models.base import instances_by
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.masks import merge_masks
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.panoptic import OPS, merge
from deeplab_tf.postprocess.panoptic_rules import find_centers

# Of each segment; what a picture has fewer of than another in its batch is filled up: ids and
# classes with -1, the rest with 0.
SEGMENT_IDS = "segment_ids"
SEGMENT_CLASSES = "segment_classes"
SEGMENT_AREAS = "segment_areas"
SEGMENT_BOXES = "segment_boxes"
SEGMENT_SCORES = "segment_scores"
_PADDING = {SEGMENT_IDS: -1, SEGMENT_CLASSES: -1}
# Of one picture, for `tf.map_fn`.
SEGMENT_SPECS = {
    SEGMENT_IDS: tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0),
    SEGMENT_CLASSES: tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0),
    SEGMENT_AREAS: tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0),
    SEGMENT_BOXES: tf.RaggedTensorSpec([None, 4], tf.int32, ragged_rank=0),
    SEGMENT_SCORES: tf.RaggedTensorSpec([None], tf.float32, ragged_rank=0),
}


def settings_of(model: keras.Model, info: ModelInfo) -> MergeSettings | MaskSettings | None:
    """How a model's answers are merged; None of a model that tells no instances apart.

    Raises:
        InputError: it does, and its record doesn't say how.
    """
    kind = instances_by(model)
    if kind is None:
        return None
    try:
        return mask_settings(info) if kind == "masks" else center_settings(info)
    except InputError as error:
        raise InputError(f"{model.name} can't be exported: {error}") from None


def panoptic_maps(model: keras.Model, image: tf.Tensor, *, small: bool = False) -> dict:
    """float32 pixels 0..255 [B, H, W, 3] -> probabilities, center_heatmap and offset_map.

    Args:
        model: a panoptic one.
        image: pixels.
        small: leave the maps at the decoders' stride where the model enlarges them.
    """
    names = {
        keys.SEMANTIC_LOGITS: "logits",
        keys.CENTER_HEATMAP: f"{keys.CENTER_HEATMAP}_raw",
        keys.OFFSET_MAP: f"{keys.OFFSET_MAP}_raw",
    }
    if small and {*names.values()} <= {*getattr(model, "endpoints", {})}:
        found = model.endpoint_model(*names.values())(image, training=False)
        found = {key: found[name] for key, name in names.items()}
    else:
        found = model(image, training=False)
    return {
        keys.PROBABILITIES: tf.nn.softmax(tf.cast(found[keys.SEMANTIC_LOGITS], tf.float32)),
        keys.CENTER_HEATMAP: tf.cast(found[keys.CENTER_HEATMAP], tf.float32),
        keys.OFFSET_MAP: tf.cast(found[keys.OFFSET_MAP], tf.float32),
    }


def merged(maps: dict, size: tf.Tensor, settings: MergeSettings) -> dict:
    """Maps of whole pictures [B, h, w, C] -> what they say at the pictures' size.

    Args:
        maps: see `panoptic_maps`.
        size: (height, width) of the pictures, int32 [2].
        settings: of the merge.

    Returns:
        panoptic_label int32 [B, H, W], instance_score float32 [B, H, W], probabilities float32
        [B, H, W, classes].
    """
    heatmap, offsets = maps[keys.CENTER_HEATMAP][..., 0], maps[keys.OFFSET_MAP]
    # Not "/", which TensorFlow turns into the product with a reciprocal where the shape is fixed:
    # of a centre half-way between two pixels, the last bit says which one it gets.
    scale = tf.math.divide_no_nan(
        tf.cast(size, tf.float64), tf.cast(tf.shape(heatmap)[1:3], tf.float64)
    )
    probabilities = _resize(maps[keys.PROBABILITIES], size)
    labels = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    labels = _without_small_stuff(labels, probabilities.shape[-1], scale, settings)
    centers = tf.map_fn(
        lambda one: _place_centers(one, size, scale, settings),
        heatmap,
        fn_output_signature=tf.TensorSpec([None, None], tf.float32),
    )
    offsets = _resize(offsets * tf.cast(scale, tf.float32), size)
    # Centres and stuff have been chosen above.
    rest = dataclasses.replace(settings, nms_kernel=1, stuff_area_limit=0)
    found = merge(labels, centers[..., None], offsets, rest)
    return {
        keys.PANOPTIC_LABEL: found[keys.PANOPTIC_LABEL],
        keys.INSTANCE_SCORE: found[keys.INSTANCE_SCORE],
        keys.PROBABILITIES: probabilities,
    }


def merged_masks(
    model: keras.Model,
    image: tf.Tensor,
    filled: tf.Tensor,
    size: tf.Tensor,
    settings: MaskSettings,
) -> dict:
    """What a mask transformer says of pictures, at their size.

    Args:
        model: a mask transformer.
        image: float32 pixels 0..255 at the model's size [B, h, w, 3].
        filled: (height, width) of the part at the upper left that is picture, int32 [2].
        size: (height, width) of the pictures, int32 [2].
        settings: of the merge.

    Returns:
        panoptic_label int32 [B, H, W], instance_score float32 [B, H, W], semantic_label int32
        [B, H, W].
    """
    outputs = model(image, training=False)
    logits = tf.cast(outputs[keys.MASK_LOGITS], tf.float32)
    whole, cells = (tf.cast(tf.shape(x)[1:3], tf.float64) for x in (image, logits))
    # Corner on corner: cells lie so many pixels of the input apart.
    stride = tf.maximum((whole - 1.0) / tf.maximum(cells - 1.0, 1.0), 1e-6)
    inside, wanted = tf.cast(filled, tf.float64), tf.cast(size, tf.float64)
    sides = tf.minimum(cells, tf.math.ceil((inside - 1.0) / stride) + 1.0)
    reach = tf.round(wanted * (stride * (sides - 1.0) + 1.0) / inside)
    reach = tf.cast(tf.maximum(reach, wanted), tf.int32)
    sides = tf.cast(sides, tf.int32)
    area = tf.cast(tf.reduce_prod(wanted) / tf.reduce_prod(inside), tf.float32)
    found = merge_masks(
        logits[:, : sides[0], : sides[1]],
        tf.cast(outputs[keys.MASK_CLASS_LOGITS], tf.float32),
        settings,
        (reach[0], reach[1]),
        area_scale=area,
    )
    wanted_keys = (keys.PANOPTIC_LABEL, keys.INSTANCE_SCORE, keys.SEMANTIC_LABEL)
    return {key: found[key][:, : size[0], : size[1]] for key in wanted_keys}


def _resize(values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] -> [B, H, W, C], bilinear, half-pixel centres; smoothed where it shrinks."""
    shrinks = tf.reduce_any(size < tf.shape(values)[1:3])
    return tf.cond(
        shrinks,
        lambda: tf.image.resize(values, size, antialias=True),
        lambda: tf.image.resize(values, size),
    )


def _place_centers(heatmap, size, scale, settings: MergeSettings) -> tf.Tensor:
    """The peaks of a heatmap [h, w] in a map of the picture's size, which is zero elsewhere."""
    positions, scores, count = find_centers(OPS, heatmap, settings)
    positions, scores = positions[:count], scores[:count]
    width = tf.shape(heatmap)[1]
    places = tf.stack([positions // width, positions % width], axis=-1)
    places = tf.round((tf.cast(places, tf.float64) + 0.5) * scale - 0.5)
    places = tf.clip_by_value(tf.cast(places, tf.int32), 0, size - 1)
    return tf.tensor_scatter_nd_max(tf.zeros(size, tf.float32), places, scores)


def _without_small_stuff(labels, num_classes: int, scale, settings: MergeSettings) -> tf.Tensor:
    """Classes [B, H, W] where stuff that has too few pixels in a picture is void.

    The limit is in pixels of the model's resolution, whose size is known only now.
    """
    limit = tf.round(settings.stuff_area_limit * scale[0] * scale[1])
    if settings.rule == "compiled":
        limit += 1.0
    flat = tf.reshape(labels, [tf.shape(labels)[0], -1])
    areas = tf.math.bincount(flat, minlength=num_classes, maxlength=num_classes, axis=-1)
    stuff = tf.constant([c not in settings.thing_classes for c in range(num_classes)])
    small = stuff & (tf.cast(areas, tf.float64) < limit)
    is_small = tf.reshape(tf.gather(small, flat, batch_dims=1), tf.shape(labels))
    return tf.where(is_small, settings.void_label, labels)


def listed_segments(
    panoptic_label: tf.Tensor, instance_score: tf.Tensor, settings: MergeSettings | MaskSettings
) -> dict[str, tf.Tensor]:
    """The segments of panoptic maps int32 [B, H, W], by id, S the most that a picture has.

    The same as `deeplab_tf.postprocess.segments.segments` finds.

    Returns:
        segment_ids int32 [B, S], their values in the map; segment_classes int32 [B, S];
        segment_areas int32 [B, S]; segment_boxes int32 [B, S, 4], (x, y, width, height);
        segment_scores float32 [B, S], 0 for stuff, which has none.
    """
    ragged = tf.map_fn(
        lambda maps: picture_segments(maps[0], maps[1], settings),
        (panoptic_label, instance_score),
        fn_output_signature=SEGMENT_SPECS,
    )
    return padded_segments(ragged)


def padded_segments(ragged: dict[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
    """Segments of several pictures as arrays."""
    return {name: x.to_tensor(_PADDING.get(name, 0)) for name, x in ragged.items()}


def picture_segments(
    labels: tf.Tensor, scores: tf.Tensor, settings: MergeSettings | MaskSettings
) -> dict:
    """`listed_segments` of one picture [H, W], without padding: [S, ...]."""
    width = tf.shape(labels)[1]
    values, index, areas = tf.unique_with_counts(tf.reshape(labels, [-1]))
    count = tf.size(values)
    place = tf.range(tf.size(index))
    x, y = place % width, place // width
    left, right = _range(x, index, count)
    top, bottom = _range(y, index, count)
    # A large segment is a long sum.
    sums = tf.math.unsorted_segment_sum(tf.cast(tf.reshape(scores, [-1]), tf.float64), index, count)
    classes = values // settings.label_divisor
    things = tf.constant(settings.thing_classes, tf.int32)
    is_thing = tf.reduce_any(classes[:, None] == things, axis=-1)
    means = tf.cast(sums / tf.cast(areas, tf.float64), tf.float32)
    order = tf.argsort(values, stable=True)
    order = tf.boolean_mask(order, tf.gather(classes, order) != settings.void_label)
    found = {
        SEGMENT_IDS: values,
        SEGMENT_CLASSES: classes,
        SEGMENT_AREAS: areas,
        SEGMENT_BOXES: tf.stack([left, top, right - left + 1, bottom - top + 1], axis=-1),
        SEGMENT_SCORES: tf.where(is_thing, means, 0.0),
    }
    return {name: tf.gather(x, order) for name, x in found.items()}


def _range(values: tf.Tensor, index: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Smallest and largest value of each group."""
    return (
        tf.math.unsorted_segment_min(values, index, count),
        tf.math.unsorted_segment_max(values, index, count),
    )
