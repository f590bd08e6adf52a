"""The presets: named models with their settings, and with weights where they ship."""

import dataclasses
import difflib
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
from deeplab_tf.models.deeplab_v3 import DeepLabV3
from deeplab_tf.models.deeplab_v3_plus import DeepLabV3Plus
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.label_sets import ADE20K, CITYSCAPES, PASCAL_VOC, PORTRAIT
from deeplab_tf.models.macs import count

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


_ZOO = "http://download.tensorflow.org/models"
# No atrous branches and no decoder: the official mobile models. Their graphs were frozen at
# output stride 8.
_MOBILE: dict[str, Any] = {"backbone": "mobilenet_v2", "output_stride": 8, "atrous_rates": ()}
_HALF_WIDTH = {**_MOBILE, "depth_multiplier": 0.5}
# The light R-ASPP head (https://arxiv.org/abs/1905.02244, Sec. 6.4) as it was trained.
_LIGHT: dict[str, Any] = {
    "num_classes": 19,
    "output_stride": 32,
    "atrous_rates": (),
    "image_pooling_crop_size": (769, 769),
    "image_pooling_stride": (4, 5),
    "aspp_with_concat_projection": False,
    "aspp_with_squeeze_and_excitation": True,
    "image_se_uses_qsigmoid": True,
    "aspp_convs_filters": 128,
    "decoder_output_stride": (8,),
    "decoder_use_sum_merge": True,
    "decoder_filters": 19,
    "decoder_output_is_logits": True,
}
_EDGETPU: dict[str, Any] = {
    "num_classes": 19,
    "backbone": "mobilenet_edgetpu",
    "output_stride": 16,
    "atrous_rates": (),
}
_EDGETPU_INFO = dataclasses.replace(
    CITYSCAPES, source="Official TensorFlow DeepLab: ImageNet, then Cityscapes train_fine."
)
# DeepLabs of the PyTorch world: plain convolutions, the image-level feature last, half-pixel
# resizing.
_TORCH: dict[str, Any] = {
    "num_classes": 21,
    "aspp_with_separable_conv": False,
    "image_pooling_last": True,
    "align_corners": False,
}
# torchvision trained with the rates of output stride 8 at any stride. Its second head, for a loss
# in training, is another few parameters: `auxiliary_endpoint`.
_TORCHVISION = {**_TORCH, "head_num_convs": 1, "atrous_rates": (12, 24, 36), "dropout_rate": 0.5}
_TORCHVISION_INFO = dataclasses.replace(
    PASCAL_VOC,
    image_size=(520, 520),
    source="torchvision: COCO train2017, pictures and labels with a class of PASCAL VOC.",
    license="BSD-3-Clause",
)
_TORCH_PLUS = {
    **_TORCH,
    "output_stride": 16,
    "decoder_use_separable_conv": False,
    "decoder_num_convs": 1,
    "decoder_low_level_first": True,
}
_TORCH_PLUS_INFO = dataclasses.replace(
    PASCAL_VOC,
    source="DeepLabV3Plus-Pytorch: ImageNet, then PASCAL VOC 2012 train_aug.",
    license="MIT",
)
_TORCH_PLUS_WEIGHTS = "https://github.com/VainF/DeepLabV3Plus-Pytorch"

