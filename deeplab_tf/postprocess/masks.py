"""The merge of a mask transformer's outputs into panoptic maps, in Keras ops.

    merge_masks(mask_logits, class_logits, MaskSettings(...), size=(H, W))["panoptic_label"]

Works eagerly, in a `tf.function` with unknown sizes, in a SavedModel, under `jax.jit` and with
PyTorch. The rules are in `mask_settings.py`.

All that needs the enlarged logits, which are large, is done for some rows at a time and leaves
maps of single numbers. Masks are numbered from 1 in the order in which they are pasted, or by slot
where none is; 0 is no mask.
"""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import resize_rows
from deeplab_tf.models.mask_classes import order_of_channels
from deeplab_tf.postprocess.bands import by_bands, count, in_turn, largest, value_at
from deeplab_tf.postprocess.mask_settings import RULES, MaskSettings

__all__ = ["RULES", "MaskSettings", "Slots", "merge_masks", "rank_slots"]

# What softmax makes nothing of.
_DROPPED = -99999.0
# Above this, a pixel is sure of two masks at most. A little above a third: sums are rounded.
_ONLY_PAIRS = 0.34


def merge_masks(mask_logits, class_logits, settings: MaskSettings, size, *, area_scale=1.0) -> dict:
    """A batch of network outputs -> panoptic maps.

    Pictures are merged one after another, in bands of rows: beside its maps a picture takes some
    copies of at most 2**22 enlarged logits, or of one row's, whatever its size.

    Args:
        mask_logits: float [B, h, w, slots], at the model's own stride, corners aligned.
        class_logits: float [B, slots, classes + 1], the classes in the order of
            `mask_classes.class_order`, void last.
        settings: see there.
        size: (H, W) of the maps, integers or, in a TensorFlow graph, scalar tensors.
        area_scale: pixels of these maps for one of the model's input, which area limits count: a
            number or a scalar tensor.

    Returns:
        panoptic_label int32 [B, H, W], where a thing's instance is the number of its mask;
        semantic_label int32 [B, H, W], the class of the slot with the largest logit, whatever the
        thresholds, and never void; instance_map int32 [B, H, W], the mask of each pixel by number,
        0 without one: pixelwise, pixels that aren't sure of it have one too; instance_score
        float32 [B, H, W], the largest probability of a mask, pixelwise of one that wasn't dropped;
        semantic_score float32 [B, H, W], the mask's probability of its class, 0 without a mask.
        Where no slot is sure of its class, all is void and both scores are 0.

    Raises:
        InputError: slots or classes aren't known or don't fit to each other or to the settings.
    """
    mask_logits, class_logits = ops.cast(mask_logits, "float32"), ops.cast(class_logits, "float32")
    classes = _classes_of(mask_logits.shape, class_logits.shape, settings)

    def picture(i):
        masks, logits = ops.take(mask_logits, i, axis=0), ops.take(class_logits, i, axis=0)
        return _merge_picture(masks, logits, classes, settings, size, area_scale)

    like = [ops.zeros(size, dtype) for dtype in ("int32", "int32", "int32", "float32", "float32")]
    maps = in_turn(picture, ops.shape(mask_logits)[0], like)
    names = (keys.PANOPTIC_LABEL, keys.SEMANTIC_LABEL, keys.INSTANCE_MAP)
    return dict(zip((*names, keys.INSTANCE_SCORE, keys.SEMANTIC_SCORE), maps, strict=True))


def _classes_of(masks, logits, settings: MaskSettings) -> np.ndarray:
    """The class of each channel, int32 [C], from the shapes of both inputs."""
    if len(masks) != 4 or len(logits) != 3 or masks[-1] is None or masks[-1] != logits[1]:
        raise InputError(
            "mask_logits are [B, h, w, slots] and class_logits [B, slots, classes + 1], with as "
            f"many slots; got {[*masks]} and {[*logits]}."
        )
    if logits[-1] is None or logits[-1] < 2:
        raise InputError(f"class_logits have a channel for each class and void; got {[*logits]}.")
    if masks[-1] >= settings.label_divisor:
        raise InputError(
            f"label_divisor is above the number of slots, {masks[-1]}; got "
            f"{settings.label_divisor}."
        )
    order = order_of_channels(logits[-1], settings.thing_classes, settings.void_label)
    return np.array(order, np.int32)


