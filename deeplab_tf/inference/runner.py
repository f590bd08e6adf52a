"""Opens whatever holds a model: a preset, a preset folder, a SavedModel, a .tflite file."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json
from deeplab_tf.inference.base import Prepared, Runner, ScoreMap, prepare, softmax
from deeplab_tf.inference.intact import INFO_FILE
from deeplab_tf.inference.litert import LiteRTRunner, quiet_stderr
from deeplab_tf.inference.merged import merged_scores
from deeplab_tf.inference.windows import OVERLAP, WindowRunner
from deeplab_tf.models.info import ModelInfo

SAVED_MODEL_FILE = "saved_model.pb"
# Compiling takes as long as this many pictures without it (measured: 1.2 s against 0.1 s each).
_BEFORE_COMPILING = 8


def load_runner(
    model: Any,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: tuple[int, int] | None = None,
    overlap: float | None = None,
    output_stride: int | None = None,
    crf: Any = None,
) -> Runner:
    """A runner for anything that segments pictures.

    Args:
        model: the name of a preset, a preset folder, a SavedModel folder, a .tflite file, a
            Keras model with `info`, or a runner, which comes back as it is.
        scales, flip, window, overlap, crf: see `refine`.
        output_stride: of a preset or preset folder, in place of its own: 8 is finer and slower.

    Raises:
        InputError: there is no such model, its files are broken, or it can't be run like that.
    """
    runner = _open(model, output_stride)
    return refine(runner, scales=scales, flip=flip, window=window, overlap=overlap, crf=crf)


def refine(
    runner: Runner,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: tuple[int, int] | None = None,
    overlap: float | None = None,
    crf: Any = None,
) -> Runner:
    """A runner that takes more trouble; with nothing asked, the same one.

    Args:
        runner: what to run.
        scales: of the picture, the mean of whose probabilities decides (v3, Sec. 4: 0.5 to 1.75
            in steps of a quarter). Each costs its square in time and memory.
        flip: whether the mirror image has its say at each scale too.
        window: (height, width) of the part of a picture to see at once, at the picture's own
            resolution: for pictures that are larger than what the model was trained on.
        overlap: share of a window that the next one covers too, a quarter if None.
        crf: sharpens the answer at the picture's own resolution: parameters of the CRF, see
            `read_parameters`.

    Raises:
        InputError: a value makes no sense, or the model can't be run like that.
    """
    scales = tuple(scales) if isinstance(scales, Sequence) else (scales,)
    if not scales or not all(_is_number(scale) and 0 < scale < math.inf for scale in scales):
        raise InputError(f"scales are numbers above 0, such as (0.5, 1.0, 1.75); got {scales!r}.")
    if window is None and overlap is not None:
        raise InputError("overlap is of windows: give window too, such as window=(513, 513).")
    scales = tuple(float(scale) for scale in scales)
    if scales != (1.0,) or flip:
        runner = runner.fused(scales, flip)
    if runner.info.label_divisor is not None and (window is not None or crf is not None):
        raise InputError(
            f"{runner.name} tells instances apart, which "
            f"{'windows' if window is not None else 'the CRF'} would cut; leave "
            f"{'window' if window is not None else 'crf'} out."
        )
    if window is not None:
        runner = WindowRunner(runner, window, OVERLAP if overlap is None else overlap)
    if crf is not None:
        from deeplab_tf.inference.crf import CrfRunner

        runner = CrfRunner(runner, crf)
    return runner


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _open(model: Any, output_stride: int | None) -> Runner:
    """The runner of a model, at its own output stride if that is None."""
    path = Path(model) if isinstance(model, str | os.PathLike) else None
    is_lite = path is not None and (
        path.suffix == ".tflite" or (path.is_file() and is_lite_file(path))
    )
    if output_stride is not None and (
        path is None or is_lite or (path / SAVED_MODEL_FILE).is_file()
    ):
        raise InputError(
            f"{getattr(model, 'name', model)} is built already, so its output stride is fixed; "
            f"name its preset or folder, or build it: from_preset(..., output_stride="
            f"{output_stride})."
        )
    if isinstance(model, Runner):
        return model
    if path is None:
        return KerasRunner(model)
    if is_lite:
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
    if output_stride is None:
        return KerasRunner(from_preset(model), name=str(model))
    name = f"{model}, output stride {output_stride}"
    return KerasRunner(from_preset(model, output_stride=output_stride), name)


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
        logits: False if the model gives probabilities.
    """

    def __init__(self, model, name: str | None = None, *, logits: bool = True):
        self.model, self._logits = model, logits
        self.name = name or model.name
        self.info = getattr(model, "info", None) or ModelInfo()
        self._calls = 0
        height, width = model.input_shape[1:3]
        if height is not None and width is not None:
            self.size = (height, width)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        import keras

        self._calls += len(batch)
        if self._calls > _BEFORE_COMPILING:
            output = self.model.predict_on_batch(batch.astype(np.float32))
        else:
            output = self.model(batch.astype(np.float32), training=False)
        output = output if isinstance(output, dict) else {keys.SEMANTIC_LOGITS: output}
        if keys.SEMANTIC_LOGITS not in output:
            raise InputError(
                f"{self.name} tells no classes apart (tasks={self.model.get_config()['tasks']!r}); "
                "its maps are for a merge with another model's classes."
            )
        if keys.MASK_LOGITS in output:
            slots = (keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS)
            arrays = {name: keras.ops.convert_to_numpy(output[name]) for name in slots}
            return {name: x.astype(np.float32, copy=False) for name, x in arrays.items()}
        classes = keras.ops.convert_to_numpy(output[keys.SEMANTIC_LOGITS])
        found = {keys.PROBABILITIES: softmax(classes) if self._logits else classes}
        wanted = (keys.CENTER_HEATMAP, keys.OFFSET_MAP) if self.info.label_divisor else ()
        for name in wanted:
            if name in output:
                found[name] = keras.ops.convert_to_numpy(output[name])
        return found

    def fused(self, scales: Sequence[float], flip: bool) -> Runner:
        from deeplab_tf.models.base import instances_by

        if instances_by(self.model) == "masks":
            raise InputError(
                f"{self.name} gives masks by slots, and a slot means something else at another "
                "scale or in the mirror, so they can't be averaged; leave scales and flip out."
            )
        fusible = "logits" in getattr(self.model, "endpoints", {})
        if not fusible or "output_stride" not in self.model.get_config():
            return super().fused(scales, flip)
        if self.size and any(scale != 1 for scale in scales):
            raise InputError(
                f"{self.name} was built for {self.size[0]}x{self.size[1]} pixels only; for scales "
                "open its size: from_preset(..., image_shape=(None, None, 3))."
            )
        from deeplab_tf.postprocess.multi_scale import fused_model

        model = fused_model(self.model, eval_scales=scales, add_flipped_images=flip)
        listed = ", ".join(f"{scale:g}" for scale in scales)
        runner = KerasRunner(
            model, f"{self.name}, scales {listed}{', flipped too' if flip else ''}", logits=False
        )
        runner.info = self.info
        return runner


