"""Export from end to end: convert, label, compare with the model, and only then give the name."""

import dataclasses
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from deeplab_tf.errors import InputError
from deeplab_tf.export import calibrate
from deeplab_tf.export.metadata import add_metadata, class_names
from deeplab_tf.export.panoptic import settings_of
from deeplab_tf.export.saved_model import write_saved_model
from deeplab_tf.export.signature import (
    LABELS,
    OUTPUTS,
    check_exportable,
    export_size,
    logits_shape,
)
from deeplab_tf.export.tflite import convert, find_scheme
from deeplab_tf.export.verify import verify_lite_file, verify_saved_model
from deeplab_tf.files import atomic_file, atomic_folder, write_json
from deeplab_tf.inference.base import prepare
from deeplab_tf.inference.intact import INFO_FILE
from deeplab_tf.inference.runner import SAVED_MODEL_FILE
from deeplab_tf.models.base import instances_by
from deeplab_tf.models.info import ModelInfo

REPORT_FILE = "report.json"
FORMATS = ("tflite", "saved_model")
CALIBRATION_PICTURES = 100
CHECK_PICTURES = 16
# A SavedModel resizes for itself, by TensorFlow instead of Pillow: not to the last bit.
SERVED_THRESHOLD = 0.995
SERVED_PANOPTIC_THRESHOLD = 0.97
# Pictures for the comparison are shrunk to this longest side: a SavedModel gets them whole.
_LONGEST_SIDE = 640


@dataclasses.dataclass(frozen=True)
class _Request:
    """What `export_model` was asked for, beside the model; its arguments say more."""

    out: Path
    to: str
    quantize: str
    size: int | tuple[int, int] | None
    labels: str
    calibration: calibrate.Source | None
    calibration_pictures: int
    check_pictures: int
    threshold: float
    panoptic_threshold: float
    seed: int


def export_model(
    model: keras.Model,
    out: str | os.PathLike,
    *,
    to: str = "tflite",
    quantize: str = "float32",
    size: int | tuple[int, int] | None = None,
    labels: str = "probabilities",
    calibration: calibrate.Source | None = None,
    calibration_pictures: int = CALIBRATION_PICTURES,
    check_pictures: int = CHECK_PICTURES,
    threshold: float | None = None,
    panoptic_threshold: float | None = None,
    report: str | os.PathLike | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes a verified TFLite file or SavedModel.

    A panoptic model's maps are merged inside a SavedModel. A .tflite file gives the maps, and
    `LiteRTRunner`, which `predict` runs it with, merges them.

    Args:
        model: float pixels 0..255 in, class logits out, such as every model of this package.
        out: the .tflite file or the folder. What is there stays until the new one has passed.
        to: "tflite" or "saved_model".
        quantize: "float32", "float16", "dynamic", "int8" or "int16x8"; a SavedModel is float32.
        size: one side of a square, or (height, width); None takes the model's own. A SavedModel
            takes pictures of any size; it brings them to this one inside.
        labels: "probabilities", or "argmax" for a label map.
        calibration: a folder of pictures or of records, or a sequence of paths and arrays. Needed
            by int8 and int16x8; the others are compared on pictures from it, or without it on
            views of a sample photo.
        calibration_pictures, check_pictures: at most so many.
        threshold: smallest share of pixels that must get the same class as from the model; None
            takes that of `quantize`, for a SavedModel SERVED_THRESHOLD.
        panoptic_threshold: smallest panoptic quality of a panoptic model's segments against those
            of the model itself; None as above.
        report: where the report goes; None takes report.json beside the file, or in the folder.
        seed: of the choice of pictures.

    Returns:
        The report, as written.

    Raises:
        InputError: something given doesn't fit.
        VerificationError: the result differs too much from the model; `out` is as before.
    """
    out = Path(out)
    _check_arguments(out, to, quantize, labels, threshold, panoptic_threshold)
    check_exportable(model)
    settings_of(model, _info(model))  # fails early
    scheme, served = find_scheme(quantize), to == "saved_model"
    if threshold is None:
        threshold = SERVED_THRESHOLD if served else scheme.threshold
    if panoptic_threshold is None:
        panoptic_threshold = SERVED_PANOPTIC_THRESHOLD if served else scheme.panoptic_threshold
    request = _Request(
        out=out,
        to=to,
        quantize=quantize,
        size=size,
        labels=labels,
        calibration=calibration,
        calibration_pictures=calibration_pictures,
        check_pictures=check_pictures,
        threshold=threshold,
        panoptic_threshold=panoptic_threshold,
        seed=seed,
    )
    write = _write_lite_file if to == "tflite" else _write_saved_model
    return write(model, request, report)


def _check_arguments(
    out: Path, to: str, quantize: str, labels: str, threshold, panoptic_threshold
) -> None:
    if to not in FORMATS:
        raise InputError(f"to is one of {', '.join(FORMATS)}; got {to!r}.")
    if labels not in OUTPUTS:
        raise InputError(f"labels is one of {', '.join(OUTPUTS)}; got {labels!r}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold is a share of pixels, 0 to 1; got {threshold}.")
    if panoptic_threshold is not None and not 0 <= panoptic_threshold <= 1:
        raise InputError(f"panoptic_threshold is a quality, 0 to 1; got {panoptic_threshold}.")
    find_scheme(quantize)
    if to == "tflite" and out.suffix != ".tflite":
        raise InputError(f"{out}: the name of a TFLite file ends in .tflite.")
    if to == "saved_model":
        if quantize != "float32":
            raise InputError(f"a SavedModel stays float32; {quantize} is for --to tflite.")
        _check_folder(out)


def _check_folder(out: Path) -> None:
    """A folder is replaced whole: it must not hold anything but an earlier SavedModel."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; name a folder to write.")
    if any(out.iterdir()) and not (out / SAVED_MODEL_FILE).is_file():
        raise InputError(f"{out} exists and is no SavedModel; name a new folder to write.")


