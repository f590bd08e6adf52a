"""Intersection over union from one confusion matrix, by the official rule."""

import numpy as np

# Pixels counted at a time: what is made of them on the way stays in the processor's cache, and
# memory doesn't grow with the picture.
_STRIP = 1 << 16


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, ignore_label: int | None = None
) -> np.ndarray:
    """int64 [num_classes, num_classes]: rows are labels, columns predictions.

    Args:
        labels: integers of any shape.
        predictions: integers 0..num_classes-1 of the same shape.
        num_classes: number of classes.
        ignore_label: label value that doesn't count.

    Raises:
        ValueError: a counted label or a prediction is outside 0..num_classes-1. Keras' MeanIoU
            drops those without a word.
    """
    labels, predictions = np.asarray(labels).ravel(), np.asarray(predictions).ravel()
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels and predictions are of equal shape; got {labels.size} and "
            f"{predictions.size} pixels."
        )
    counts = np.zeros(num_classes * num_classes, np.int64)
    for start in range(0, labels.size, _STRIP):
        strip = slice(start, start + _STRIP)
        counts += _count(labels[strip], predictions[strip], num_classes, ignore_label)
    return counts.reshape(num_classes, num_classes)


def _count(labels, predictions, num_classes: int, ignore_label: int | None) -> np.ndarray:
    """int64 [num_classes ** 2] of one strip of pixels."""
    if ignore_label is not None:
        keep = labels != ignore_label
        if not keep.all():
            labels, predictions = labels[keep], predictions[keep]
    if labels.size and (
        labels.max() >= num_classes
        or predictions.max() >= num_classes
        or labels.min() < 0
        or predictions.min() < 0
    ):
        raise ValueError(f"labels and predictions must lie in 0..{num_classes - 1}.")
    # One number per pixel, in the type that bincount counts without another copy.
    joint = labels.astype(np.intp)
    joint *= num_classes
    np.add(joint, predictions, out=joint, casting="unsafe")
    return np.bincount(joint, minlength=num_classes * num_classes)


class ConfusionMatrix:
    """Adds up pictures in constant memory; scores come from the sum.

    Args:
        num_classes: number of classes.
        ignore_label: label value that doesn't count.
    """

    def __init__(self, num_classes: int, ignore_label: int | None = None):
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.matrix = np.zeros((num_classes, num_classes), np.int64)

    @classmethod
    def of(cls, matrix: np.ndarray) -> "ConfusionMatrix":
        """Scores of counts that are there already: [num_classes, num_classes]."""
        found = cls(len(matrix))
        found.matrix = matrix
        return found

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Adds label and prediction maps of equal shape."""
        self.matrix += confusion_matrix(labels, predictions, self.num_classes, self.ignore_label)

    @property
    def class_iou(self) -> np.ndarray:
        """float64 [num_classes]; NaN for a class without labelled pixels."""
        labelled, predicted = self.matrix.sum(1), self.matrix.sum(0)
        union = labelled + predicted - np.diag(self.matrix)
        iou = np.diag(self.matrix) / np.maximum(union, 1)
        return np.where(labelled > 0, iou, np.nan)

    @property
    def present(self) -> np.ndarray:
        """Which classes are labelled *or* predicted: bool [num_classes]."""
        return self.matrix.sum(1) + self.matrix.sum(0) > 0

    @property
    def mean_iou(self) -> float:
        """Mean over classes that are labelled *or* predicted; 0 if no pixel counts.

        A class that is predicted but never labelled counts as 0, one in neither is left out.
        """
        union = self.matrix.sum(1) + self.matrix.sum(0) - np.diag(self.matrix)
        present = self.present
        if not present.any():
            return 0.0
        return float((np.diag(self.matrix)[present] / union[present]).mean())

    @property
    def pixel_share(self) -> np.ndarray:
        """Share of the counted pixels with each label."""
        return self.matrix.sum(1) / max(1, self.matrix.sum())

    @property
    def predicted_share(self) -> np.ndarray:
        """Share of the counted pixels predicted as each class."""
        return self.matrix.sum(0) / max(1, self.matrix.sum())