class SavedModelRunner(Runner):
    """A SavedModel folder as `deeplab-tf export --to saved_model` writes it.

    It brings pictures to the model's size and the answer back by itself; a panoptic one merges,
    too.

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
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """ "probabilities", and of a panoptic model "panoptic_label" and "instance_score"."""
        import keras

        output = self._layer(batch)
        if not isinstance(output, dict):
            output = {keys.PROBABILITIES: output}
        merged = (keys.PANOPTIC_LABEL, keys.INSTANCE_SCORE)
        found = {
            name: keras.ops.convert_to_numpy(output[name]) for name in merged if name in output
        }
        classes = output.get(keys.PROBABILITIES, output.get("labels", next(iter(output.values()))))
        array = keras.ops.convert_to_numpy(classes)
        if array.ndim == 3:
            known = max(len(self.info.classes), int(array.max(initial=0)) + 1, 2)
            array = np.eye(known, dtype=np.float32)[array.astype(np.int64)]
        return {keys.PROBABILITIES: array.astype(np.float32, copy=False), **found}

    @property
    def only_size(self) -> tuple[int, int] | None:
        return None if self.info.resize == "none" else self.info.image_size

    def fused(self, scales: Sequence[float], flip: bool) -> Runner:
        given = self._layer.call_endpoint_fn.structured_outputs
        if flip and keys.PANOPTIC_LABEL in given:
            raise InputError(
                f"{self.name} gives instances that are merged already, which the mirror image "
                "can't have a say in; run the model that it was exported from, or leave flip out."
            )
        return super().fused(scales, flip)

    def _prepare(self, image: np.ndarray) -> Prepared:
        return prepare(image, None, "none", max_pixels=self.max_pixels)

    def _answer(
        self, image: np.ndarray, prepared: Prepared, maps: dict[str, np.ndarray]
    ) -> ScoreMap:
        if keys.PANOPTIC_LABEL not in maps:
            return super()._answer(image, prepared, maps)
        return merged_scores(maps, (image.shape[0], image.shape[1]), self.info)


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
