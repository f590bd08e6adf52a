"""Opens whatever holds a model: a preset, a preset folder, a SavedModel, a .tflite file."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json
from deeplab_tf.inference.base import Prepared, Runner, prepare, softmax
from deeplab_tf.inference.intact import INFO_FILE
from deeplab_tf.inference.litert import LiteRTRunner, quiet_stderr
from deeplab_tf.models.info import ModelInfo

SAVED_MODEL_FILE = "saved_model.pb"
# Compiling takes as long as this many pictures without it (measured: 1.2 s against 0.1 s each).
_BEFORE_COMPILING = 8


def load_runner(model: Any) -> Runner:
    """A runner for anything that segments pictures.

    Args:
        model: the name of a preset, a preset folder, a SavedModel folder, a .tflite file, a
            Keras model with `info`, or a runner, which comes back as it is.

    Raises:
        InputError: there is no such model, or its files are broken.
    """
    if isinstance(model, Runner):
        return model
    if not isinstance(model, str | os.PathLike):
        return KerasRunner(model)
    path = Path(model)
    if path.suffix == ".tflite" or (path.is_file() and is_lite_file(path)):
        return LiteRTRunner(path)
    if (path / SAVED_MODEL_FILE).is_file():
        return SavedModelRunner(path)
    if path.is_file():
        raise InputError(f"{path} is neither a .tflite file nor a folder with a model in it.")
    with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
        from deeplab_tf.models.base import CONFIG_FILE
        from deeplab_tf.models.presets import from_preset, shipped_names

    named = str(model) in shipped_names()
    if path.is_dir() and not named and not (path / CONFIG_FILE).is_file():
        raise InputError(
            f"{path}: no model in this folder, neither a preset ({CONFIG_FILE}) nor a SavedModel "
            f"({SAVED_MODEL_FILE}). Name the folder that train, convert or export wrote."
        )
    return KerasRunner(from_preset(model), name=str(model))


def lite_file_of(preset: str | os.PathLike) -> Path | None:
    """The .tflite file in a preset's folder, the int8 one if there are several."""
    shipped = Path(__file__).parent.parent / "presets" / str(preset)
    folder = shipped if shipped.is_dir() else Path(preset)
    found = sorted(folder.glob("*.tflite"), key=lambda path: ("int8" not in path.name, path.name))
    return found[0] if found else None


def is_lite_file(path: Path) -> bool:
    """Whether a file begins like a TFLite model."""
    with open(path, "rb") as file:
        return file.read(8)[4:] == b"TFL3"


class KerasRunner(Runner):
    """A Keras model of ours, on any backend.

    Args:
        model: float pixels 0..255 in, class logits out. Its `info`, if it has one, says how
            pictures are brought to its size.
        name: to call it; None takes the model's.
    """

    def __init__(self, model, name: str | None = None):
        self.model = model
        self.name = name or model.name
        self.info = getattr(model, "info", None) or ModelInfo()
        self._calls = 0
        height, width = model.input_shape[1:3]
        if height is not None and width is not None:
            self.size = (height, width)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        import keras

        self._calls += len(batch)
        if self._calls > _BEFORE_COMPILING:
            output = self.model.predict_on_batch(batch.astype(np.float32))
        else:
            output = self.model(batch.astype(np.float32), training=False)
        if isinstance(output, dict):
            output = output[keys.SEMANTIC_LOGITS]
        return softmax(keras.ops.convert_to_numpy(output))


class SavedModelRunner(Runner):
    """A SavedModel folder as `deeplab-tf export --to saved_model` writes it.

    It brings pictures to the model's size and the answer back by itself.

    Args:
        path: the folder.

    Raises:
        InputError: it can't be opened, or has no `serving_default` that takes pictures.
    """

    def __init__(self, path: str | os.PathLike):
        import keras

        self.name = str(path)
        self.info = saved_info(path)
        try:
            self._layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default")
        except Exception as error:  # protobuf, graph and file errors of many kinds
            raise cannot_open(path, error) from None

    def forward(self, batch: np.ndarray) -> np.ndarray:
        import keras

        output = self._layer(batch)
        if isinstance(output, dict):
            output = next(iter(output.values()))
        array = keras.ops.convert_to_numpy(output)
        if array.ndim == 3:
            known = max(len(self.info.classes), int(array.max(initial=0)) + 1, 2)
            return np.eye(known, dtype=np.float32)[array.astype(np.int64)]
        return array.astype(np.float32)

    def _prepare(self, image: np.ndarray) -> Prepared:
        return prepare(image, None, "none", max_pixels=self.max_pixels)


def cannot_open(path: str | os.PathLike, error: Exception) -> InputError:
    """What to say of a SavedModel that TensorFlow doesn't open."""
    reason = (str(error).strip().splitlines() or ["unknown reason"])[0]
    return InputError(f"{path}: this SavedModel can't be opened ({reason}); export it again.")


def saved_info(path: str | os.PathLike) -> ModelInfo:
    """The record that an export leaves in the folder of a SavedModel.

    Raises:
        InputError: it is broken.
    """
    for place in (Path(path) / INFO_FILE, Path(path) / "assets.extra" / INFO_FILE):
        if place.is_file():
            value = read_json(place)
            try:
                return ModelInfo.from_json(value)
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{place} isn't the record of a model ({error}); export it again."
                ) from None
    return ModelInfo()
