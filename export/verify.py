"""Same pictures through the Keras model and through what was exported from it."""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from PIL import Image

from deeplab_tf.export.benchmark import LiteModel, folder_size, lite_latency, median_ms
from deeplab_tf.export.lite_file import read_lite_file
from deeplab_tf.export.saved_model import ServedModel
from deeplab_tf.export.signature import logits_shape
from deeplab_tf.inference.runner import KerasRunner
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import read_image

# A picture, uint8 [H, W, 3] or the content of a file -> probabilities [H, W, classes] or labels
# [H, W].
Run = Callable[[Any], np.ndarray]


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


def compare(reference: Run, candidate: Run, pictures: Iterable[Any], num_classes: int):
    """Runs both on each picture: an `Agreement`.

    A pixel whose probabilities aren't numbers agrees with nothing, and is wrong by 1.
    """
    matrix = ConfusionMatrix(num_classes)
    same = pixels = values = count = 0
    largest, total = 0.0, 0.0
    with_probabilities = True
    for picture in pictures:
        wanted, given = reference(picture), candidate(picture)
        labels, found = _labels(wanted), _labels(given)
        same += int(((labels == found) & _finite(given)).sum())
        pixels += labels.size
        count += 1
        matrix.update(labels, found)
        if wanted.ndim == given.ndim == 3:
            error = np.nan_to_num(np.abs(wanted - given), nan=1.0)
            largest, total = max(largest, float(error.max())), total + float(error.sum())
            values += error.size
        else:
            with_probabilities = False
    return Agreement(
        pictures=count,
        agreement=same / max(1, pixels),
        mean_iou=matrix.mean_iou,
        max_error=largest if with_probabilities else None,
        mean_error=total / max(1, values) if with_probabilities else None,
    )


def verify_lite_file(
    model: keras.Model,
    path: str | os.PathLike,
    pictures: list[np.ndarray],
    *,
    threshold: float,
    threads: tuple[int, ...] = (1, 2),
) -> dict:
    """Compares a .tflite file with the model it came from.

    Args:
        model: the Keras model.
        path: the file.
        pictures: uint8 [H, W, 3] of the file's input size.
        threshold: smallest share of pixels that must agree.
        threads: numbers of threads to time it with.

    Returns:
        The report: JSON scalars, lists and dictionaries.

    Raises:
        VerificationError: too few pixels agree, or an operator isn't builtin.
    """
    facts = read_lite_file(path)
    lite = LiteModel(path)
    reference = KerasRunner(model)
    agreement = compare(
        lambda picture: reference.forward(picture[None])[0],
        lite.run,
        pictures,
        logits_shape(model)[-1],
    )
    report = {
        "size": list(lite.size),
        "bytes": facts.size,
        "input": {"name": lite.input_name, **_tensor(facts.inputs[0])},
        "output": {"name": lite.output_name, **_tensor(facts.outputs[0])},
        **dataclasses.asdict(agreement),
        "threshold": threshold,
        "operators": facts.operators,
        "builtin_only": not facts.custom,
        "partitions": lite.partitions,
        "latency_ms": lite_latency(path, threads=threads),
    }
    if facts.custom:
        raise VerificationError(
            f"the file needs operators that aren't builtin: {', '.join(facts.custom)}.", report
        )
    check_agreement(agreement, threshold, report)
    return report


def verify_saved_model(
    model: keras.Model,
    folder: str | os.PathLike,
    pictures: list[np.ndarray],
    *,
    info: ModelInfo,
    threshold: float,
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

    Returns:
        The report: JSON scalars, lists and dictionaries.

    Raises:
        VerificationError: too few pixels agree.
    """
    served, reference = ServedModel(folder), KerasRunner(model)
    reference.info = info
    num_classes = logits_shape(model)[-1]
    agreement = compare(reference.probabilities, served.run, pictures, num_classes)
    encoded = compare(
        lambda content: served.run(read_image(content)),
        served.run_encoded,
        [_encode(picture, "JPEG" if i % 2 else "PNG") for i, picture in enumerate(pictures)],
        num_classes,
    )
    report = {
        "image_size": list(info.image_size) if info.image_size else None,
        "resize": info.resize,
        "bytes": folder_size(folder),
        "signatures": served.signatures,
        **dataclasses.asdict(agreement),
        "encoded_agreement": encoded.agreement,
        "threshold": threshold,
        "latency_ms": {"all": round(median_ms(lambda: served.run(pictures[0])), 3)},
    }
    check_agreement(agreement, threshold, report)
    check_agreement(encoded, threshold, report)
    return report


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


def _finite(output: np.ndarray) -> np.ndarray:
    return np.isfinite(output).all(axis=-1) if output.ndim == 3 else np.ones(output.shape, bool)


def _labels(output: np.ndarray) -> np.ndarray:
    return output.argmax(axis=-1) if output.ndim == 3 else output


def _tensor(tensor) -> dict:
    entry = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    if tensor.scale:
        entry |= {"scale": tensor.scale, "zero_point": tensor.zero_point}
    return entry
