"""The presets: named models with their settings, and with weights where they ship."""

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from deeplab_tf.errors import InputError
from deeplab_tf.models.base import CONFIG_FILE, SegmentationModel, read_preset_folder
from deeplab_tf.models.deeplab_v3 import DeepLabV3
from deeplab_tf.models.deeplab_v3_plus import DeepLabV3Plus
from deeplab_tf.models.info import ModelInfo

MODEL_CLASSES: dict[str, type[SegmentationModel]] = {
    cls.__name__: cls for cls in (DeepLabV3, DeepLabV3Plus)
}
SHIPPED = Path(__file__).parent.parent / "presets"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
        class_name: a key of `MODEL_CLASSES`.
        arguments: of its constructor.
        info: classes, colours, picture size.
        result: the published score, in words.
        weights: where the official checkpoint is published, "" if nowhere.
        task: what it predicts.
    """

    class_name: str
    arguments: dict[str, Any]
    info: ModelInfo
    result: str = ""
    weights: str = ""
    task: str = "semantic"


PRESETS: dict[str, Preset] = {}


def from_preset(
    preset: str | os.PathLike, *, load_weights: bool = True, **arguments
) -> SegmentationModel:
    """A model by the name of a preset, or from a folder written by training or convert.

    Args:
        preset: a name from `list_presets()`, or a folder.
        load_weights: False builds the model with random weights.
        **arguments: constructor arguments that replace the preset's.

    Raises:
        InputError: no such preset or folder, a preset without shipped weights, or a folder whose
            files don't fit.
    """
    folder = Path(preset)
    if (SHIPPED / str(preset) / CONFIG_FILE).is_file():
        folder = SHIPPED / str(preset)
    if folder.is_dir():
        return read_preset_folder(folder, MODEL_CLASSES, load_weights=load_weights, **arguments)
    record = find_preset(str(preset))
    if load_weights:
        where = f" The official checkpoint is at {record.weights}" if record.weights else ""
        raise InputError(
            f"the preset {preset!r} comes without weights.{where} Download and unpack it, then "
            f"run: deeplab-tf convert CHECKPOINT --model {preset} --out FOLDER"
        )
    model = MODEL_CLASSES[record.class_name](**{**record.arguments, **arguments})
    model.info = record.info
    return model


def find_preset(name: str) -> Preset:
    """The record of a published model.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRESETS:
        known = [*shipped_names(), *PRESETS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"no preset or preset folder {name!r}.{hint} `deeplab-tf models` lists the presets."
        )
    return PRESETS[name]


def shipped_names() -> list[str]:
    """Names of the presets whose weights are in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG_FILE}"))


def list_presets() -> list[str]:
    """Names of all presets, those with shipped weights first."""
    return [*shipped_names(), *(name for name in PRESETS if name not in shipped_names())]