PRESETS: dict[str, Preset] = {
    "deeplab_v3_mobilenet_v2_voc": Preset(
        "DeepLabV3",
        {"num_classes": 21, **_MOBILE},
        PASCAL_VOC,
        result="VOC val mIoU 75.32 at output stride 16; 77.33 at 8 with scales and flips",
        weights=f"{_ZOO}/deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_voc_trainval": Preset(
        "DeepLabV3",
        {"num_classes": 21, **_MOBILE},
        dataclasses.replace(
            PASCAL_VOC,
            source="Official TensorFlow DeepLab: COCO, then VOC 2012 train_aug and trainval.",
        ),
        result="VOC test mIoU 80.25 at output stride 8 with scales and flips",
        weights=f"{_ZOO}/deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_dm05_voc": Preset(
        "DeepLabV3",
        {"num_classes": 21, **_HALF_WIDTH},
        # The size of TensorFlow's own TFLite file of this model, deeplabv3_257_mv_gpu.tflite.
        dataclasses.replace(PASCAL_VOC, image_size=(257, 257)),
        result="VOC val mIoU 70.19 at 513x513 and output stride 16",
        weights=f"{_ZOO}/deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_dm05_portrait": Preset(
        "DeepLabV3",
        {"num_classes": 2, **_HALF_WIDTH},
        PORTRAIT,
        weights="https://github.com/anilsathyan7/Portrait-Segmentation",
    ),
    "deeplab_v3_plus_mobilenet_v2_ade20k": Preset(
        "DeepLabV3Plus",
        {"num_classes": 151, **_MOBILE, "output_stride": 16},
        # Pictures in this set are small and of any shape: it was trained at this size.
        dataclasses.replace(ADE20K, image_size=(257, 257)),
        result="ADE20K val mIoU 32.04 and pixel accuracy 75.41 at 257x257 and output stride 16",
        weights=f"{_ZOO}/deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_cityscapes": Preset(
        "DeepLabV3",
        {"num_classes": 19, **_MOBILE, "output_stride": 16},
        dataclasses.replace(
            CITYSCAPES, source="Official TensorFlow DeepLab: COCO, then Cityscapes train_fine."
        ),
        result="Cityscapes val mIoU 70.71 at output stride 16; 73.57 at 8 with scales and flips",
        weights=f"{_ZOO}/deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz",
    ),
    "deeplab_v3_mobilenet_v3_large_cityscapes": Preset(
        "DeepLabV3",
        {"backbone": "mobilenet_v3_large_seg", **_LIGHT},
        CITYSCAPES,
        result="Cityscapes val mIoU 72.41 at output stride 32",
        weights=f"{_ZOO}/deeplab_mnv3_large_cityscapes_trainfine_2019_11_15.tar.gz",
    ),
    "deeplab_v3_mobilenet_v3_small_cityscapes": Preset(
        "DeepLabV3",
        {"backbone": "mobilenet_v3_small_seg", **_LIGHT},
        CITYSCAPES,
        result="Cityscapes val mIoU 68.99 at output stride 32",
        weights=f"{_ZOO}/deeplab_mnv3_small_cityscapes_trainfine_2019_11_15.tar.gz",
    ),
    "deeplab_v3_mobilenet_edgetpu_cityscapes": Preset(
        "DeepLabV3",
        _EDGETPU,
        _EDGETPU_INFO,
        result="Cityscapes val mIoU 74.1 at output stride 16, 70.6 at 32",
        weights=f"{_ZOO}/edgetpu-deeplab_2020_03_09.tar.gz",
    ),
    "deeplab_v3_mobilenet_edgetpu_slim_cityscapes": Preset(
        "DeepLabV3",
        {**_EDGETPU, "depth_multiplier": 0.75, "aspp_convs_filters": 128},
        _EDGETPU_INFO,
        result="Cityscapes val mIoU 73.2 at output stride 16, 70.0 at 32",
        weights=f"{_ZOO}/edgetpu-deeplab-slim_2020_03_09.tar.gz",
    ),
    "deeplab_v3_resnet_50_torch_coco": Preset(
        "DeepLabV3",
        {**_TORCHVISION, "backbone": "resnet_50_torch", "output_stride": 8},
        _TORCHVISION_INFO,
        result="COCO val2017, classes of VOC: mIoU 66.4, pixel accuracy 92.4",
        weights="https://download.pytorch.org/models/deeplabv3_resnet50_coco-cd0a2569.pth",
    ),
    "deeplab_v3_resnet_101_torch_coco": Preset(
        "DeepLabV3",
        {**_TORCHVISION, "backbone": "resnet_101_torch", "output_stride": 8},
        _TORCHVISION_INFO,
        result="COCO val2017, classes of VOC: mIoU 67.4, pixel accuracy 92.4",
        weights="https://download.pytorch.org/models/deeplabv3_resnet101_coco-586e9e4e.pth",
    ),
    "deeplab_v3_mobilenet_v3_large_torch_coco": Preset(
        "DeepLabV3",
        {**_TORCHVISION, "backbone": "mobilenet_v3_large_torch", "output_stride": 16},
        _TORCHVISION_INFO,
        result="COCO val2017, classes of VOC: mIoU 60.3, pixel accuracy 91.2",
        weights="https://download.pytorch.org/models/deeplabv3_mobilenet_v3_large-fc3c493d.pth",
    ),
    "deeplab_v3_plus_mobilenet_v2_torch_voc": Preset(
        "DeepLabV3Plus",
        {**_TORCH_PLUS, "backbone": "mobilenet_v2_torch"},
        _TORCH_PLUS_INFO,
        result="VOC val mIoU 71.1 on 513x513 centre crops at output stride 16",
        weights=_TORCH_PLUS_WEIGHTS,
    ),
    "deeplab_v3_plus_resnet_50_torch_voc": Preset(
        "DeepLabV3Plus",
        {**_TORCH_PLUS, "backbone": "resnet_50_torch"},
        _TORCH_PLUS_INFO,
        result="VOC val mIoU 77.2 on 513x513 centre crops at output stride 16",
        weights=_TORCH_PLUS_WEIGHTS,
    ),
    "deeplab_v3_plus_resnet_101_torch_voc": Preset(
        "DeepLabV3Plus",
        {**_TORCH_PLUS, "backbone": "resnet_101_torch"},
        _TORCH_PLUS_INFO,
        result="VOC val mIoU 78.3 on 513x513 centre crops at output stride 16",
        weights=_TORCH_PLUS_WEIGHTS,
    ),
}


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
        where = f" The official checkpoint is at {record.weights}" if record.weights else ""
        raise InputError(
            f"the preset {preset!r} comes without weights.{where} Download and unpack it, then "
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
    """All that is known of a preset, as JSON values; costs are counted from its graph.

    Raises:
        InputError: there is none of that name.
    """
    model = from_preset(name, load_weights=False)
    arguments, info, shipped = model.get_config(), model.info, name in shipped_names()
    counts = count(model)
    record = PRESETS.get(name)
    return {
        "name": name,
        "task": record.task if record else "semantic",
        "class": type(model).__name__,
        "backbone": arguments["backbone"],
        "output_stride": arguments["output_stride"],
        "pixels": BACKBONES[arguments["backbone"]].pixels,
        "image_size": list(counts.image_size),
        "parameters": counts.parameters,
        "multiply_adds": counts.multiply_adds,
        "shipped": shipped,
        "weights": "in the package" if shipped else (record.weights if record else ""),
        "result": record.result if record else _scores(info.metrics),
        "source": info.source,
        "license": info.license,
        "classes": list(info.classes),
        "colors": [list(color) for color in info.colors],
        "settings": arguments,
    }


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
            cells = {**row, "weights": row["weights"] if row["shipped"] else "none (convert)"}
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

    Each graph is built once to count its cost, which takes a few seconds in all.
    """
    return PresetTable(describe_preset(name) for name in preset_names())