def _merge_picture(mask_logits, class_logits, classes, settings, size, area_scale):
    """One picture: the maps of `merge_masks`, [H, W] each, in their order."""
    slots = rank_slots(mask_logits, class_logits, settings)
    rule = _pixelwise if settings.rule == "pixelwise" else _maskwise
    first, instance, number, score = rule(mask_logits, slots, settings, size)
    labels = _labels(slots, number, classes, settings, area_scale)
    semantic = ops.take(classes, ops.take(slots.channel, slots.rank))
    confidence = ops.pad(slots.confidence, [(1, 0)])
    return (
        ops.take(labels, number),
        ops.take(semantic, first),
        instance,
        ops.where(slots.any_sure, score, 0.0),
        ops.take(confidence, instance),
    )


class Slots(NamedTuple):
    """What the slots of one picture say, in the order of their numbers.

    Attributes:
        order: the slot, int32 [S].
        rank: of each slot, its place in that order, int32 [S].
        channel: its class, void never, int32 [S].
        confidence: its probability of that class, float32 [S].
        thing: whether the class is a thing, bool [S].
        sure: whether the probability is high enough, bool [S].
        any_sure: whether that of any slot is, bool; maskwise by the lower of the two thresholds.
    """

    order: Any
    rank: Any
    channel: Any
    confidence: Any
    thing: Any
    sure: Any
    any_sure: Any


def rank_slots(mask_logits, class_logits, settings: MaskSettings) -> Slots:
    """Reads the classes of slots and puts these in order.

    Args:
        mask_logits: float32 [h, w, S], not enlarged.
        class_logits: float32 [S, C + 1].
        settings: see there.
    """
    confidence, channel = largest(ops.softmax(class_logits)[:, :-1])
    thing = channel < len(settings.thing_classes)
    order = rank = ops.arange(class_logits.shape[0], dtype="int32")
    if settings.rule == "pixelwise":
        sure = confidence >= settings.class_confidence_threshold
        return Slots(order, rank, channel, confidence, thing, sure, ops.any(sure))
    limits = settings.class_confidence_threshold_thing, settings.class_confidence_threshold_stuff
    sure = ops.where(thing, confidence >= limits[0], confidence >= limits[1])
    score = ops.power(confidence, settings.class_weight) * ops.power(
        _mean_probability(mask_logits, settings.pixel_confidence_threshold), settings.mask_weight
    )
    order = ops.cast(ops.argsort(-score), "int32")  # stable
    rank = ops.cast(ops.argsort(order), "int32")
    any_sure = ops.any(confidence >= min(limits))
    channel, confidence, thing, sure = (
        ops.take(x, order) for x in (channel, confidence, thing, sure)
    )
    return Slots(order, rank, channel, confidence, thing, sure, any_sure)


def _mean_probability(mask_logits, threshold: float):
    """The mean probability of each mask over the pixels that are sure of it, float32 [S]."""

    def sums(logits):
        probability = ops.softmax(logits)
        sure = ops.cast(probability > threshold, "float32")
        return ops.sum(probability * sure, axis=1), ops.sum(sure, axis=1)

    height, width, slots = ops.shape(mask_logits)
    like = [(slots, "float32")] * 2
    total, pixels = (ops.sum(x, axis=0) for x in by_bands(sums, mask_logits, (height, width), like))
    return total / ops.maximum(pixels, 1.0)


# --- The two rules: the slot with the largest logit, the mask of a pixel, the same where it is sure
# of it, and the largest probability; [H, W] each ---


def _pixelwise(mask_logits, slots: Slots, settings: MaskSettings, size):
    def decide(logits):
        highest, first = largest(logits)
        logits = ops.where(slots.sure, logits, _DROPPED)
        highest_kept, kept = largest(logits)
        score = value_at(ops.softmax(logits), kept)
        sure = (score > settings.pixel_confidence_threshold) & (highest == highest_kept)
        instance = ops.where(slots.any_sure, kept + 1, 0)
        return first, instance, ops.where(sure, instance, 0), score

    like = [(size[1], "int32")] * 3 + [(size[1], "float32")]
    return by_bands(decide, mask_logits, size, like)


def _maskwise(mask_logits, slots: Slots, settings: MaskSettings, size):
    paste = _paste_pairs if settings.pixel_confidence_threshold >= _ONLY_PAIRS else _paste_in_turn
    first, number, score = paste(mask_logits, slots, settings, size)
    number = ops.where(slots.any_sure, number, 0)
    return first, number, number, score


