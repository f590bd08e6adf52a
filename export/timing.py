"""Timing models that need TensorFlow; `benchmark` times .tflite files."""

import os

import keras

from deeplab_tf.export.benchmark import folder_size, median_ms, noise
from deeplab_tf.export.saved_model import ServedModel
from deeplab_tf.export.signature import export_size

_SIDE = 256


def measure_model(
    model: keras.Model, *, size: tuple[int, int] | None = None, seconds: float = 1.0
) -> dict:
    """Size and latency of a Keras model for one picture, as JSON scalars and dictionaries."""
    size = export_size(model, size)
    batch = noise(size)[None].astype("float32")
    # Compiled, as a runner has it after its first few pictures.
    milliseconds = median_ms(lambda: model.predict_on_batch(batch), seconds=seconds)
    return {
        "size": list(size),
        "bytes": sum(weight.size * weight.dtype.itemsize for weight in model.get_weights()),
        "latency_ms": {"all": round(milliseconds, 3)},
    }


def measure_saved_model(
    folder: str | os.PathLike, *, size: tuple[int, int] | None = None, seconds: float = 1.0
) -> dict:
    """The same for a SavedModel; without a size, for pictures that it needn't resize."""
    served = ServedModel(folder)
    size = size or served.info.image_size or (_SIDE, _SIDE)
    picture = noise(size)
    milliseconds = median_ms(lambda: served.run(picture), seconds=seconds)
    return {
        "size": list(size),
        "bytes": folder_size(folder),
        "latency_ms": {"all": round(milliseconds, 3)},
    }
