"""Scores of a model on a split, at each picture's own size, and what they say in plain words."""

import contextlib
import dataclasses
import heapq
import itertools
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from deeplab_tf import keys, pictures
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import PixelScores, Runner
from deeplab_tf.inference.crf import CrfRunner
from deeplab_tf.inference.panoptic import PanopticScoreMap
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.metrics.boundary_iou import BoundaryIoU
from deeplab_tf.metrics.instance_ap import InstanceAP
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.metrics.panoptic_quality import PanopticQuality
from deeplab_tf.metrics.trimap import TrimapIoU
from deeplab_tf.panoptic_format import Coding, PanopticWriter
from deeplab_tf.panoptic_pictures import panoptic_overlay
from deeplab_tf.training.examples import Examples, open_examples
from deeplab_tf.training.findings import plain_warnings
from deeplab_tf.training.scores import (
    ClassScore,
    PanopticClassScore,
    PanopticScores,
    PictureScore,
    Scores,
    TrimapCurve,
    WorstPicture,
)

Crowd = Literal["segment", "ignore"]
_THUMBNAIL = 320
# No more than so many are held at once, or large photos would fill the memory.
_BATCH_PIXELS = 16 * 2**20


def evaluate(
    model: Any,
    data: str | os.PathLike,
    split: str = "val",
    *,
    batch_size: int = 16,
    boundary: bool = True,
    trimap: bool = False,
    worst: int = 12,
    crowd: Crowd = "segment",
    predictions: str | os.PathLike | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> Scores:
    """Runs a model over a split.

    Labels are never resized: probabilities are brought to each picture's own size. Where the
    model has more classes than the data, or others, classes are matched by their names, and
    what has no match counts as background.

    Args:
        model: what `load_runner` opens; `load_runner(name, scales=..., flip=True)` and the like
            for more than one look at a picture.
        data: a folder of records, or a plain folder of pictures and masks.
        split: of the data.
        batch_size: pictures to run at once where the model has one size for all.
        boundary: whether to compute boundary IoU.
        trimap: whether to compute the trimap curve.
        worst: how many of the worst pictures to keep.
        crowd: what a crowd counts as in panoptic quality: "segment" (deeplab2) or "ignore" (COCO).
        predictions: folder where a panoptic model's maps go as PNGs, with a JSON file of the same
            name beside it, in COCO's format: what the official scripts score.
        limit: stop after so many pictures.
        progress: show a bar.

    Raises:
        InputError: model or data can't be read, classes don't match, or a label is outside them.
    """
    started = time.perf_counter()
    runner = load_runner(model)
    examples = open_examples(data, split)
    options: dict[str, Any] = dict(boundary=boundary, trimap=trimap, worst=worst)
    if runner.info.label_divisor is not None and examples.read_panoptic is not None:
        if examples.label_divisor is None:
            raise InputError(f"{data}: its labels tell no instances apart, which the model does.")
        tally: _Tally = PanopticTally(examples, runner, crowd=crowd, **options)
        examples = dataclasses.replace(examples, read=examples.read_panoptic)
    else:
        tally = _Tally(examples, runner, **options)
        if predictions is not None:
            raise InputError(f"{runner.name} tells no instances apart; leave predictions out.")
    with tally.writing(predictions):
        for batch in _batches(_bar(examples, limit, progress), batch_size):
            tally.update(batch)
        tally.compare_count(limit)
    return tally.finish(time.perf_counter() - started)


def _bar(examples: Examples, limit: int | None, progress: bool) -> Iterator:
    total = min(examples.count, limit or examples.count)
    stream = itertools.islice(examples, limit)
    # Where nobody watches, a bar would leave an empty line among the errors.
    if not progress or not sys.stderr.isatty():
        return stream
    from rich.console import Console
    from rich.progress import track

    return iter(track(stream, "evaluating", total, console=Console(stderr=True), transient=True))


def _batches(stream: Iterable, size: int) -> Iterator[list]:
    batch = []
    pixels = 0
    for item in stream:
        batch.append(item)
        pixels += item[2].size
        if len(batch) == size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


class _Tally:
    """Adds up pictures in constant memory, but for a line and the worst thumbnails."""

    def __init__(
        self, examples: Examples, runner: Runner, *, boundary: bool, trimap: bool, worst: int
    ):
        self._examples, self._runner, self._keep = examples, runner, worst
        count = len(examples.classes)
        self._total = ConfusionMatrix(count, examples.ignore_label)
        self._trimap = TrimapIoU(count, examples.ignore_label) if trimap else None
        self._crf = runner if isinstance(runner, CrfRunner) else None
        # What the model says before the CRF.
        self._total_before = ConfusionMatrix(count, examples.ignore_label)
        self._trimap_before = TrimapIoU(count, examples.ignore_label) if trimap else None
        self._boundary = BoundaryIoU(count, examples.ignore_label) if boundary else None
        self._pictures: list[PictureScore] = []
        self._worst: list[tuple[float, int, WorstPicture]] = []
        self._values: np.ndarray | None = None
        self._notes: list[str] = []

    def update(self, batch: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
        """Adds (name, image [H, W, 3], label [H, W]) of some pictures."""
        runner = self._runner if self._crf is None else self._crf.inner
        maps = runner.batch_scores([image for _, image, _ in batch])
        for (name, image, label), scores in zip(batch, maps, strict=True):
            if self._values is None:
                self._values = self._match(scores.num_classes)
            label = self._classes_of(name, label, scores)
            if self._crf is not None:
                before = self._values[scores.labels()]
                scores = self._crf.sharpen(image, scores)
            self._add(name, image, label, self._values[scores.labels()])
            # Behind the other, which finds labels that are wrong.
            if self._crf is not None:
                self._total_before.update(label, before)
                if self._trimap_before is not None:
                    self._trimap_before.update(label, before)

    def writing(self, folder: str | os.PathLike | None) -> contextlib.AbstractContextManager:
        """While this lasts, what is predicted is written; see `predictions` of `evaluate`."""
        return contextlib.nullcontext()

    def _classes_of(self, name: str, label: np.ndarray, scores: PixelScores) -> np.ndarray:
        """The class of each pixel, of a label as it was read."""
        return label

    def _match(self, count: int) -> np.ndarray:
        """Class of the data for each class of the model."""
        values, note = match_classes(self._runner.info.classes, count, self._examples.classes)
        if note:
            self._notes.append(note)
        return values

    def _add(self, name: str, image: np.ndarray, label: np.ndarray, prediction: np.ndarray):
        single = ConfusionMatrix.of(self._examples.confusion(name, label, prediction))
        self._total.matrix += single.matrix
        if self._boundary is not None:
            self._boundary.update(label, prediction)
        if self._trimap is not None:
            self._trimap.update(label, prediction)
        score = self._picture_score(name, single)
        self._pictures.append(score)
        rank = score.rank
        if not single.matrix.sum():  # all of it is the ignored value: neither good nor bad
            return
        if not self._keep or (len(self._worst) == self._keep and -rank <= self._worst[0][0]):
            return
        shown = WorstPicture(score, *self._thumbnails(image, label, prediction))
        heapq.heappush(self._worst, (-rank, -len(self._pictures), shown))
        if len(self._worst) > self._keep:
            heapq.heappop(self._worst)

    def _picture_score(self, name: str, single: ConfusionMatrix) -> PictureScore:
        matrix = single.matrix
        foreground = None
        if len(matrix) == 2:
            either = matrix[1].sum() + matrix[0, 1]
            foreground = float(matrix[1, 1] / either) if either else None
        accuracy = float(np.trace(matrix) / max(1, matrix.sum()))
        return PictureScore(name, single.mean_iou, foreground, accuracy)

    def _thumbnails(self, image, label, prediction) -> list[np.ndarray]:
        height, width = image.shape[:2]
        scale = min(1.0, _THUMBNAIL / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        result = [small]
        for labels in (label, prediction):
            coloured = Image.fromarray(pictures.colorize(labels, self._examples.colors))
            shown = np.asarray(coloured.resize(size, Image.Resampling.BOX))
            result.append((0.35 * small + 0.65 * shown).astype(np.uint8))
        return result

    def _panoptic(self) -> PanopticScores | None:
        """Scores of segments, where there are any."""
        return None

    def compare_count(self, limit: int | None) -> None:
        """Refuses a split that is shorter than listed: a shard may end where a record ends."""
        listed, found = self._examples.count, len(self._pictures)
        self._examples.refuse_fewer(found, limit)
        if found > listed:
            self._notes.append(f"only {listed} pictures are listed, but {found} were found")

    def finish(self, seconds: float) -> Scores:
        """The scores of all that was added."""
        if not self._pictures:
            raise InputError(
                f"{self._examples.name}: no pictures in {self._examples.split!r}; name another "
                "split that has some."
            )
        total, near = self._total, self._boundary
        classes = tuple(
            ClassScore(
                name=name,
                color=self._examples.colors[i],
                iou=_number(total.class_iou[i]),
                boundary_iou=_number(near.class_iou[i]) if near is not None else None,
                pixel_share=float(total.pixel_share[i]),
                predicted_share=float(total.predicted_share[i]),
            )
            for i, name in enumerate(self._examples.classes)
        )
        accuracy = float(np.trace(total.matrix) / max(1, total.matrix.sum()))
        if self._crf is not None:
            self._note_other_classes()
        return Scores(
            model=self._runner.name,
            data=self._examples.name,
            split=self._examples.split,
            classes=classes,
            mean_iou=total.mean_iou,
            mean_boundary_iou=near.mean_iou if near is not None else None,
            pixel_accuracy=accuracy,
            foreground_iou=_mean(score.foreground_iou for score in self._pictures),
            foreground_iou_by_source=_by_source(self._pictures),
            warnings=plain_warnings(total.matrix, self._examples.classes, len(self._pictures)),
            pictures=tuple(self._pictures),
            worst=tuple(shown for _, _, shown in sorted(self._worst, key=lambda w: w[:2])[::-1]),
            confusion=total.matrix,
            notes=tuple(self._notes),
            seconds=seconds,
            without_crf=None if self._crf is None else self._total_before.mean_iou,
            trimap=self._trimap_curve(),
            panoptic=self._panoptic(),
        )

    def _note_other_classes(self) -> None:
        """Says so if the means with and without the CRF are over different classes."""
        after, before = self._total, self._total_before
        counts = [int(m.present.sum()) for m in (before, after)]
        if counts[0] == counts[1]:
            return
        means = [float(np.nanmean(m.class_iou)) for m in (before, after)]
        self._notes.append(
            f"{counts[0]} classes are labelled or predicted without the CRF, {counts[1]} with it; "
            f"mean IoU over the labelled ones is {means[0]:.4f} without, {means[1]:.4f} with it"
        )

    def _trimap_curve(self) -> TrimapCurve | None:
        if self._trimap is None or self._trimap_before is None:
            return None
        before = self._trimap_before.mean_iou if self._crf is not None else ()
        return TrimapCurve(self._trimap.widths, tuple(self._trimap.mean_iou), tuple(before))


class PanopticTally(_Tally):
    """Adds up segments too, of labels that are panoptic."""

    def __init__(self, examples: Examples, runner: Runner, *, crowd: Crowd, **options):
        super().__init__(examples, runner, **options)
        theirs = (runner.info.thing_classes, len(runner.info.classes))
        if theirs != (examples.thing_classes, len(examples.classes)):
            raise InputError(
                f"{runner.name} tells instances of other classes apart than {examples.name}: "
                f"{_things(runner.info.classes, runner.info.thing_classes)} and "
                f"{_things(examples.classes, examples.thing_classes)}. Evaluate on data of the "
                "model's classes."
            )
        assert examples.label_divisor is not None
        self._divisor, self._crowd = examples.label_divisor, crowd
        self._quality = self._new_quality()
        self._ap = InstanceAP(examples.thing_classes, self._divisor)
        self._single = self._new_quality()
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        self._writer: PanopticWriter | None = None

    @contextlib.contextmanager
    def writing(self, folder):
        if folder is None:
            yield
            return
        examples = self._examples
        coding = Coding(
            category_ids=examples.category_ids or tuple(range(len(examples.classes))),
            thing_classes=examples.thing_classes,
            label_divisor=self._divisor,
            ignore_label=examples.ignore_label or 0,
        )
        names, colors = examples.classes, examples.colors
        with PanopticWriter(folder, coding, names=names, colors=colors) as self._writer:
            yield

    def _new_quality(self) -> PanopticQuality:
        examples = self._examples
        return PanopticQuality(
            len(examples.classes),
            examples.thing_classes,
            self._divisor,
            examples.ignore_label,
            crowd=self._crowd,
        )

    def _classes_of(self, name, label, scores):
        if not isinstance(scores, PanopticScoreMap):
            raise InputError(
                f"{self._runner.name} has classes alone and tells no instances apart, which "
                f"{self._examples.name} wants."
            )
        found, theirs = scores.panoptic_label, scores.settings.label_divisor
        # The data's divisor may be another than the one the model was trained with.
        void = found == scores.settings.void_value
        found = found // theirs * self._divisor + np.minimum(found % theirs, self._divisor - 1)
        found[void] = (self._examples.ignore_label or 0) * self._divisor
        self._single = self._new_quality()
        self._single.update(label, found)
        self._quality += self._single
        # A segment's class may be another than that of some of its pixels.
        probability = scores.probability_of(np.minimum(found // self._divisor, self._last_class))
        score = scores.merged[keys.INSTANCE_SCORE]
        self._ap.update(label, found, class_probability=probability, instance_score=score)
        if self._writer is not None:
            self._writer.add(Path(name).stem, found, image=name)
        self._maps = label, found
        return label // self._divisor

    @property
    def _last_class(self) -> int:
        return len(self._examples.classes) - 1

    def _picture_score(self, name, single):
        pq = self._single.all
        score = super()._picture_score(name, single)
        return dataclasses.replace(score, pq=float(pq.pq) if pq.classes else None)

    def _thumbnails(self, image, label, prediction):
        height, width = image.shape[:2]
        scale = min(1.0, _THUMBNAIL / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        assert self._maps is not None
        drawn = [
            panoptic_overlay(
                image,
                labels,
                self._examples.colors,
                self._examples.thing_classes,
                self._divisor,
                ignore_label=self._examples.ignore_label,
            )
            for labels in self._maps
        ]
        return [
            np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
            for picture in (image, *drawn)
        ]

    def _panoptic(self):
        quality, examples = self._quality, self._examples
        parts = {"all": quality.all, "things": quality.things, "stuff": quality.stuff}
        there = {name: part for name, part in parts.items() if part.classes}
        classes = tuple(
            PanopticClassScore(
                name=name,
                is_thing=i in examples.thing_classes,
                pq=_number(quality.class_pq[i]),
                sq=_number(quality.class_sq[i]),
                rq=_number(quality.class_rq[i]),
                found=int(quality.tp[i]),
                missed=int(quality.fn[i]),
                invented=int(quality.fp[i]),
            )
            for i, name in enumerate(examples.classes)
        )
        return PanopticScores(
            pq={name: float(part.pq) for name, part in there.items()},
            sq={name: float(part.sq) for name, part in there.items()},
            rq={name: float(part.rq) for name, part in there.items()},
            classes=classes,
            instance_ap={name: float(value) for name, value in self._ap.result().items()},
            crowd=self._crowd,
        )


def _things(names: tuple[str, ...], things: tuple[int, ...], most: int = 5) -> str:
    """Those classes by their names."""
    shown = [names[i] if i < len(names) else str(i) for i in things[:most]]
    return ", ".join(shown) + (", …" if len(things) > most else "") + f" of {len(names)}"


def match_classes(
    names: tuple[str, ...], count: int, wanted: tuple[str, ...]
) -> tuple[np.ndarray, str]:
    """The data's class for each of the model's `count` classes, and a note if it isn't plain.

    Args:
        names: of the model's classes, possibly none.
        count: of the model's classes.
        wanted: names of the data's classes.

    Raises:
        InputError: they can't be matched.
    """
    dtype = np.uint8 if len(wanted) <= 256 else np.uint16
    mine, theirs = [n.lower() for n in names[:count]], [n.lower() for n in wanted]
    moved = [name for name in theirs if name in mine and mine.index(name) != theirs.index(name)]
    if count == len(wanted) and not moved:
        others = mine != theirs and len(mine) == count
        # Black and white masks have no names of their own.
        if others and not {*mine} & {*theirs} and theirs != ["background", "foreground"]:
            raise _differ(names, count, wanted)
        note = f"classes were taken in order, though the model calls them {', '.join(names)}"
        return np.arange(count, dtype=dtype), note if others else ""
    lost = [name for name in theirs if name not in mine and name != "background"]
    if lost or (theirs[0] != "background" and len(mine) != len(theirs)):
        raise _differ(names, count, wanted)
    values = [theirs.index(name) if name in theirs else 0 for name in mine]
    values += [0] * (count - len(values))
    return (
        np.array(values, dtype),
        "classes were matched by name; the model's others count as background",
    )


def _differ(names: tuple[str, ...], count: int, wanted: tuple[str, ...]) -> InputError:
    def listed(some):
        return ", ".join(some[:6]) + (", …" if len(some) > 6 else "") if some else "without names"

    return InputError(
        f"the model has {count} classes ({listed(names)}), the data has {len(wanted)} "
        f"({listed(wanted)}), and their names don't match. Evaluate on data of the model's "
        "classes, or train or convert a model for these."
    )


def _number(value: float) -> float | None:
    """None for NaN, which JSON can't hold."""
    return None if np.isnan(value) else float(value)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _by_source(scores: list[PictureScore]) -> dict[str, float]:
    """Mean foreground IoU by the part of the name before "_", for 2 to 10 such parts."""
    groups = defaultdict(list)
    for score in scores:
        prefix, found, _ = Path(score.name).name.partition("_")
        groups[prefix if found else ""].append(score.foreground_iou)
    means = {prefix: _mean(values) for prefix, values in sorted(groups.items())}
    known = {prefix: mean for prefix, mean in means.items() if mean is not None}
    return known if 2 <= len(groups) <= 10 and "" not in groups else {}
