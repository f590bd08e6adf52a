"""Scores of a validation split, added up batch by batch: one class per kind of model."""

from typing import Any

import keras
import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor
from deeplab_tf.inference.panoptic import center_settings, mask_settings
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.metrics.panoptic_quality import PanopticQuality
from deeplab_tf.models.base import instances_by
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.panoptic_pictures import panoptic_overlay
from deeplab_tf.pictures import colorize
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.masks import merge_masks
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.panoptic_numpy import merge


class Tally:
    """Adds up what a model says of the classes of pixels."""

    # What the pipeline gives to compare with.
    targets = "semantic"

    def __init__(self, info: ModelInfo, descriptor: DatasetDescriptor, ignore: int):
        self._descriptor, self._ignore = descriptor, ignore
        self._total = ConfusionMatrix(descriptor.num_classes, ignore)
        self._foreground: list[float] = []

    def update(self, labels: np.ndarray, outputs: Any) -> np.ndarray:
        """Adds a batch; what the model predicts there, [B, h, w]."""
        if isinstance(outputs, dict):
            outputs = outputs[keys.SEMANTIC_LOGITS]
        predictions = np.asarray(outputs).argmax(-1)
        self._add(labels, predictions)
        return predictions

    def _add(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Adds classes [B, h, w]."""
        self._total.update(labels, predictions)
        if self._descriptor.num_classes == 2:
            hit = ((labels == 1) & (predictions == 1)).sum((1, 2))
            either = ((labels == 1) | ((predictions == 1) & (labels != self._ignore))).sum((1, 2))
            self._foreground += (hit / np.maximum(either, 1)).tolist()

    def scores(self) -> dict:
        """For the log."""
        found: dict = {"mean_iou": self._total.mean_iou}
        if self._foreground:
            found["foreground_iou"] = float(np.mean(self._foreground))
        found["class_iou"] = [
            None if np.isnan(iou) else round(float(iou), 5) for iou in self._total.class_iou
        ]
        return found

    def draw(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Labels in colours."""
        return colorize(labels, self._descriptor.colors)


class _PanopticTally(Tally):
    """Adds up what a model says of instances too; a subclass says how it tells them apart."""

    targets = "instances"
    _settings: MergeSettings | MaskSettings

    def __init__(self, info, descriptor, ignore):
        super().__init__(info, descriptor, ignore)
        self._quality = PanopticQuality(
            descriptor.num_classes,
            descriptor.thing_classes,
            descriptor.label_divisor,
            descriptor.ignore_label,
        )

    def update(self, labels, outputs):
        classes, found = self._merged(outputs, labels.shape[1:])
        self._add(labels // self._settings.label_divisor, classes)
        for truth, prediction in zip(labels, found, strict=True):
            self._quality.update(truth, prediction)
        return found

    def _merged(self, outputs: dict, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The classes and the panoptic labels of a batch, [B, H, W] each."""
        raise NotImplementedError

    def scores(self):
        quality = self._quality
        parts = {"pq": quality.all, "pq_things": quality.things, "pq_stuff": quality.stuff}
        found = {name: float(part.pq) for name, part in parts.items() if part.classes}
        return {"pq": 0.0, **found, **super().scores()}

    def draw(self, image, labels):
        return panoptic_overlay(
            image,
            labels,
            self._descriptor.colors,
            self._settings.thing_classes,
            self._settings.label_divisor,
            ignore_label=self._settings.void_label,
        )


class CenterTally(_PanopticTally):
    """Of centres and offsets."""

    _settings: MergeSettings

    def __init__(self, info, descriptor, ignore):
        super().__init__(info, descriptor, ignore)
        self._settings = center_settings(info)

    def _merged(self, outputs, size):
        classes = np.asarray(outputs[keys.SEMANTIC_LOGITS]).argmax(-1)
        heatmaps, offsets = (
            np.asarray(outputs[key]) for key in (keys.CENTER_HEATMAP, keys.OFFSET_MAP)
        )
        found = [
            merge(labels, heatmap, offset, self._settings)[keys.PANOPTIC_LABEL]
            for labels, heatmap, offset in zip(classes, heatmaps, offsets, strict=True)
        ]
        return classes, np.stack(found)


class MaskTally(_PanopticTally):
    """Of the masks of slots."""

    _settings: MaskSettings

    def __init__(self, info, descriptor, ignore):
        super().__init__(info, descriptor, ignore)
        self._settings = mask_settings(info)

    def _merged(self, outputs, size):
        found = merge_masks(
            outputs[keys.MASK_LOGITS], outputs[keys.MASK_CLASS_LOGITS], self._settings, size
        )
        labels = (found[key] for key in (keys.SEMANTIC_LABEL, keys.PANOPTIC_LABEL))
        classes, panoptic = (keras.ops.convert_to_numpy(label) for label in labels)
        return classes, panoptic


def tally_for(model: keras.Model, descriptor: DatasetDescriptor, ignore: int) -> Tally:
    """What adds up the answers of a model with a record.

    Args:
        model: has an `info`.
        descriptor: of the data.
        ignore: label value that doesn't count.
    """
    kinds = {"centers": CenterTally, "masks": MaskTally, None: Tally}
    return kinds[instances_by(model)](model.info, descriptor, ignore)
