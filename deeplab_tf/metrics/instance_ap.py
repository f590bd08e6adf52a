"""Average precision and recall of instances: the twelve numbers of COCO, from panoptic labels.

https://cocodataset.org/#detection-eval. Instances of a panoptic map share no pixel, so all that
matching needs is how many pixels each predicted one shares with each true one.
"""

import numpy as np

from deeplab_tf.metrics.panoptic_quality import Overlap

# By linspace, whose rounding decides over an IoU of, say, exactly 3 / 5.
_IOU = np.linspace(0.5, 0.95, 10)
_RECALL = np.linspace(0, 1, 101)
# Areas in pixels, both ends included: all, small, medium, large.
_AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
# Predictions per picture and class that count, the surest first.
_MOST = (1, 10, 100)
# What became of a prediction.
_FALSE, _TRUE, _IGNORED = range(3)


def instance_scores(
    prediction: np.ndarray,
    class_probability: np.ndarray,
    instance_score: np.ndarray,
    *,
    label_divisor: int,
) -> dict[int, float]:
    """Panoptic label -> score of each segment, in the order of their first pixels.

    The score is the mean probability of the segment's class over its pixels times the mean of
    the instance scores.

    Args:
        prediction: panoptic labels [H, W].
        class_probability: probabilities [H, W, C], or [H, W] of each pixel's predicted class.
        instance_score: [H, W].
        label_divisor: panoptic labels are class * label_divisor + instance.

    Raises:
        ValueError: the maps aren't of one size.
    """
    both = Overlap(prediction, prediction)
    scores = _scores(both, prediction, class_probability, instance_score, label_divisor)
    order = both.prediction_order
    return dict(zip(both.prediction[order].tolist(), scores[order].tolist(), strict=True))


