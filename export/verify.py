"""Same pictures through the Keras model and through what was exported from it."""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from PIL import Image

from deeplab_tf.export.benchmark import (
    LiteModel,
    folder_size,
    lite_latency,
    median_ms,
    merge_latency,
)
from deeplab_tf.export.lite_file import read_lite_file
from deeplab_tf.export.saved_model import ServedModel
from deeplab_tf.export.signature import LABELS, logits_shape
from deeplab_tf.inference.base import PixelScores
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.inference.masks import MaskScoreMap
from deeplab_tf.inference.panoptic import PanopticScoreMap, merge_settings
from deeplab_tf.inference.runner import KerasRunner
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.metrics.panoptic_quality import PanopticQuality
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import read_image
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.merge_settings import MergeSettings

# A picture, uint8 [H, W, 3] or the content of a file -> probabilities [H, W, classes] or labels
# [H, W].
Run = Callable[[Any], np.ndarray]
# A picture -> what a panoptic model says of it, a `PanopticScoreMap`.
RunPanoptic = Callable[[Any], PixelScores]


class VerificationError(Exception):
    """What was exported doesn't do what the model does; `report` has the numbers."""

    def __init__(self, message: str, report: dict):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far two versions of a model agree over all pixels of some pictures.

    Attributes:
        pictures: how many.
        agreement: share of pixels with the same class.
        mean_iou: of one label map against the other.
        max_error, mean_error: of the probabilities; None if one side gives labels only.
    """

    pictures: int
    agreement: float
    mean_iou: float
    max_error: float | None
    mean_error: float | None


@dataclasses.dataclass(frozen=True)
class SegmentAgreement:
    """How far the segments of two versions of a panoptic model agree over some pictures.

    Attributes:
        panoptic_quality: of one's maps with the other's for truth; 1 where neither finds anything.
        panoptic_quality_things: the same over things alone.
        segments: how many are in both ("found"), in the model's alone ("missed"), in the other's
            alone ("invented").
    """

    panoptic_quality: float
    panoptic_quality_things: float
    segments: dict[str, int]


class _Comparison:
    """Adds up pictures."""

    def __init__(self, num_classes: int):
        self._matrix = ConfusionMatrix(num_classes)
        self._same = self._pixels = self._values = self._count = 0
        self._largest, self._total = 0.0, 0.0
        self._with_probabilities = True

    def add(self, wanted: np.ndarray, given: np.ndarray) -> None:
        """Probabilities [H, W, classes] or labels [H, W] of one picture."""
        labels, found = _labels(wanted), _labels(given)
        self._same += int(((labels == found) & _finite(given)).sum())
        self._pixels += labels.size
        self._count += 1
        self._matrix.update(labels, found)
        if wanted.ndim == given.ndim == 3:
            error = np.nan_to_num(np.abs(wanted - given), nan=1.0)
            self._largest = max(self._largest, float(error.max()))
            self._total += float(error.sum())
            self._values += error.size
        else:
            self._with_probabilities = False

    def result(self) -> Agreement:
        both = self._with_probabilities
        return Agreement(
            pictures=self._count,
            agreement=self._same / max(1, self._pixels),
            mean_iou=self._matrix.mean_iou,
            max_error=self._largest if both else None,
            mean_error=self._total / max(1, self._values) if both else None,
        )


def compare(reference: Run, candidate: Run, pictures: Iterable[Any], num_classes: int) -> Agreement:
    """Runs both on each picture.

    A pixel whose probabilities aren't numbers agrees with nothing, and is wrong by 1.
    """
    found = _Comparison(num_classes)
    for picture in pictures:
        found.add(reference(picture), candidate(picture))
    return found.result()


def compare_panoptic(
    reference: RunPanoptic,
    candidate: RunPanoptic,
    pictures: Iterable[Any],
    num_classes: int,
    settings: MergeSettings | MaskSettings,
) -> tuple[Agreement, SegmentAgreement]:
    """The same for panoptic answers: their classes, and their segments."""
    classes = _Comparison(num_classes)
    quality = PanopticQuality(
        num_classes, settings.thing_classes, settings.label_divisor, settings.void_label
    )
    for picture in pictures:
        wanted, given = reference(picture), candidate(picture)
        assert isinstance(wanted, PanopticScoreMap) and isinstance(given, PanopticScoreMap)
        if isinstance(wanted, MaskScoreMap):  # which has labels of its own, not the likeliest class
            classes.add(wanted.labels(), given.labels())
        else:
            classes.add(wanted.probabilities(), given.probabilities())
        quality.update(wanted.panoptic_label, given.panoptic_label)
    counts = (quality.tp, quality.fn, quality.fp)
    segments = SegmentAgreement(
        panoptic_quality=quality.all.pq if quality.all.classes else 1.0,
        panoptic_quality_things=quality.things.pq if quality.things.classes else 1.0,
        segments={
            name: int(count.sum())
            for name, count in zip(("found", "missed", "invented"), counts, strict=True)
        },
    )
    return classes.result(), segments


def verify_lite_file(
    model: keras.Model,
    path: str | os.PathLike,
    pictures: list[np.ndarray],
    *,
    threshold: float,
    panoptic_threshold: float = 0.0,
    threads: tuple[int, ...] = (1, 2),
) -> dict:
    """Compares a .tflite file with the model it came from.

    Args:
        model: the Keras model.
        path: the file.
        pictures: uint8 [H, W, 3] of the file's input size; for a panoptic model of any sizes.
        threshold: smallest share of pixels that must agree.
        panoptic_threshold: smallest panoptic quality, of a panoptic model.
        threads: numbers of threads to time it with.

    Returns:
        The report: JSON scalars, lists and dictionaries.

    Raises:
        VerificationError: too few pixels or segments agree, or an operator isn't builtin.
    """
    facts = read_lite_file(path)
    lite = LiteModel(path)
    reference, num_classes = KerasRunner(model), logits_shape(model)[-1]
    segments = None
    if lite.is_panoptic:
        runner = LiteRTRunner(path)
        reference.info = runner.info
        agreement, segments = compare_panoptic(
            reference.scores, runner.scores, pictures, num_classes, merge_settings(runner.info)
        )
    else:
        agreement = compare(
            lambda picture: reference.forward(picture[None])[0], lite.run, pictures, num_classes
        )
    outputs = [
        {"name": name, **_tensor(tensor)}
        for name, tensor in zip(lite.output_names, facts.outputs, strict=True)
    ]
    report = {
        "size": list(lite.size),
        "bytes": facts.size,
        "input": {"name": lite.input_name, **_tensor(facts.inputs[0])},
        **({"outputs": outputs} if lite.is_panoptic else {"output": outputs[0]}),
        **dataclasses.asdict(agreement),
        "threshold": threshold,
        **_about_segments(segments, panoptic_threshold),
        "operators": facts.operators,
        "builtin_only": not facts.custom,
        "partitions": lite.partitions,
        "latency_ms": lite_latency(path, threads=threads),
    }
    if lite.is_panoptic:
        report["merge_ms"] = merge_latency(path)
    if facts.custom:
        raise VerificationError(
            f"the file needs operators that aren't builtin: {', '.join(facts.custom)}.", report
        )
    check_agreement(agreement, threshold, report)
    check_segments(segments, panoptic_threshold, report)
    return report


def verify_saved_model(
    model: keras.Model,
    folder: str | os.PathLike,
    pictures: list[np.ndarray],
    *,
    info: ModelInfo,
    threshold: float,
    panoptic_threshold: float = 0.0,
) -> dict:
    """Compares both signatures of a SavedModel with the model it came from.

    Args:
        model: the Keras model.
        folder: the SavedModel.
        pictures: uint8 [H, W, 3] of any sizes.
        info: says how the SavedModel resizes; what it must agree with is `predict`, which resizes
            by other code. Files in turn PNG and JPEG, decoded here by Pillow and there by
            TensorFlow, must agree just as well.
        threshold: smallest share of pixels that must agree.
        panoptic_threshold: smallest panoptic quality, of a panoptic model.

    Returns:
        The report: JSON scalars, lists and dictionaries.

    Raises:
        VerificationError: too few pixels or segments agree.
    """
    served, reference = ServedModel(folder), KerasRunner(model)
    reference.info = info
    num_classes = logits_shape(model)[-1]
    files = [_encode(picture, "JPEG" if i % 2 else "PNG") for i, picture in enumerate(pictures)]
    segments = None
    if served.is_panoptic:
        settings = merge_settings(info)

        def classes_of(panoptic_label: np.ndarray) -> np.ndarray:
            # Void may be a value beyond all classes.
            return np.minimum(panoptic_label // settings.label_divisor, num_classes)

        agreement, segments = compare_panoptic(
            reference.scores, served.scores, pictures, num_classes, settings
        )
        if LABELS in served.signatures["serving_default"]["outputs"]:
            agreement = dataclasses.replace(agreement, max_error=None, mean_error=None)
        encoded = compare(
            lambda content: classes_of(served.scores(read_image(content)).panoptic_label),
            lambda content: classes_of(served.run_encoded(content)),
            files,
            num_classes + 1,
        )
    else:
        agreement = compare(reference.probabilities, served.run, pictures, num_classes)
        encoded = compare(
            lambda content: served.run(read_image(content)), served.run_encoded, files, num_classes
        )
    report = {
        "image_size": list(info.image_size) if info.image_size else None,
        "resize": info.resize,
        "bytes": folder_size(folder),
        "signatures": served.signatures,
        **dataclasses.asdict(agreement),
        "encoded_agreement": encoded.agreement,
        "threshold": threshold,
        **_about_segments(segments, panoptic_threshold),
        "latency_ms": {"all": round(median_ms(lambda: served.run(pictures[0])), 3)},
    }
    check_agreement(agreement, threshold, report)
    check_agreement(encoded, threshold, report)
    check_segments(segments, panoptic_threshold, report)
    return report


def _about_segments(segments: SegmentAgreement | None, threshold: float) -> dict:
    """What the report says of them: nothing of a semantic model."""
    if segments is None:
        return {}
    return {**dataclasses.asdict(segments), "panoptic_threshold": threshold}


def _encode(picture: np.ndarray, kind: str) -> bytes:
    """The content of a file, as a client would send it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def check_agreement(agreement: Agreement, threshold: float, report: dict) -> None:
    """Raises VerificationError below the threshold."""
    if agreement.agreement < threshold:
        raise VerificationError(
            f"only {agreement.agreement:.4f} of the pixels get the class that the model gives "
            f"them, less than the threshold of {threshold}.",
            report,
        )


def check_segments(segments: SegmentAgreement | None, threshold: float, report: dict) -> None:
    """Raises VerificationError below the threshold."""
    if segments is not None and segments.panoptic_quality < threshold:
        raise VerificationError(
            f"against the model's own segments its panoptic quality is only "
            f"{segments.panoptic_quality:.4f}, less than the threshold of {threshold}.",
            report,
        )


def _finite(output: np.ndarray) -> np.ndarray:
    return np.isfinite(output).all(axis=-1) if output.ndim == 3 else np.ones(output.shape, bool)


def _labels(output: np.ndarray) -> np.ndarray:
    return output.argmax(axis=-1) if output.ndim == 3 else output


def _tensor(tensor) -> dict:
    entry = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    if tensor.scale:
        entry |= {"scale": tensor.scale, "zero_point": tensor.zero_point}
    return entry
