"""An official file in, a preset folder out, with the proof beside it."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deeplab_tf import pictures
from deeplab_tf.backbones import BACKBONES
from deeplab_tf.checkpoints import Loaded, assign, read, recognise
from deeplab_tf.checkpoints.answer import Answer, answer, model_size
from deeplab_tf.checkpoints.backbone import refused_backbone
from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_folder, read_json, write_json
from deeplab_tf.models.base import (
    CONFIG_FILE,
    SegmentationModel,
    preset_class,
    replace_arguments,
)
from deeplab_tf.models.classifier import ImageClassifier
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.presets import MODEL_CLASSES, from_preset

REPORT_FILE, PICTURE_FILE = "report.json", "answer.png"
_CLASSES = {**MODEL_CLASSES, ImageClassifier.__name__: ImageClassifier}


class AnswerDiffersError(RuntimeError):
    """The converted model says something else than its source; nothing was written."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert` has done.

    Attributes:
        folder: the preset.
        model: as it is in there.
        loaded: the name map.
        answer: on the stored picture.
    """

    folder: Path
    model: SegmentationModel
    loaded: Loaded
    answer: Answer

    def report(self) -> dict[str, Any]:
        """What goes into report.json."""
        return {
            "source": self.loaded.path,
            "format": self.loaded.format,
            "model": self.model.get_config(),
            "variables": [dataclasses.asdict(variable) for variable in self.loaded.variables],
            "left_out": list(self.loaded.left_out),
            "made_anew": list(self.loaded.new),
            "answer": {
                "picture": "grace_hopper.jpg of matplotlib",
                "size": list(self.answer.image.shape[:2]),
                "shares": self.answer.shares(self.model.info.classes),
                "agreement_with_source": self.answer.agreement,
                "largest_logit_difference": self.answer.difference,
                "source_not_asked": self.answer.reason,
            },
        }


def convert(
    path: str | os.PathLike,
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    output_stride: int | None = None,
    step: Callable[[str], None] = lambda text: None,
) -> Conversion:
    """Turns an official file into a preset folder.

    The folder gets config.json and weights.npz, report.json with every variable, and answer.png:
    what the model says about a stored picture (an image classifier's answer is in the report
    alone). Where the file itself can be run (TFLite, frozen graph), both must say the same.

    Args:
        path: see `deeplab_tf.checkpoints.load`.
        model: the preset it is of, a preset folder, or a JSON file like a preset's config.json.
            For an image classifier, the name of its backbone.
        out: the folder to write. An earlier preset of that name is replaced.
        num_classes: if not the preset's. If it isn't the file's either, the last layer is made
            anew.
        classes: names of the classes, if not the preset's.
        output_stride: if not the preset's; the same weights serve any.
        step: is told what comes next.

    Raises:
        InputError: the file isn't of this model or can't be read, there is no such model, or `out`
            is something else than a preset.
        AnswerDiffersError: model and file don't say the same.
    """
    _check_target(Path(out), Path(path))
    step("recognise the file")
    kind = recognise(path)
    step("build the model")
    network = build_model(
        model, num_classes=num_classes, classes=classes, output_stride=output_stride
    )
    step("read and assign the variables")
    # Another number of classes must have been asked for; else it is a wrong preset.
    asked = num_classes is not None or classes is not None
    loaded = assign(network, read(path, network), new_last_layer=None if asked else False)
    if loaded.backbone_only:
        raise refused_backbone(loaded.path, network, is_classifier=loaded.is_classifier)
    origin = f"Converted from {Path(loaded.path).name} ({loaded.format})."
    network.info = dataclasses.replace(
        network.info, source=f"{network.info.source} {origin}".strip()
    )
    step("ask the model about the stored picture")
    result = answer(network, path, kind, compare=not loaded.new)
    if not result.good:
        raise AnswerDiffersError(_difference(str(path), result))
    step("write the preset")
    conversion = Conversion(Path(out), network, loaded, result)
    _write(conversion)
    return conversion


def build_model(
    name: str | os.PathLike,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    output_stride: int | None = None,
) -> SegmentationModel:
    """The model of a preset, preset folder, JSON file or backbone, with random weights.

    Args:
        name: see `convert`.
        num_classes, classes, output_stride: replace the preset's.

    Raises:
        InputError: there is no such model, or the two don't agree.
    """
    if classes is not None:
        if num_classes not in (None, len(classes)):
            raise InputError(f"{len(classes)} classes are named, but num_classes is {num_classes}.")
        num_classes = len(classes)
    model = _named(name)
    try:
        model_size(model)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    config, info = model.get_config(), model.info
    changed = dict(config)
    if num_classes not in (None, config["num_classes"]):
        changed["num_classes"] = num_classes
        if config.get("decoder_output_is_logits"):
            changed["decoder_filters"] = num_classes
        # Which of the other classes are things isn't known.
        info = dataclasses.replace(
            info, classes=(), colors=(), thing_classes=(), label_divisor=None, merge={}
        )
    if output_stride is not None:
        changed = replace_arguments(changed, {"output_stride": output_stride})
    if changed != config:
        model = type(model).from_config(changed)
        model.info = info
    if classes is not None and tuple(classes) != model.info.classes:
        model.info = dataclasses.replace(
            model.info, classes=tuple(classes), colors=pictures.voc_colors(len(classes))
        )
    return model


def _named(name: str | os.PathLike) -> SegmentationModel:
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return _from_json(path)
    if (path / CONFIG_FILE).is_file() and preset_class(path) == ImageClassifier.__name__:
        return ImageClassifier.from_preset(path, load_weights=False)
    if str(name) in BACKBONES and not path.exists():
        return ImageClassifier(backbone=str(name))
    return from_preset(name, load_weights=False)


def _from_json(path: Path) -> SegmentationModel:
    """The model that a JSON file describes: {"class_name", "arguments"} and perhaps "info"."""
    config = read_json(path)
    try:
        model = _CLASSES[config["class_name"]](**config["arguments"])
        model.info = ModelInfo.from_json(config.get("info", {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # whatever of a wrong value the layers notice
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f'{path}: a model is {{"class_name": one of {", ".join(_CLASSES)}, "arguments": '
            f"{{...}}}}, as in a preset's {CONFIG_FILE}; {type(error).__name__}: {reason}"
        ) from None
    return model


def _check_target(out: Path, source: Path) -> None:
    """The folder is replaced whole: it must not hold anything but an earlier preset."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; name a folder to write.")
    if any(out.iterdir()) and not (out / CONFIG_FILE).is_file():
        raise InputError(f"{out} exists and is no preset; name a new folder to write.")
    if source.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the file to convert; name another folder to write.")


def _difference(path: str, result: Answer) -> str:
    logits = f", logits by {result.difference:.1e}" if result.difference is not None else ""
    return (
        f"{path} itself labels the stored picture differently: {result.agreement:.2%} of the "
        f"pixels agree{logits}. The weights fit by name, so its graph is of another kind (output "
        "stride, crop, normalisation). Nothing was written."
    )


def _write(conversion: Conversion) -> None:
    result, info = conversion.answer, conversion.model.info
    classes = conversion.model.get_config()["num_classes"]
    colors = info.colors if len(info.colors) >= classes else pictures.voc_colors(min(256, classes))
    with atomic_folder(conversion.folder) as temporary:
        conversion.model.save_to_preset(temporary)
        write_json(temporary / REPORT_FILE, conversion.report())
        if result.labels is not None:
            overlay = pictures.overlay(result.image, result.labels, colors)
            pictures.save_image(temporary / PICTURE_FILE, overlay)
