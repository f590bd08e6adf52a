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


def near_outline(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a label map within `width` of another class or of the edge: bool [H, W].

    For each class these are what `width` erosions of its mask by a 3x3 square take away. All
    classes at once: a pixel is far from any outline if the square around it is of one value.

    Args:
        labels: [H, W].
        width: distance along the longer axis.
    """
    height, length = labels.shape
    near, window = np.ones(labels.shape, bool), 2 * width + 1
    if min(height, length) < window:
        return near
    rows = _all_of(labels[:, 1:] == labels[:, :-1], window - 1, axis=1)
    columns = _all_of(labels[1:] == labels[:-1], window - 1, axis=0)
    squares = _all_of(rows, window, axis=0) & columns[:, width : length - width]
    near[width : height - width, width : length - width] = ~squares
    return near


def _all_of(mask: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Where a mask is set at so many places in a row; shorter by count - 1 along the axis."""
    mask, done = np.moveaxis(mask, axis, 0), 1
    while done < count:
        step = min(done, count - done)
        mask, done = mask[:-step] & mask[step:], done + step
    return np.moveaxis(mask, 0, axis)


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
        near_label, near_prediction = (near_outline(m, width) for m in (labels, predictions))
        if self.ignore_label is not None:
            counted = labels != self.ignore_label
            near_label &= counted
            near_prediction &= counted
        both = near_label & near_prediction & (labels == predictions)
        found, labelled, predicted = (
            np.bincount(values, minlength=self.num_classes)[: self.num_classes]
            for values in (labels[both], labels[near_label], predictions[near_prediction])
        )
        self.intersection += found
        self.labelled += labelled
        self.union += labelled + predicted - found

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