def _scores(both: Overlap, prediction, class_probability, instance_score, label_divisor: int):
    """float32 [P]: so, equal scores are equal whatever way they were summed."""
    shape = np.shape(prediction)
    if np.shape(class_probability)[:2] != shape or np.shape(instance_score) != shape:
        raise ValueError(
            f"predictions of {shape} come with scores of that size; got class probabilities "
            f"{np.shape(class_probability)} and instance scores {np.shape(instance_score)}."
        )
    if np.ndim(class_probability) == 3:
        # A void pixel's class may be none of the C: what is read there isn't used.
        last = class_probability.shape[-1] - 1
        classes = np.minimum(np.asarray(prediction) // label_divisor, last)
        class_probability = np.take_along_axis(class_probability, classes[..., None], -1)
    means = both.prediction_means(class_probability) * both.prediction_means(instance_score)
    return means.astype(np.float32)


class InstanceAP:
    """Adds up pictures: of each predicted instance its score and 40 bytes are kept, no pixels.

    Args:
        thing_classes: label values of the classes with instances; others don't count.
        label_divisor: panoptic labels are class * label_divisor + instance.
    """

    def __init__(self, thing_classes: tuple[int, ...], label_divisor: int):
        self.thing_classes = tuple(sorted(thing_classes))
        self.label_divisor = label_divisor
        # Per class: true instances by range of areas, and of the predicted ones, a picture after
        # the other, scores [n] and outcomes [n, areas, IoUs]. The surest come first.
        self._wanted = {c: np.zeros(len(_AREAS), np.int64) for c in self.thing_classes}
        self._found: dict[int, list] = {c: [] for c in self.thing_classes}

    def update(
        self,
        truth: np.ndarray,
        prediction: np.ndarray,
        *,
        class_probability: np.ndarray,
        instance_score: np.ndarray,
        crowd: np.ndarray | None = None,
    ) -> None:
        """Adds one picture.

        Args:
            truth, prediction: panoptic labels [H, W].
            class_probability, instance_score: see `instance_scores`.
            crowd: [H, W], nonzero where true instances are crowds. None takes the labels' word:
                a thing of instance 0 is one.

        Raises:
            ValueError: the maps aren't of one size, or labels not whole numbers from 0 on.
        """
        both = Overlap(truth, prediction)
        scores = _scores(both, prediction, class_probability, instance_score, self.label_divisor)
        if crowd is None:
            is_crowd = both.truth % self.label_divisor == 0
        elif np.shape(crowd) == np.shape(truth):
            is_crowd = both.truth_means(np.asarray(crowd) != 0) > 0
        else:
            raise ValueError(f"truth of {np.shape(truth)} with a crowd map {np.shape(crowd)}.")
        true_class = both.truth // self.label_divisor
        order = both.prediction_order
        # The surest first; of equals, the one that the picture shows first.
        order = order[np.argsort(-scores[order], kind="stable")]
        classes = both.prediction[order] // self.label_divisor
        for class_ in {*true_class.tolist(), *classes.tolist()} & self._found.keys():
            true = np.flatnonzero(true_class == class_)
            found = order[classes == class_][: _MOST[-1]]
            ignored = is_crowd[true] | _outside(both.truth_area[true])
            self._wanted[class_] += (~ignored).sum(axis=1)
            if found.size:
                iou = _iou(both, found, true, is_crowd[true])
                outcomes = _match(iou, ignored, is_crowd[true], both.prediction_area[found])
                self._found[class_].append((scores[found], outcomes))

    def result(self) -> dict[str, float]:
        """The numbers in COCO's order, -1 where no true instance is of that size.

        AP is the mean precision over recalls 0..1, IoUs 0.5..0.95 and classes; AP50 and AP75 of
        one IoU. AR_n is the recall with n predictions per picture and class, the mean over IoUs
        and classes. Sizes are areas up to 32 x 32, up to 96 x 96, and above.
        """
        precision, recall = self._curves()
        scores = {"AP": precision[:, 0], "AP50": precision[:, 0, 0], "AP75": precision[:, 0, 5]}
        sizes = ("small", "medium", "large")
        scores |= {f"AP_{size}": precision[:, place] for place, size in enumerate(sizes, 1)}
        scores |= {f"AR_{most}": recall[place, :, 0] for place, most in enumerate(_MOST)}
        scores |= {f"AR_{size}": recall[-1, :, place] for place, size in enumerate(sizes, 1)}
        return {
            name: -1.0 if np.isnan(values).all() else float(np.nanmean(values))
            for name, values in scores.items()
        }

    def _curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision [classes, areas, IoUs, recalls], recall [most, classes, areas, IoUs].

        NaN for classes without a true instance of that size.
        """
        shape = (len(self.thing_classes), len(_AREAS), len(_IOU))
        precision = np.full((*shape, len(_RECALL)), np.nan)
        recall = np.full((len(_MOST), *shape), np.nan)
        for place, class_ in enumerate(self.thing_classes):
            counted, wanted = self._wanted[class_] > 0, self._wanted[class_]
            for row, most in enumerate(_MOST):
                outcomes = [found[:most] == _TRUE for _, found in self._found[class_]]
                true = sum((found.sum(axis=0) for found in outcomes), np.zeros(shape[1:]))
                recall[row, place, counted] = (true[counted].T / wanted[counted]).T
            for size in np.flatnonzero(counted).tolist():
                precision[place, size] = self._precision(class_, size)
        return precision, recall

    def _precision(self, class_: int, size: int) -> np.ndarray:
        """The best precision at each recall or a higher one, [IoUs, recalls]."""
        result = np.zeros((len(_IOU), len(_RECALL)))
        if not self._found[class_]:
            return result
        scores = np.concatenate([scores for scores, _ in self._found[class_]])
        outcomes = np.concatenate([found[:, size] for _, found in self._found[class_]])
        outcomes = outcomes[np.argsort(-scores, kind="stable")]
        true, false = (np.cumsum(outcomes == what, axis=0) for what in (_TRUE, _FALSE))
        precision = true / (true + false + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        for place in range(len(_IOU)):
            reached = np.searchsorted(true[:, place] / self._wanted[class_][size], _RECALL)
            reached = reached[reached < len(scores)]
            result[place, : len(reached)] = precision[reached, place]
        return result


def _outside(area: np.ndarray) -> np.ndarray:
    """Which areas are outside each range: bool [areas, n]."""
    return (area < _AREAS[:, :1]) | (area > _AREAS[:, 1:])


def _iou(both: Overlap, found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """float64 [found, true]; with a crowd, the share of the prediction that lies on it."""
    rows, columns = (np.full(len(labels), -1) for labels in (both.prediction, both.truth))
    rows[found], columns[true] = np.arange(len(found)), np.arange(len(true))
    row, column = rows[both.pair_prediction], columns[both.pair_truth]
    pair = (row >= 0) & (column >= 0)
    shared = np.zeros((len(found), len(true)))
    shared[row[pair], column[pair]] = both.pair_area[pair]
    area = both.prediction_area[found][:, None]
    return shared / np.where(crowd, area, area + both.truth_area[true] - shared)


def _match(iou: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, area: np.ndarray):
    """What becomes of each prediction, uint8 [found, areas, IoUs].

    The surest chooses first, of the true instances that count the one with the highest IoU. What
    matches only an ignored one is ignored, as is what matches none and is of another size.

    Args:
        iou: [found, true], the surest first.
        ignored: which true instances don't count for a range of areas, [areas, true].
        crowd: which take any number of predictions, [true].
        area: of the predictions, [found].
    """
    outcome = np.where(_outside(area).T[..., None], _IGNORED, _FALSE)
    outcome = np.repeat(outcome, len(_IOU), axis=2).astype(np.uint8)
    taken = np.zeros((iou.shape[1], *outcome.shape[1:]), bool)
    for row, values in enumerate(iou):
        free = np.ones(outcome.shape[1:], bool)
        # With an IoU of 0.5 at least, these are one or two.
        near = np.flatnonzero(values >= _IOU[0])
        near = near[np.argsort(-values[near], kind="stable")]
        for kind in (_TRUE, _IGNORED):
            for place in near:
                fits = free & (values[place] >= _IOU) & (crowd[place] | ~taken[place])
                fits &= (ignored[:, place] == (kind == _IGNORED))[:, None]
                outcome[row][fits] = kind
                taken[place] |= fits
                free &= ~fits
    return outcome
