"""Panoptic quality: how many segments are found, and how well, per class.

Paper: "Panoptic Segmentation", https://arxiv.org/abs/1801.00868, Sec. 4. A predicted segment and
a true one of its class match if their IoU is above 0.5; no segment can then have two matches.
"""

from typing import Literal, NamedTuple

import numpy as np

from deeplab_tf.errors import InputError


class Overlap:
    """Which segments of two label maps share how many pixels.

    A segment is all pixels of one value. Both maps are cut into stretches where neither changes
    and these are counted, not their pixels: there are about fifty times fewer.

    Attributes:
        truth, prediction: the labels of the segments, int64 [T] and [P], ascending.
        truth_area, prediction_area: their pixels, int64 [T] and [P].
        pair_truth, pair_prediction: which two segments meet, as places in the above: int64 [N].
        pair_area: the pixels that they share, int64 [N].

    Args:
        truth, prediction: label maps of whole numbers 0 .. 2 ** 31 - 1, [H, W].

    Raises:
        ValueError: the maps aren't such.
    """

    def __init__(self, truth: np.ndarray, prediction: np.ndarray):
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        if truth.ndim != 2 or truth.shape != prediction.shape:
            raise ValueError(
                f"one picture at a time, [H, W] twice; got {truth.shape}, {prediction.shape}."
            )
        truth, prediction = truth.ravel(), prediction.ravel()
        first = np.ones(truth.size, bool)
        np.not_equal(truth[1:], truth[:-1], out=first[1:])
        first[1:] |= prediction[1:] != prediction[:-1]
        self._starts = np.flatnonzero(first)
        lengths = np.diff(self._starts, append=truth.size)

        # Both labels in one number, so that one sort finds all pairs.
        joint = _checked("truth", truth[self._starts]) << 32
        joint |= _checked("prediction", prediction[self._starts])
        pairs, self._pair = np.unique(joint, return_inverse=True)
        self.pair_area = _sums(self._pair, lengths, len(pairs))
        self.truth, self.pair_truth = np.unique(pairs >> 32, return_inverse=True)
        self.prediction, self.pair_prediction = np.unique(pairs & (2**32 - 1), return_inverse=True)
        self.truth_area = _sums(self.pair_truth, self.pair_area, len(self.truth))
        self.prediction_area = _sums(self.pair_prediction, self.pair_area, len(self.prediction))

    def truth_means(self, values: np.ndarray) -> np.ndarray:
        """Mean of a map [H, W] over each true segment: float64 [T]."""
        return self._means(values, self.pair_truth, self.truth_area)

    def prediction_means(self, values: np.ndarray) -> np.ndarray:
        """Mean of a map [H, W] over each predicted segment: float64 [P]."""
        return self._means(values, self.pair_prediction, self.prediction_area)

    def _means(self, values, segment_of_pair, area) -> np.ndarray:
        sums = np.add.reduceat(np.ravel(values), self._starts, dtype=np.float64)
        return np.bincount(segment_of_pair[self._pair], sums, len(area)) / area

    @property
    def prediction_order(self) -> np.ndarray:
        """Places of the predicted segments as the picture shows them, row by row: int64 [P]."""
        segments, first = np.unique(self.pair_prediction[self._pair], return_index=True)
        return segments[np.argsort(first)]


def _checked(what: str, labels: np.ndarray) -> np.ndarray:
    """Labels as int64."""
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{what}: labels are whole numbers; got {labels.dtype}.")
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise ValueError(
            f"{what}: labels lie in 0..{2**31 - 1}; got {labels.min()}..{labels.max()}."
        )
    return labels.astype(np.int64)


