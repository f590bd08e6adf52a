"""Does a converted model say what its source says? Asked with one stored picture."""

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from deeplab_tf import keys, pictures
from deeplab_tf.checkpoints import FROZEN_GRAPH, TFLITE, frozen_graph, tflite
from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import resize_bilinear
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.classifier import ImageClassifier

# Becomes 0 when the model normalises it: how the official code fills pictures up to its crop.
PAD_PIXEL = 127.5
# Where neither the model nor the file says how large pictures shall be.
_DEFAULT_SIZE = (513, 513)
# Far above every published size; the logits of 21 classes take 1.4 GB.
_LARGEST_SIDE = 4096
_CLASSIFIED_SIZE = (299, 299)
# An image classifier's likeliest classes, to be looked at.
_LIKELIEST = 5
# The same weights in two runtimes: 1e-5 was measured. A wrong epsilon or padding gives 1e-3.
MOST_DIFFERENCE = 1e-4
LEAST_AGREEMENT = 0.999


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says about the stored picture.

    Attributes:
        image: the picture at the model's size, without padding: uint8 [h, w, 3].
        labels: [h, w], None from an image classifier.
        probabilities: [C], from an image classifier.
        agreement: share of pixels with the label that the source gives, None if it can't be run.
        difference: largest difference of logits, relative to the source's largest; None if the
            source gives labels only.
        reason: why the source can't be run.
    """

    image: np.ndarray
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    agreement: float | None = None
    difference: float | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether model and source agree, as far as the source can be asked."""
        if self.agreement is None:
            return True
        close = self.difference is None or self.difference <= MOST_DIFFERENCE
        return close and self.agreement >= LEAST_AGREEMENT

    def shares(self, classes: tuple[str, ...]) -> dict[str, float]:
        """Share of the picture by class, largest first; classes that aren't there left out.

        From an image classifier: the probabilities of the likeliest.
        """
        if self.probabilities is not None:
            values, shares, most = (
                np.arange(len(self.probabilities)),
                self.probabilities,
                _LIKELIEST,
            )
        else:
            values, counts = np.unique(np.asarray(self.labels), return_counts=True)
            shares, most = counts / counts.sum(), len(values)
        names = [classes[v] if v < len(classes) else f"class {v}" for v in values]
        order = np.argsort(-shares, kind="stable")[:most]
        return {names[i]: float(shares[i]) for i in order}


def stored_picture() -> np.ndarray:
    """The portrait photo that matplotlib ships: uint8 [600, 512, 3]."""
    import matplotlib

    return pictures.read_image(
        Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    )


def answer(
    model: SegmentationModel, path: str | os.PathLike, kind: str, *, compare: bool = True
) -> Answer:
    """Asks the model, and its source where that can be run.

    Args:
        model: converted.
        path: the source.
        kind: its format, as `checkpoints.recognise` calls it.
        compare: False doesn't ask the source, for example since it has other classes.
    """
    picture = stored_picture()
    if isinstance(model, ImageClassifier):
        return _classified(model, picture)
    reason = "" if compare else "the last layer is new and untrained"
    if compare and kind == TFLITE:
        try:
            return _beside_tflite(model, path, picture)
        except ValueError as error:
            reason = str(error)
    elif compare and kind == FROZEN_GRAPH:
        try:
            return _beside_graph(model, path, picture)
        except ValueError as error:
            reason = str(error)
    elif compare:
        reason = "a checkpoint holds no graph"
    size = model_size(model)
    image = fit(picture, size)
    return Answer(image, _labels(_logits(model, image, size), image), reason=reason)


def _classified(model: ImageClassifier, picture: np.ndarray) -> Answer:
    """The picture goes in whole and without padding, which would be a part of what is seen."""
    image = fit(picture, model_size(model))
    logits = model(image[None].astype(np.float32), training=False)
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
    return Answer(
        image, probabilities=probabilities, reason="only graphs that label pixels are asked"
    )


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrinks or enlarges uint8 [H, W, 3] to lie inside `size`, its aspect kept."""
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))


def pad(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w, 3] -> float32 [1, *size, 3], filled up below and at the right."""
    padded = np.full((1, *size, 3), PAD_PIXEL, np.float32)
    padded[0, : image.shape[0], : image.shape[1]] = image
    return padded


def model_size(model: SegmentationModel) -> tuple[int, int]:
    """(height, width) at which a model is asked.

    Raises:
        InputError: its size is none, or none that a picture has.
    """
    size = model.input_shape[1:3]
    if None in size:
        default = _CLASSIFIED_SIZE if isinstance(model, ImageClassifier) else _DEFAULT_SIZE
        size = model.info.image_size or default
    if len(size) != 2 or not all(type(n) is int and 1 <= n <= _LARGEST_SIDE for n in size):
        raise InputError(
            f"image_size is [height, width], each from 1 to {_LARGEST_SIDE}; got {[*size]}."
        )
    return size[0], size[1]


def _logits(model: SegmentationModel, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[1, *size, C]."""
    outputs = model(pad(image, size), training=False)
    if isinstance(outputs, dict):
        outputs = outputs[keys.SEMANTIC_LOGITS]
    if tuple(outputs.shape[1:3]) != size:  # of a model that leaves them at a stride
        outputs = resize_bilinear(outputs, size)
    return np.asarray(keras.ops.convert_to_numpy(outputs))


def _labels(logits: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Without the padding: [h, w]."""
    return logits[0, : image.shape[0], : image.shape[1]].argmax(-1)


def _beside_tflite(model, path, picture: np.ndarray) -> Answer:
    size = tflite.input_size(path)
    image = fit(picture, size)
    pixels = model.endpoint_model("preprocessed")(pad(image, size))["preprocessed"]
    theirs = tflite.run_tflite(path, np.asarray(keras.ops.convert_to_numpy(pixels)))
    ours = _logits(model, image, size)
    if theirs.shape != ours.shape:
        raise ValueError(f"its output is {theirs.shape}, not logits {ours.shape}")
    labels = _labels(ours, image)
    return Answer(
        image,
        labels,
        agreement=float(np.mean(labels == _labels(theirs, image))),
        difference=float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
    )


def _beside_graph(model, path, picture: np.ndarray) -> Answer:
    image = fit(picture, model_size(model))
    theirs, crop = frozen_graph.run_frozen_graph(path, image)
    labels = _labels(_logits(model, image, crop), image)
    if theirs.shape != labels.shape:
        raise ValueError(f"its labels are {theirs.shape}, the picture {labels.shape}")
    return Answer(image, labels, agreement=float(np.mean(labels == theirs)))
