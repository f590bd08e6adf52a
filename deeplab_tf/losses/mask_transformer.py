"""The losses of MaX-DeepLab (https://arxiv.org/abs/2012.00759, Sec. 3.2 and 3.4) and kMaX-DeepLab
(https://arxiv.org/abs/2207.04044), all of one object: they share one matching.

The official code sorts a model's slots by the masks they are matched with. Here everything stays
in the order of the slots: softmax over them doesn't mind.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import resize_bilinear
from deeplab_tf.losses.assignment import Assignment, assign
from deeplab_tf.losses.instance_discrimination import (
    mask_contrast,
    pixel_contrast,
    sample_pixels,
    take_rows,
)
from deeplab_tf.losses.mask_targets import Masks, read_masks, strided
from deeplab_tf.losses.panoptic import SemanticLoss
from deeplab_tf.losses.parts import mean_of_nonzero, take_each, without_target
from deeplab_tf.models.mask_classes import class_order

# The form of the names of the main answer's outputs.
_MAIN = "{}"
_WEIGHTS = ("pq_weight", "mask_id_weight", "instance_weight", "semantic_weight")


class _Answer(NamedTuple):
    """One of a model's answers at the size of the main one: P pixels, S slots, C channels."""

    feature: Any  # [B, P, D]
    logits: Any  # of slots, [B, P, S]
    total: Any  # their logsumexp, [B, P]
    share: Any  # their softmax, [B, P, S]
    class_logits: Any  # [B, S, C]


