"""What a model learns from, and by which losses."""

import dataclasses
from typing import Any

import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor, pipeline
from deeplab_tf.errors import InputError
from deeplab_tf.losses.mask_transformer import MaskTransformerLoss
from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss
from deeplab_tf.losses.semantic import SoftmaxCrossEntropy
from deeplab_tf.models.base import SegmentationModel, instances_by
from deeplab_tf.training.config import LossConfig, TrainConfig
from deeplab_tf.training.values import listed


def class_weights(config: TrainConfig, descriptor: DatasetDescriptor):
    """One weight for all classes, or a list of one for each.

    Raises:
        InputError: "auto" where the records don't say how frequent the classes are.
    """
    weights = config.loss.class_weights
    if weights == "auto":
        share = np.maximum(np.array(descriptor.pixel_share), 1e-4)
        if share.size != descriptor.num_classes:
            raise InputError(f"{config.data}: dataset.json has no pixel shares to weight by.")
        inverse = 1.0 / np.sqrt(share)
        return (inverse / (inverse * share).sum()).tolist()
    if weights and len(weights) != descriptor.num_classes:
        raise InputError(
            f"loss.class_weights has {len(weights)} numbers; {config.data} has "
            f"{descriptor.num_classes} classes: {listed(descriptor.classes)}."
        )
    return weights or 1.0


def build_losses(
    model: SegmentationModel, config: TrainConfig, descriptor: DatasetDescriptor, ignore: int, step
) -> dict[str, Any]:
    """Arguments of `compile`: the loss, or one for each output and what it counts."""
    settings = config.loss
    kind = instances_by(model)
    if kind == "masks":
        return {"loss": _mask_loss(config, descriptor, ignore)}
    if kind == "centers":
        return {"loss": _panoptic_losses(model, config, descriptor, ignore)}

    def loss(own_stride: bool = False) -> SoftmaxCrossEntropy:
        return SoftmaxCrossEntropy(
            descriptor.num_classes,
            ignore,
            class_weights=class_weights(config, descriptor),
            top_k_percent_pixels=settings.top_k_percent_pixels,
            hard_example_mining_step=settings.hard_example_mining_step,
            upsample_logits=not own_stride,
            label_stride=settings.label_stride,
            step=step,
        )

    if not isinstance(model.output, dict):
        return {"loss": loss()}
    # The logits of a scale are at the stride that the scale has.
    losses = {name: loss(name.startswith(f"{keys.SEMANTIC_LOGITS}_")) for name in model.output}
    weights = {
        name: 1.0 if name == keys.SEMANTIC_LOGITS else settings.auxiliary_weight for name in losses
    }
    return {"loss": losses, "loss_weights": weights}


def _panoptic_losses(
    model: SegmentationModel, config: TrainConfig, descriptor: DatasetDescriptor, ignore: int
) -> dict[str, Any]:
    """A loss for each map of a panoptic model.

    Raises:
        InputError: a setting that these losses don't have.
    """
    settings, panoptic = config.loss, config.panoptic
    _refuse(settings, ("class_weights", "hard_example_mining_step", "label_stride"), "panoptic")
    losses = {
        keys.SEMANTIC_LOGITS: SemanticLoss(
            descriptor.num_classes, ignore, settings.top_k_percent_pixels
        ),
        keys.CENTER_HEATMAP: CenterLoss(panoptic.center_loss_weight),
        keys.OFFSET_MAP: OffsetLoss(panoptic.offset_loss_weight),
    }
    return {name: losses[name] for name in model.output}


def _mask_loss(
    config: TrainConfig, descriptor: DatasetDescriptor, ignore: int
) -> MaskTransformerLoss:
    """The one loss of all outputs of a mask transformer.

    Raises:
        InputError: a setting that it doesn't have.
    """
    names = {field.name for field in dataclasses.fields(LossConfig)} - {"top_k_percent_pixels"}
    _refuse(config.loss, tuple(sorted(names)), "mask-transformer")
    masks = config.masks
    return MaskTransformerLoss(
        descriptor.num_classes,
        descriptor.thing_classes,
        ignore,
        pq_weight=masks.pq_loss_weight,
        mask_id_weight=masks.mask_id_loss_weight,
        instance_weight=masks.instance_loss_weight,
        semantic_weight=masks.semantic_loss_weight,
        instance_sample_k=masks.instance_sample_k,
        instance_sample_temperature=masks.instance_sample_temperature,
        semantic_sample_k=masks.semantic_sample_k,
        semantic_sample_temperature=masks.semantic_sample_temperature,
        top_k_percent_pixels=config.loss.top_k_percent_pixels,
        seed=config.seed,
    )


def _refuse(settings: LossConfig, names: tuple[str, ...], kind: str) -> None:
    """Raises InputError for settings that a kind of model has no use for."""
    for name in names:
        if getattr(settings, name) != getattr(LossConfig, name):
            raise InputError(f"loss.{name} isn't for {kind} models; leave it out.")


def batches(model: SegmentationModel, config: TrainConfig, *, first_step: int = 0) -> Any:
    """The training batches of a model, from a step on: what its losses take.

    Raises:
        InputError: the records have no such split, or no instances where the model wants them.
    """
    kind = instances_by(model)
    small = config.masks if kind == "masks" else config.panoptic
    found = pipeline(
        config.data,
        config.train_split,
        image_size=config.image_size,
        batch_size=config.batch_size,
        training=True,
        augment=config.augment,
        seed=config.seed,
        first_step=first_step,
        targets={"masks": "masks", "centers": "panoptic", None: "semantic"}[kind],
        sigma=config.panoptic.sigma,
        small_instance_area=small.small_instance_area,
        small_instance_weight=small.small_instance_weight,
        max_thing_id=config.masks.max_thing_id,
    )
    if not isinstance(model.output, dict) or kind == "masks":
        return found
    names = list(model.output)
    if kind is None:
        return found.map(lambda images, labels: (images, dict.fromkeys(names, labels)))
    return found.map(
        lambda images, *maps: (images, *({name: part[name] for name in names} for part in maps))
    )
