"""Boundary IoU: intersection over union of what lies near the outlines.

Paper: "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
https://arxiv.org/abs/2103.16562. Mean IoU hardly sees a bad outline of a large object; this does.
"""

import math

import numpy as np

# Width of the band inside each outline, as a share of the picture's diagonal (Sec. 4).
BAND = 0.02


def band_width(shape: tuple[int, int], share: float = BAND) -> int:
    """Pixels of the band for a picture of (height, width): at least one."""
    return max(1, round(share * math.hypot(*shape)))


def inner_band(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask within `width` of its outside: bool [H, W].

    Distance goes by the longer axis, as `width` erosions by a 3x3 square have it. What lies
    beyond the picture's edge is outside.
    """
    core = mask
    for axis in (0, 1):
        core = _whole_window(core, width, axis)
    return mask & ~core


def _whole_window(mask: np.ndarray, width: int, axis: int) -> np.ndarray:
    """Where a mask is set in all of the 2 * width + 1 pixels around, along one axis."""
    margins = [(0, 0), (0, 0)]
    margins[axis] = (width + 1, width)
    sums = np.cumsum(np.pad(mask, margins), axis=axis, dtype=np.int32)
    size, window = mask.shape[axis], 2 * width + 1
    upper = sums.take(range(window, window + size), axis)
    return upper - sums.take(range(size), axis) == window


class BoundaryIoU:
    """Adds up pictures in constant memory; scores come from the sum.

    Args:
        num_classes: number of classes.
        ignore_label: label value that doesn't count.
        band: see `BAND`.
    """

    def __init__(self, num_classes: int, ignore_label: int | None = None, *, band: float = BAND):
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.band = band
        self.intersection = np.zeros(num_classes, np.int64)
        self.union = np.zeros(num_classes, np.int64)
        self.labelled = np.zeros(num_classes, np.int64)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Adds one picture: label and prediction [H, W]."""
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.ndim != 2 or labels.shape != predictions.shape:
            raise ValueError(
                f"one picture at a time, [H, W] twice; got {labels.shape}, {predictions.shape}."
            )
        width = band_width((labels.shape[0], labels.shape[1]), self.band)
        counted = np.ones(labels.shape, bool)
        if self.ignore_label is not None:
            counted = labels != self.ignore_label
        for value in range(self.num_classes):
            label, prediction = labels == value, predictions == value
            # Most of many classes aren't in a picture.
            near_label = inner_band(label, width) & counted if label.any() else label
            near_prediction = (
                inner_band(prediction, width) & counted if prediction.any() else prediction
            )
            self.intersection[value] += np.count_nonzero(near_label & near_prediction)
            self.union[value] += np.count_nonzero(near_label | near_prediction)
            self.labelled[value] += np.count_nonzero(near_label)

    @property
    def class_iou(self) -> np.ndarray:
        """float64 [num_classes]; NaN for a class without labelled pixels."""
        iou = self.intersection / np.maximum(self.union, 1)
        return np.where(self.labelled > 0, iou, np.nan)

    @property
    def mean_iou(self) -> float:
        """Mean over classes that are labelled or predicted; 0 if there are none."""
        present = self.union > 0
        if not present.any():
            return 0.0
        return float((self.intersection[present] / self.union[present]).mean())