@keras.saving.register_keras_serializable(package="deeplab_tf")
class MaskTransformerLoss(keras.losses.Loss):
    """PQ-style, mask-id, instance and semantic losses of all outputs of a mask transformer.

    Arithmetic is float32 under any policy. Of a picture that has nothing labelled, the slots learn
    that they are void; all other terms are 0. Masks beyond the number of slots lose nothing. The
    matching runs on the host, and XLA can't compile it in TensorFlow: see `matching.match`.

    Args:
        num_classes: of the labels.
        thing_classes: those that have instances.
        ignore_label: class of pixels that aren't labelled.
        pq_weight: of the PQ-style loss, that is of its class term and its dice term.
        mask_id_weight: of the cross-entropy over the slots of each pixel.
        instance_weight: of instance discrimination.
        semantic_weight: of the semantic cross-entropy. A weight of 0 leaves the loss out.
        focal_alpha: weight of slots that have a mask; those without have the rest to 1.
        top_k_percent_pixels: share of pixels that the semantic loss counts, the hardest.
        instance_temperature: of the softmax of instance discrimination.
        instance_sample_k: 0 contrasts pixels with masks, as MaX-DeepLab does; else so many pixels
            are drawn and contrasted with each other, as kMaX-DeepLab does.
        instance_sample_temperature: the higher, the more of them come from small masks.
        semantic_sample_k: 0 counts all pixels in the semantic loss; else so many are drawn, as
            kMaX-DeepLab does on COCO. Its logits then have the size of the mask logits.
        semantic_sample_temperature: the higher, the more of these come from small masks.
        seed: of the draws.

    Attributes:
        seed_generator: of the draws; None if nothing is drawn. A model that is trained with JAX, or
            whose training is to resume exactly, has to hold it as an attribute.
    """

    # It is called once, with all targets and all outputs.
    takes_all_outputs = True

    def __init__(
        self,
        num_classes: int,
        thing_classes: Collection[int],
        ignore_label: int,
        *,
        pq_weight: float = 3.0,
        mask_id_weight: float = 0.3,
        instance_weight: float = 1.0,
        semantic_weight: float = 1.0,
        focal_alpha: float = 0.75,
        top_k_percent_pixels: float = 1.0,
        instance_temperature: float = 0.3,
        instance_sample_k: int = 0,
        instance_sample_temperature: float = 0.6,
        semantic_sample_k: int = 0,
        semantic_sample_temperature: float = 1.0,
        seed: int | None = None,
        name: str = "mask_transformer_loss",
        **kwargs,
    ):
        # Keras puts this in the configs of losses; a mean over pictures is the only one here.
        kwargs.pop("reduction", None)
        super().__init__(name=name, reduction=None, **kwargs)
        self._classes: dict[str, Any] = dict(
            num_classes=num_classes,
            thing_classes=tuple(sorted(set(thing_classes))),
            ignore_label=ignore_label,
        )
        self._channels = len(class_order(**self._classes)) + 1
        self._settings: dict[str, Any] = dict(
            pq_weight=float(pq_weight),
            mask_id_weight=float(mask_id_weight),
            instance_weight=float(instance_weight),
            semantic_weight=float(semantic_weight),
            focal_alpha=float(focal_alpha),
            top_k_percent_pixels=float(top_k_percent_pixels),
            instance_temperature=float(instance_temperature),
            instance_sample_k=instance_sample_k,
            instance_sample_temperature=float(instance_sample_temperature),
            semantic_sample_k=semantic_sample_k,
            semantic_sample_temperature=float(semantic_sample_temperature),
            seed=seed,
        )
        for key in (*_WEIGHTS, "instance_sample_k", "semantic_sample_k"):
            if not self._settings[key] >= 0:
                raise InputError(f"{key} is at least 0; got {self._settings[key]}.")
        if not instance_temperature > 0.0:
            raise InputError(f"instance_temperature is above 0; got {instance_temperature}.")
        if not 0.0 <= focal_alpha <= 1.0:
            raise InputError(f"focal_alpha is in [0, 1]; got {focal_alpha}.")
        self._semantic = SemanticLoss(
            num_classes, ignore_label, top_k_percent_pixels, semantic_weight
        )
        draws = instance_sample_k or semantic_sample_k
        self.seed_generator = keras.random.SeedGenerator(seed) if draws else None

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The mean over the pictures of the sum of `terms`; `sample_weight` [B] is of pictures."""
        with keras.name_scope(self.name):
            losses = self.call(y_true, y_pred)
            if sample_weight is not None:
                losses = losses * ops.cast(sample_weight, "float32")
            return ops.mean(losses)

    def call(self, y_true, y_pred):
        """The sum of `terms` of each picture: float32 [B]."""
        return sum(self.terms(y_true, y_pred).values())

    def terms(self, targets: dict, outputs: dict) -> dict[str, Any]:
        """Each loss of each picture, weighted.

        Args:
            targets: "semantic_label" int32 [B, H, W], "thing_id_mask" int32 [B, H, W] and
                "thing_id_class" [B, max_thing_id] (see `read_masks`); "semantic_weight" float
                [B, H, W] may weigh the pixels of the semantic loss.
            outputs: of the model: "pixel_space_normalized_feature" [B, h, w, D],
                "pixel_space_mask_logits" [B, h, w, S], "transformer_class_logits" [B, S, C] and
                "semantic_logits" [B, h', w', num_classes], at strides that are powers of two; and
                the first three of any number of auxiliary answers, at any size.

        Returns:
            Float32 [B] each: "pq_class", "pq_dice", "mask_id", "instance", "auxiliary_0_pq_class"
            and so on, "semantic".

        Raises:
            InputError: the model's slots choose from other classes, an output's size is no stride
                of the labels', or pixels are to be drawn of semantic logits of another size.
        """
        size = ops.shape(outputs[keys.MASK_LOGITS])[1:3]
        _check_channels(outputs[keys.MASK_CLASS_LOGITS], self._channels)
        masks = read_masks(targets, size, **self._classes)
        answers = {prefix: _answer(outputs, form, size) for prefix, form in _answers_in(outputs)}
        main = answers[""]
        assignment = assign(main.share, main.class_logits, masks)
        found = {}
        for prefix, answer in answers.items():
            for name, value in self._terms_of(answer, masks, assignment).items():
                found[prefix + name] = value
        if self._settings["semantic_weight"]:
            logits = outputs[keys.SEMANTIC_LOGITS]
            if self._settings["semantic_sample_k"]:
                _check_sizes(logits.shape[1:3], outputs[keys.MASK_LOGITS].shape[1:3])
            found["semantic"] = self._semantic_term(targets, logits, masks)
        return found

    def uniform(self, shape):
        """What each draw of pixels is made of: float32 numbers in [0, 1)."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _terms_of(self, answer: _Answer, masks: Masks, assignment: Assignment) -> dict[str, Any]:
        """The terms of one answer, weighted: float32 [B] each."""
        found, settings = {}, self._settings
        own = take_each(answer.logits, assignment.slot_of_pixel)
        if settings["pq_weight"]:
            # The class term is a mean over the slots, with alpha for those that have a mask. The
            # dice term is balanced with it (Eq. 10).
            balance = settings["focal_alpha"] / answer.logits.shape[-1]
            dice = _dice_term(answer, own, masks, assignment)
            classes = _class_term(answer.class_logits, assignment, settings["focal_alpha"])
            found["pq_class"] = settings["pq_weight"] * classes
            found["pq_dice"] = settings["pq_weight"] * balance * dice
        if settings["mask_id_weight"]:
            mask_id = _mask_id_term(answer, own, masks, assignment)
            found["mask_id"] = settings["mask_id_weight"] * mask_id
        if settings["instance_weight"]:
            found["instance"] = settings["instance_weight"] * self._instance_term(answer, masks)
        return found

    def _instance_term(self, answer: _Answer, masks: Masks):
        settings = self._settings
        temperature, count = settings["instance_temperature"], settings["instance_sample_k"]
        if not count:
            return mask_contrast(answer.feature, masks, temperature)
        uniform = self.uniform(ops.shape(masks.number))
        sample = sample_pixels(masks, count, settings["instance_sample_temperature"], uniform)
        return pixel_contrast(answer.feature, masks, temperature, sample)

    def _semantic_term(self, targets: dict, logits, masks: Masks):
        size = ops.shape(logits)[1:3]
        label = strided(targets[keys.SEMANTIC_LABEL], size)
        weight = targets.get(keys.SEMANTIC_WEIGHT)
        weight = ops.ones_like(label, "float32") if weight is None else strided(weight, size)
        count = self._settings["semantic_sample_k"]
        if count:
            temperature = self._settings["semantic_sample_temperature"]
            sample = sample_pixels(masks, count, temperature, self.uniform(ops.shape(masks.number)))
            label, weight, logits = (
                take_rows(ops.reshape(x, (-1, size[0] * size[1], channels)), sample)
                for x, channels in ((label, 1), (weight, 1), (logits, logits.shape[-1]))
            )
            label, weight = label[..., 0], weight[..., 0]
        return self._semantic.per_image(label, logits, weight)

    def get_config(self):
        return {"name": self.name, **self._classes, **self._settings}


