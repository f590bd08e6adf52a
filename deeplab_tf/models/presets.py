"""Models by name: those of `published`, and those whose weights ship in the package."""

import difflib
import inspect
import os
from pathlib import Path
from typing import Any

from deeplab_tf.backbones import BACKBONES
from deeplab_tf.errors import InputError
from deeplab_tf.models.base import (
    CONFIG_FILE,
    SegmentationModel,
    read_preset_folder,
    replace_arguments,
)
from deeplab_tf.models.deeplab_v1 import DeepLabV1
from deeplab_tf.models.deeplab_v2 import DeepLabV2
from deeplab_tf.models.deeplab_v3 import DeepLabV3
from deeplab_tf.models.deeplab_v3_plus import DeepLabV3Plus
from deeplab_tf.models.info import ModelInfo, Preset
from deeplab_tf.models.kmax_deeplab import KMaXDeepLab
from deeplab_tf.models.macs import count
from deeplab_tf.models.max_deeplab import MaXDeepLab
from deeplab_tf.models.panoptic_deeplab import AxialDeepLab, PanopticDeepLab
from deeplab_tf.models.published import PRESETS

MODEL_CLASSES: dict[str, type[SegmentationModel]] = {
    cls.__name__: cls
    for cls in (
        *(DeepLabV1, DeepLabV2, DeepLabV3, DeepLabV3Plus),
        *(PanopticDeepLab, AxialDeepLab, MaXDeepLab, KMaXDeepLab),
    )
}
SHIPPED = Path(__file__).parent.parent / "presets"


def from_preset(
    preset: str | os.PathLike, *, load_weights: bool = True, **arguments
) -> SegmentationModel:
    """A model by the name of a preset, or from a folder written by training or convert.

    Args:
        preset: a name from `list_presets()`, or a folder.
        load_weights: False builds the model with random weights.
        **arguments: constructor arguments that replace the preset's. Any `output_stride` that
            the backbone can do takes the same weights: 8 is finer and slower than 16. The atrous
            rates follow it.

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
        if not record.weights:
            raise InputError(
                f"the preset {preset!r} comes without weights, and none were published. With "
                "load_weights=False it starts from random ones, to be trained."
            )
        if not record.convertible:
            raise InputError(
                f"the preset {preset!r} comes without weights, and convert doesn't read those at "
                f"{record.weights} yet. With load_weights=False it starts from random ones."
            )
        raise InputError(
            f"the preset {preset!r} comes without weights. The official checkpoint is at "
            f"{record.weights} Download and unpack it, then "
            f"run: deeplab-tf convert CHECKPOINT --model {preset} --out FOLDER"
        )
    model = MODEL_CLASSES[record.class_name](**replace_arguments(record.arguments, arguments))
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


def preset_names() -> list[str]:
    """Names of all presets, those with shipped weights first."""
    return [*shipped_names(), *(name for name in PRESETS if name not in shipped_names())]


def describe_preset(name: str) -> dict[str, Any]:
    """All that is known of a preset, as JSON values.

    Raises:
        InputError: there is none of that name.
    """
    if name in shipped_names():
        model = from_preset(name, load_weights=False)
        counts = count(model)
        row = _row(name, type(model), model.get_config(), model.info)
        row["parameters"], row["multiply_adds"] = counts.parameters, counts.multiply_adds
        row |= {"shipped": True, "weights": "in the package", "result": _scores(model.info.metrics)}
        return row
    record = find_preset(name)
    row = _row(name, MODEL_CLASSES[record.class_name], record.arguments, record.info)
    row["task"], (row["parameters"], row["multiply_adds"]) = record.task, record.cost
    row |= {"weights": record.weights, "convertible": record.convertible}
    return row | {"result": record.result, "published_cost": record.published_cost}


def _row(
    name: str, cls: type[SegmentationModel], arguments: dict[str, Any], info: ModelInfo
) -> dict[str, Any]:
    """What a model's arguments and its `info` say."""
    settings = _defaults(cls) | arguments
    backbone, output_stride = cls.encoder_of(settings)
    return {
        "name": name,
        "task": "semantic",
        "class": cls.__name__,
        "backbone": backbone,
        "output_stride": output_stride,
        "pixels": BACKBONES[backbone].pixels,
        "image_size": list(info.image_size or ()),
        "parameters": 0,
        "multiply_adds": 0,
        "shipped": False,
        "weights": "",
        "convertible": False,
        "result": "",
        "published_cost": "",
        "source": info.source,
        "license": info.license,
        "classes": list(info.classes),
        "colors": [list(color) for color in info.colors],
        "settings": settings,
    }


def _defaults(cls: type) -> dict[str, Any]:
    """The defaults of a constructor, and of those that it hands its other arguments on to."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, SegmentationModel) and "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            found |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return found


def _scores(metrics: dict[str, Any]) -> str:
    """The numbers among a model's measured scores, in words."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


class PresetTable(list):
    """Rows of `describe_preset`; printed, a table. `name in table` looks a preset up."""

    _COLUMNS = ("name", "task", "parameters", "multiply_adds", "weights", "source")

    def __contains__(self, name) -> bool:
        return any(name in (row, row["name"]) for row in self)

    def __str__(self) -> str:
        shown: list[tuple[str, ...]] = [self._COLUMNS]
        for row in self:
            where = "none (convert)" if row["weights"] and row["convertible"] else "none"
            cells = {**row, "weights": row["weights"] if row["shipped"] else where}
            shown.append(tuple(_cell(cells[column]) for column in self._COLUMNS))
        widths = [max(len(row[i]) for row in shown) for i in range(len(self._COLUMNS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in shown
        ]
        return "\n".join(lines)

    __repr__ = __str__


def _cell(value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def list_presets() -> PresetTable:
    """Every preset: name, task, parameters, multiply-adds, weights or none, source, and more.

    Parameters are without batch norm's moving statistics, multiply-adds are for one picture of
    the preset's size; both are what `macs.count` finds.
    """
    return PresetTable(describe_preset(name) for name in preset_names())
