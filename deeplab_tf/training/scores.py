"""What an evaluation found: numbers, words and the worst pictures."""

import dataclasses
from typing import Any

import numpy as np

from deeplab_tf.metrics.mean_iou import ConfusionMatrix

# Bands of the trimap curve that are told in words.
_TOLD = (1, 5, 10, 20, 40)


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """One class, over all pixels of the split.

    Attributes:
        name: of the class.
        color: RGB.
        iou: None where the class isn't in the labels.
        boundary_iou: the same for pixels near outlines; None also where it wasn't asked for.
        pixel_share: share of the labelled pixels.
        predicted_share: share of the predicted pixels.
    """

    name: str
    color: tuple[int, int, int]
    iou: float | None
    boundary_iou: float | None
    pixel_share: float
    predicted_share: float


@dataclasses.dataclass(frozen=True)
class PictureScore:
    """One picture.

    Attributes:
        name: as in the records.
        mean_iou: over the classes in its label or prediction.
        foreground_iou: IoU of class 1 in sets of two classes; None where nobody sees it.
        pixel_accuracy: share of right pixels.
        pq: panoptic quality of this picture alone, of a panoptic model.
    """

    name: str
    mean_iou: float
    foreground_iou: float | None
    pixel_accuracy: float
    pq: float | None = None

    @property
    def rank(self) -> float:
        """The one number by which pictures are worse or better."""
        known = (x for x in (self.pq, self.foreground_iou) if x is not None)
        return next(known, self.mean_iou)


@dataclasses.dataclass(frozen=True)
class WorstPicture:
    """What the page shows of a bad one: uint8 pictures of a few hundred pixels."""

    score: PictureScore
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrimapCurve:
    """Mean IoU in bands around outlines, see `metrics.trimap`.

    Attributes:
        widths: of the bands, in pixels.
        mean_iou: in each, over the classes labelled there; None where no pixel counts.
        without_crf: the same before the CRF, if there was one.
    """

    widths: tuple[int, ...]
    mean_iou: tuple[float | None, ...]
    without_crf: tuple[float | None, ...] = ()


@dataclasses.dataclass(frozen=True)
class PanopticClassScore:
    """Segments of one class.

    Attributes:
        name: of the class.
        is_thing: whether its instances are told apart.
        pq: panoptic quality, sq * rq; None of a class that is neither labelled nor predicted.
        sq: mean IoU of the segments that were found.
        rq: F1 of finding them.
        found, missed, invented: numbers of segments.
    """

    name: str
    is_thing: bool
    pq: float | None
    sq: float | None
    rq: float | None
    found: int
    missed: int
    invented: int


@dataclasses.dataclass(frozen=True)
class PanopticScores:
    """How well segments were told apart.

    Attributes:
        pq, sq, rq: panoptic quality and its parts, means over the classes that are there, by
            "all", "things" and "stuff".
        classes: of each class.
        instance_ap: the twelve numbers of COCO, -1 where there is nothing to measure.
        crowd: what crowds count as, see `PanopticQuality`.
    """

    pq: dict[str, float]
    sq: dict[str, float]
    rq: dict[str, float]
    classes: tuple[PanopticClassScore, ...]
    instance_ap: dict[str, float]
    crowd: str = "segment"

    @property
    def lines(self) -> list[str]:
        """The means in words."""
        lines = [
            f"{part}: PQ {self.pq[part]:.4f}, SQ {self.sq[part]:.4f}, RQ {self.rq[part]:.4f}"
            for part in self.pq
        ]
        shown = [f"{name} {value:.4f}" for name, value in self.instance_ap.items() if value >= 0]
        return [*lines, f"instances: {', '.join(shown[:3])}"] if shown else lines


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a model on a split.

    Attributes:
        model, data, split: what was evaluated.
        classes: per class.
        mean_iou: by the official rule: over the classes that are labelled or predicted.
        mean_boundary_iou: the same near outlines; None if it wasn't asked for.
        pixel_accuracy: share of right pixels.
        foreground_iou: for two classes, the mean over pictures of the IoU of class 1.
        foreground_iou_by_source: the same by the part of the names before "_", if that tells
            2 to 10 sources apart.
        warnings: what a reader of the numbers should know.
        pictures: per picture.
        worst: the worst of them; not in `to_json`.
        confusion: pixels by [label, prediction].
        notes: how classes were matched, and the like.
        seconds: it took, reading included.
        without_crf: mean IoU before the CRF, if there was one.
        trimap: the trimap curve, if it was asked for.
        panoptic: of a panoptic model on labels with instances.
    """

    model: str
    data: str
    split: str
    classes: tuple[ClassScore, ...]
    mean_iou: float
    mean_boundary_iou: float | None
    pixel_accuracy: float
    foreground_iou: float | None
    foreground_iou_by_source: dict[str, float]
    warnings: tuple[str, ...]
    pictures: tuple[PictureScore, ...]
    worst: tuple[WorstPicture, ...]
    confusion: np.ndarray
    notes: tuple[str, ...]
    seconds: float
    without_crf: float | None = None
    trimap: TrimapCurve | None = None
    panoptic: PanopticScores | None = None

    @property
    def trimap_lines(self) -> list[str]:
        """A few points of the curve in words."""
        if self.trimap is None:
            return []
        curve, lines = self.trimap, []
        for words, values in (("", curve.mean_iou), (" without the CRF", curve.without_crf)):
            points = zip(curve.widths, values, strict=False)
            told = [f"{w} px {v:.4f}" for w, v in points if w in _TOLD and v is not None]
            if told:
                lines.append(f"mean IoU near outlines{words}: {', '.join(told)}")
        return lines

    @property
    def classes_in_mean(self) -> int:
        """How many classes are labelled or predicted: the mean is over these."""
        return int(ConfusionMatrix.of(self.confusion).present.sum())

    @property
    def mean_iou_text(self) -> str:
        """Mean IoU in words: says over how many classes where some aren't there."""
        present = self.classes_in_mean
        over = "" if present == len(self.classes) else f" over {present} of {len(self.classes)}"
        return f"mean IoU{over + ' classes' if over else ''} {self.mean_iou:.4f}"

    def to_json(self) -> dict[str, Any]:
        """All numbers, but for those of single pictures."""
        value = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("worst", "pictures", "classes", "confusion", "trimap", "panoptic")
        }
        if self.trimap is not None:
            value["trimap"] = dataclasses.asdict(self.trimap)
        if self.panoptic is not None:
            value["panoptic"] = dataclasses.asdict(self.panoptic)
        return {
            **value,
            "classes_in_mean": self.classes_in_mean,
            "picture_count": len(self.pictures),
            "classes": [dataclasses.asdict(score) for score in self.classes],
            "confusion": self.confusion.tolist(),
        }