def _check_channels(class_logits, channels: int) -> None:
    if class_logits.shape[-1] != channels:
        raise InputError(
            f"The loss has {channels} classes for a slot, void among them, and the model "
            f"{class_logits.shape[-1]}: give both the same num_classes and ignore_label."
        )


def _check_sizes(semantic, masks) -> None:
    """Refuses semantic logits that aren't where masks are, if both sizes are known."""
    if None not in (*semantic, *masks) and tuple(semantic) != tuple(masks):
        raise InputError(
            "semantic_sample_k draws pixels of the masks, so that semantic logits have to be of "
            f"their size; got {[*semantic]} and {[*masks]}. Give the model its semantic decoder, "
            "or leave semantic_sample_k at 0."
        )


def _answers_in(outputs: dict) -> Iterator[tuple[str, str]]:
    """The prefix of the terms of each answer, and the form of the names of its outputs."""
    yield "", _MAIN
    number = 0
    while (form := keys.AUXILIARY.format(number, "{}")).format(keys.MASK_LOGITS) in outputs:
        yield form.format(""), form
        number += 1


def _answer(outputs: dict, form: str, size) -> _Answer:
    """An answer of a model at the size of its main one."""
    maps = [
        ops.cast(outputs[form.format(key)], "float32")
        for key in (keys.PIXEL_FEATURE, keys.MASK_LOGITS)
    ]
    fixed = all(isinstance(side, int) for side in size)
    if form != _MAIN and not (fixed and tuple(maps[1].shape[1:3]) == tuple(size)):
        maps = [resize_bilinear(x, size) for x in maps]
    feature, logits = (ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1])) for x in maps)
    class_logits = ops.cast(outputs[form.format(keys.MASK_CLASS_LOGITS)], "float32")
    total = ops.logsumexp(logits, axis=-1)
    return _Answer(feature, logits, total, ops.exp(logits - total[..., None]), class_logits)


def _class_term(logits, assignment: Assignment, alpha: float):
    """Cross-entropy of the slots' classes, void for those without a mask: [B, S, C] -> [B].

    Of the focal loss only alpha is left: its gamma is 0.
    """
    void = assignment.channel == logits.shape[-1] - 1
    weight = ops.where(void, 1.0 - alpha, alpha) * assignment.slot_weight
    losses = ops.logsumexp(logits, axis=-1) - take_each(logits, assignment.channel)
    return mean_of_nonzero(losses * weight)


def _dice_term(answer: _Answer, own, masks: Masks, assignment: Assignment):
    """Dice loss of each mask and its slot, weighted by the slot's class probability: [B]."""
    inside = ops.where(assignment.slot_of_pixel >= 0, ops.exp(own - answer.total), 0.0)
    common = ops.einsum("bpm,bp->bm", masks.of_pixel, inside)
    in_masks = ops.cast(masks.number >= 0, "float32")
    claimed = ops.einsum("bps,bp->bs", answer.share, in_masks)
    claimed = ops.einsum("bms,bs->bm", assignment.slot_of_mask, claimed)
    dice = (2.0 * common + 1.0) / (claimed + masks.area + 1.0)
    return ops.sum(assignment.mask_weight * (1.0 - dice), axis=1)


def _mask_id_term(answer: _Answer, own, masks: Masks, assignment: Assignment):
    """Cross-entropy of each pixel's slot: [B]. A labelled pixel without one is in none."""
    losses = ops.where(assignment.slot_of_pixel >= 0, answer.total - own, 0.0)
    without = masks.labelled & (assignment.slot_of_pixel < 0)
    return mean_of_nonzero(losses + ops.where(without, without_target(answer.total), 0.0))