def _sums(groups: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """int64 [count]: the sum of whole numbers by group. Exact: far below 2 ** 53."""
    return np.bincount(groups, values, count).astype(np.int64)


class Quality(NamedTuple):
    """Means over classes, and how many classes they are of; 0 without any."""

    pq: float
    sq: float
    rq: float
    classes: int


class PanopticQuality:
    """Adds up pictures in constant memory; scores come from the sums.

    Panoptic labels are class * label_divisor + instance. Void, ignore_label * label_divisor, is
    neither found nor missed: predictions lose their pixels there before they are compared, and
    one with more than half of its area there is no false positive.

    Attributes:
        iou_sum: of the matches, float64 [num_classes].
        tp, fn, fp: segments found, missed and invented, int64 [num_classes].

    Args:
        num_classes: number of classes.
        thing_classes: label values of classes with instances.
        label_divisor: see above.
        ignore_label: class of void; may be one of the `num_classes` or none of them.
        crowd: a crowd is a thing of instance 0. "segment" takes it as a segment like others, as
            deeplab2 does. "ignore" is the rule of the official COCO tool: nobody has to find it,
            and it excuses predictions of its class as void does, but for the comparison.

    Raises:
        ValueError: the settings contradict each other.
    """

    def __init__(
        self,
        num_classes: int,
        thing_classes: tuple[int, ...],
        label_divisor: int,
        ignore_label: int | None = None,
        *,
        crowd: Literal["segment", "ignore"] = "segment",
    ):
        if label_divisor < 1:
            raise ValueError(f"label_divisor is at least 1; got {label_divisor}.")
        if strange := [c for c in thing_classes if not 0 <= c < num_classes]:
            raise ValueError(f"thing_classes lie in 0..{num_classes - 1}; got {strange}.")
        if crowd not in ("segment", "ignore"):
            raise ValueError(f'crowd is "segment" or "ignore"; got {crowd!r}.')
        self.num_classes = num_classes
        self.thing_classes = tuple(sorted(thing_classes))
        self.label_divisor = label_divisor
        self.ignore_label = ignore_label
        self.crowd = crowd
        self.iou_sum = np.zeros(num_classes)
        self.tp = np.zeros(num_classes, np.int64)
        self.fn = np.zeros(num_classes, np.int64)
        self.fp = np.zeros(num_classes, np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Adds one picture: panoptic labels [H, W].

        Raises:
            InputError: the truth has a class that isn't known.
            ValueError: the prediction has, or these aren't two such maps.
        """
        both = Overlap(truth, prediction)
        true_class = both.truth // self.label_divisor
        class_ = both.prediction // self.label_divisor
        if (strange := self._unknown(both.truth)) is not None:
            raise InputError(f"the truth has {strange} Is label_divisor right?")
        if (strange := self._unknown(both.prediction)) is not None:
            raise ValueError(f"the prediction has {strange}")

        required, excuse, void = self._roles(both.truth, true_class)
        of_truth, of_prediction, area = both.pair_truth, both.pair_prediction, both.pair_area
        same_class = true_class[of_truth] == class_[of_prediction]
        on_void = _sums(of_prediction, area * void[of_truth], len(class_))

        match = np.flatnonzero(same_class & required[of_truth])
        hit, by = of_truth[match], of_prediction[match]
        union = both.truth_area[hit] + both.prediction_area[by] - area[match] - on_void[by]
        iou = area[match] / union
        good = iou > 0.5
        hit, by, iou = hit[good], by[good], iou[good]

        required[hit] = False  # what is left of these is missed
        excused = on_void + _sums(
            of_prediction, area * (same_class & excuse[of_truth]), len(class_)
        )
        invented = (class_ != self.ignore_label) & (2 * excused <= both.prediction_area)
        invented[by] = False

        self.iou_sum += np.bincount(true_class[hit], iou, self.num_classes)
        self.tp += np.bincount(true_class[hit], minlength=self.num_classes)
        self.fn += np.bincount(true_class[required], minlength=self.num_classes)
        self.fp += np.bincount(class_[invented], minlength=self.num_classes)

    def _roles(self, truth, true_class) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which true segments must be found, excuse their class, are void: bool [T] each."""
        if self.ignore_label is None:
            void = ignored = np.zeros(len(truth), bool)
        else:
            void = truth == self.ignore_label * self.label_divisor
            ignored = true_class == self.ignore_label
        if self.crowd == "segment":
            crowd = np.zeros(len(truth), bool)
        else:
            crowd = np.isin(true_class, self.thing_classes) & (truth % self.label_divisor == 0)
        return ~(ignored | crowd), crowd, void

    def _unknown(self, labels: np.ndarray) -> str | None:
        """The first label whose class isn't known, in words."""
        classes = labels // self.label_divisor
        for place in np.flatnonzero((classes >= self.num_classes) & (classes != self.ignore_label)):
            return (
                f"label {labels[place]}, class {classes[place]} by label_divisor "
                f"{self.label_divisor}: classes are 0..{self.num_classes - 1}"
                + ("." if self.ignore_label is None else f", ignored is {self.ignore_label}.")
            )
        return None

    def __iadd__(self, other: "PanopticQuality") -> "PanopticQuality":
        """Adds what another one of the same settings has counted, in another process say."""
        for name in ("num_classes", "thing_classes", "label_divisor", "ignore_label", "crowd"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise ValueError(f"can't add counts of {name} {its} to counts of {name} {mine}.")
        self.iou_sum += other.iou_sum
        self.tp += other.tp
        self.fn += other.fn
        self.fp += other.fp
        return self

    @property
    def present(self) -> np.ndarray:
        """Which classes have segments, true or predicted, that count: bool [num_classes]."""
        return self.tp + self.fn + self.fp > 0

    @property
    def class_pq(self) -> np.ndarray:
        """float64 [num_classes]; NaN for a class that isn't present."""
        return self._share(self.iou_sum)

    @property
    def class_sq(self) -> np.ndarray:
        """Mean IoU of the matches, 0 without any: as `class_pq`."""
        return np.where(self.present, self.iou_sum / np.maximum(self.tp, 1), np.nan)

    @property
    def class_rq(self) -> np.ndarray:
        """F1 score of finding segments: as `class_pq`."""
        return self._share(self.tp)

    def _share(self, found: np.ndarray) -> np.ndarray:
        wanted = self.tp + (self.fn + self.fp) / 2
        return np.where(self.present, found / np.maximum(wanted, 0.5), np.nan)

    @property
    def all(self) -> Quality:
        """Over the classes that are present."""
        return self._mean(np.ones(self.num_classes, bool))

    @property
    def things(self) -> Quality:
        """Over the things that are present."""
        return self._mean(self._is_thing)

    @property
    def stuff(self) -> Quality:
        """Over the other classes that are present."""
        return self._mean(~self._is_thing)

    @property
    def _is_thing(self) -> np.ndarray:
        return np.isin(np.arange(self.num_classes), self.thing_classes)

    def _mean(self, classes: np.ndarray) -> Quality:
        counted = classes & self.present
        if not counted.any():
            return Quality(0.0, 0.0, 0.0, 0)
        scores = (self.class_pq, self.class_sq, self.class_rq)
        pq, sq, rq = (float(score[counted].mean()) for score in scores)
        return Quality(pq, sq, rq, int(counted.sum()))