def _write_lite_file(
    model: keras.Model, request: _Request, report_file: str | os.PathLike | None
) -> dict[str, Any]:
    scheme = find_scheme(request.quantize)
    size = export_size(model, request.size)
    info = _info_at(_info(model), size)
    found = calibrate.gather(
        request.calibration,
        lambda picture: prepare(picture, size, info.resize).image,
        calibration=request.calibration_pictures if scheme.calibrated else 0,
        check=request.check_pictures,
        # What a panoptic model sees in the padding would pass for segments.
        prepare_check=_bounded if instances_by(model) else None,
        seed=request.seed,
    )
    content = convert(
        model,
        size,
        quantize=request.quantize,
        labels=request.labels,
        calibration=found.calibration,
    )
    content = add_metadata(
        content,
        info,
        class_names(info, logits_shape(model)[-1]),
        name=model.name,
        segmenter=OUTPUTS[request.labels] != LABELS and instances_by(model) is None,
    )
    with atomic_file(request.out, suffix=".tflite") as temporary:
        temporary.write_bytes(content)
        report = {
            **_about(model, request, found),
            **verify_lite_file(
                model,
                temporary,
                found.check,
                threshold=request.threshold,
                panoptic_threshold=request.panoptic_threshold,
            ),
        }
        # Before the file has its name: what has no report isn't verified.
        write_json(report_file or request.out.parent / REPORT_FILE, report)
    return report


def _write_saved_model(
    model: keras.Model, request: _Request, report_file: str | os.PathLike | None
) -> dict[str, Any]:
    info = _info(model)
    if request.size is not None:
        info = _info_at(info, export_size(model, request.size))
    found = calibrate.gather(
        request.calibration,
        _bounded,
        calibration=0,
        check=request.check_pictures,
        seed=request.seed,
    )
    with atomic_folder(request.out) as temporary:
        write_saved_model(model, temporary, info=info, labels=request.labels)
        write_json(temporary / INFO_FILE, info.to_json())
        report = {
            **_about(model, request, found),
            **verify_saved_model(
                model,
                temporary,
                found.check,
                info=info,
                threshold=request.threshold,
                panoptic_threshold=request.panoptic_threshold,
            ),
        }
        write_json(temporary / REPORT_FILE, report)
        if report_file:
            write_json(report_file, report)
    return report


def _info(model: keras.Model) -> ModelInfo:
    return getattr(model, "info", None) or ModelInfo()


def _info_at(info: ModelInfo, size: tuple[int, int]) -> ModelInfo:
    """The record of a model with a fixed picture size; the settings of its training stay behind."""
    resize = "fit" if info.resize == "fit" else "stretch"
    return dataclasses.replace(info, image_size=size, resize=resize, training={})


def _about(model: keras.Model, request: _Request, found: calibrate.ExportPictures) -> dict:
    """The report's head: what was made from what."""
    return {
        "file": request.out.name,
        "model": model.name,
        "parameters": model.count_params(),
        "format": request.to,
        "quantize": request.quantize,
        "labels": request.labels,
        "pictures_from": found.source,
        "calibration_pictures": len(found.calibration),
        "versions": {name: version(name) for name in ("tensorflow", "keras", "ai-edge-litert")},
    }


def _bounded(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], shrunk if a side is longer than `_LONGEST_SIDE`."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return np.asarray(image)
