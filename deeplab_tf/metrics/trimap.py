"""Mean IoU near outlines, in bands of growing width: the trimap curve.

Papers: https://arxiv.org/abs/1412.7062, Sec. 5.3, and https://arxiv.org/abs/1802.02611, Sec. 4.4.
They take the bands around the pixels that PASCAL VOC leaves unlabelled along outlines. Here an
outline is where labels change, from or to the unlabelled ones too: with such pixels along every
outline the bands are the same, and data without them has bands as well.
"""

import numpy as np

from deeplab_tf.metrics.mean_iou import ConfusionMatrix

WIDTHS = tuple(range(1, 41))


def outline_distance(labels: np.ndarray, most: int) -> np.ndarray:
    """How far each pixel is from another label: uint8 [H, W].

    1 beside one, diagonals too; `most` + 1 is further than `most`. The picture's edge is no
    outline.

    Args:
        labels: [H, W].
        most: at most 254.
    """
    near = np.zeros(labels.shape, bool)
    for here, there in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        differs = labels[here] != labels[there]
        near[here] |= differs
        near[there] |= differs
    distance = np.full(labels.shape, most + 1, np.uint8)
    for width in range(1, most + 1):
        distance[near & (distance > width)] = width
        near = _grown(near)
    return distance


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask and the pixels around it: a dilation by a 3x3 square."""
    result = mask.copy()
    result[:, 1:] |= mask[:, :-1]
    result[:, :-1] |= mask[:, 1:]
    mask = result.copy()
    result[1:] |= mask[:-1]
    result[:-1] |= mask[1:]
    return result


class TrimapIoU:
    """Adds up pictures in constant memory; scores come from the sums.

    Args:
        num_classes: number of classes.
        ignore_label: label value that doesn't count, but makes outlines.
        widths: of the bands to score, in pixels on either side of an outline, ascending.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int | None = None,
        *,
        widths: tuple[int, ...] = WIDTHS,
    ):
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.widths = widths
        # Of each ring between a width and the one before.
        self._rings = np.zeros((len(widths), num_classes, num_classes), np.int64)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Adds one picture: label and prediction [H, W], values 0..num_classes-1."""
        distance = outline_distance(labels, self.widths[-1])
        counted = distance <= self.widths[-1]
        if self.ignore_label is not None:
            counted &= labels != self.ignore_label
        ring = np.searchsorted(self.widths, distance[counted])
        pairs = labels[counted].astype(np.int64) * self.num_classes + predictions[counted]
        joint = ring * self.num_classes**2 + pairs
        found = np.bincount(joint, minlength=self._rings.size)
        self._rings += found.reshape(self._rings.shape)

    @property
    def mean_iou(self) -> list[float | None]:
        """Of each band, over the classes labelled there; None without any pixel.

        Not over those that are only predicted, as the official mean is over a whole picture: one
        wrong pixel of another class would move one curve against another.
        """
        return [_mean_iou(matrix) for matrix in self._rings.cumsum(axis=0)]


def _mean_iou(matrix: np.ndarray) -> float | None:
    return float(np.nanmean(ConfusionMatrix.of(matrix).class_iou)) if matrix.any() else None