def _paste_pairs(mask_logits, slots: Slots, settings: MaskSettings, size):
    """Masks pasted where no more than two lie over each other.

    Which of them stay is then decided by the areas that they have in common two by two, and the
    pixels are gone through once, not once for each mask.
    """
    number, threshold = mask_logits.shape[-1], settings.pixel_confidence_threshold

    def read(logits):
        """The two likeliest masks of a pixel by rank, the lower rank first."""
        _, first = largest(logits)
        probability = ops.softmax(logits)
        score = value_at(probability, first)
        others = ops.where(ops.arange(number) == first[..., None], -1.0, probability)
        score_2, second = largest(others)
        rank = ops.where(score > threshold, ops.take(slots.rank, first), number)
        rank_2 = ops.where(score_2 > threshold, ops.take(slots.rank, second), number)
        return first, ops.minimum(rank, rank_2), ops.maximum(rank, rank_2), score

    like = [(size[1], "int32")] * 3 + [(size[1], "float32")]
    first, above, below, score = by_bands(read, mask_logits, size, like)
    pairs = count(above * (number + 1) + below, (number + 1) ** 2)
    pairs = ops.reshape(pairs, (number + 1, number + 1))
    stays = ops.pad(_staying(pairs, slots, settings), [(0, 1)])
    pasted = ops.where(ops.take(stays, below) > 0, below + 1, 0)
    return first, ops.where(ops.take(stays, above) > 0, above + 1, pasted), score


def _staying(pairs, slots: Slots, settings: MaskSettings):
    """Which masks aren't covered too much by those before them: 0 or 1, int32 [S].

    Args:
        pairs: pixels that are sure of masks i and j, i before j; j = S: of i alone. int32
            [S + 1, S + 1].
        slots, settings: see there.
    """
    number = pairs.shape[0] - 1
    area = (ops.sum(pairs, axis=0) + ops.sum(pairs, axis=1))[:number]
    pairs = pairs[:number, :number]
    ranks = ops.arange(number, dtype="int32")

    def step(rank, stays):
        covered = ops.sum(stays * ops.take(pairs, rank, axis=1))
        fits = _fits(ops.take(area, rank) - covered, ops.take(area, rank), settings)
        fits = fits & ops.take(slots.sure, rank)
        return ops.where(ranks == rank, ops.cast(fits, "int32"), stays)

    return ops.fori_loop(0, number, step, ops.zeros((number,), "int32"))


def _paste_in_turn(mask_logits, slots: Slots, settings: MaskSettings, size):
    """Masks pasted one by one: for low thresholds, where many lie over each other."""

    def read(logits):
        highest, first = largest(logits)
        return first, highest, value_at(ops.softmax(logits), first)

    like = [(size[1], dtype) for dtype in ("int32", "float32", "float32")]
    first, highest, score = by_bands(read, mask_logits, size, like)
    rows = ops.arange(size[0], dtype="int32")

    def step(rank, pasted):
        one = ops.take(mask_logits, ops.take(slots.order, rank), axis=-1)
        # Not all at once, which rounds otherwise than `by_bands`.
        logit = resize_rows(one[None, :, :, None], rows, size)[0, :, :, 0]
        mask = ops.exp(logit - highest) * score > settings.pixel_confidence_threshold
        free = mask & (pasted == 0)
        free_area, area = (ops.sum(ops.cast(x, "int32")) for x in (free, mask))
        stays = _fits(free_area, area, settings) & ops.take(slots.sure, rank)
        return ops.where(free & stays, rank + 1, pasted)

    pasted = ops.fori_loop(0, mask_logits.shape[-1], step, ops.zeros_like(first))
    return first, pasted, score


def _fits(free, area, settings: MaskSettings):
    """Whether enough of a mask's pixels are still free; in float32, as published."""
    return ops.cast(free, "float32") > ops.cast(area, "float32") * settings.overlap_threshold


def _labels(slots: Slots, number, classes, settings: MaskSettings, area_scale):
    """The panoptic label of each mask by number, int32 [S + 1]."""
    ids = ops.arange(1, slots.channel.shape[0] + 1, dtype="int32")
    area = count(number, slots.channel.shape[0] + 1)[1:]
    of_class = ops.segment_sum(area, slots.channel, len(classes))
    area = ops.where(slots.thing, area, ops.take(of_class, slots.channel))
    limit = ops.where(slots.thing, settings.thing_area_limit, settings.stuff_area_limit)
    limit = ops.cast(limit, "float32") * ops.cast(area_scale, "float32")
    labels = ops.take(classes, slots.channel) * settings.label_divisor
    labels = labels + ops.where(slots.thing, ids, 0)
    labels = ops.where(ops.cast(area, "float32") >= limit, labels, settings.void_value)
    return ops.pad(labels, [(1, 0)], constant_values=settings.void_value)
