"""What each slot of a mask transformer has to learn (MaX-DeepLab, https://arxiv.org/abs/2012.00759,
Sec. 3.2)."""

from typing import Any, NamedTuple

from keras import ops

from deeplab_tf.losses.mask_targets import Masks
from deeplab_tf.losses.matching import match

# The least weight of a mask or slot: one of 0 would take it out of the mean.
_LEAST_WEIGHT = 1e-5
_EPSILON = 1e-5


class Assignment(NamedTuple):
    """Masks to slots and back. P pixels, M masks, S slots; no gradient passes.

    Attributes:
        slot_of_mask: 0 and 1, float32 [B, M, S]; zeros for a mask without a slot.
        slot_of_pixel: int32 [B, P], -1: none.
        mask_weight: of the dice term, float32 [B, M]: how sure the slot is of the mask's class; 0
            for a mask without a slot.
        channel: the class of each slot, int32 [B, S]; void, the last, without a mask.
        slot_weight: of the class term, float32 [B, S]: how well the slot covers its mask, or,
            without one, how much of it lies where nothing is labelled.
    """

    slot_of_mask: Any
    slot_of_pixel: Any
    mask_weight: Any
    channel: Any
    slot_weight: Any


def assign(share, class_logits, masks: Masks) -> Assignment:
    """Gives each mask the slot that is most like it: dice times class probability, in sum.

    Args:
        share: of each slot in each pixel, float32 [B, P, S].
        class_logits: of the slots, float32 [B, S, C], void last.
        masks: of the labels.
    """
    share, class_logits = map(ops.stop_gradient, (share, class_logits))
    labelled = ops.cast(masks.labelled, "float32")
    claimed = ops.einsum("bps,bp->bs", share, labelled)
    void = ops.einsum("bps,bp->bs", share, 1.0 - labelled)
    dice = ops.einsum("bpm,bps->bms", masks.of_pixel, share)
    dice = dice / ((masks.area[..., None] + claimed[:, None]) / 2 + _EPSILON)
    probability = _class_probability(class_logits, masks)
    slot = match(-dice * probability, masks.present)

    chosen = slot[..., None] == ops.arange(class_logits.shape[1], dtype="int32")
    one_hot, taken = ops.cast(chosen, "float32"), ops.any(chosen, axis=1)
    channel = ops.sum(ops.where(chosen, masks.channel[..., None], 0), axis=1)
    covered = ops.where(taken, ops.sum(one_hot * dice, 1), void / (claimed + void + _EPSILON))
    confidence = ops.maximum(ops.sum(one_hot * probability, 2), _LEAST_WEIGHT)
    slot_of_pixel = ops.take_along_axis(slot, ops.maximum(masks.number, 0), axis=1)
    return Assignment(
        slot_of_mask=one_hot,
        slot_of_pixel=ops.where(masks.number >= 0, slot_of_pixel, -1),
        mask_weight=ops.where(slot >= 0, confidence, 0.0),
        channel=ops.where(taken, channel, class_logits.shape[2] - 1),
        slot_weight=ops.maximum(covered, _LEAST_WEIGHT),
    )


def _class_probability(logits, masks: Masks):
    """Of each mask's class in each slot: [B, S, C] -> [B, M, S]."""
    channels = ops.arange(logits.shape[2], dtype="int32")
    one_hot = ops.cast(masks.channel[..., None] == channels, "float32")
    return ops.einsum("bmc,bsc->bms", one_hot, ops.softmax(logits, axis=-1))
