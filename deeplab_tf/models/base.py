"""What every model shares: presets, information for its users, named endpoints."""

import os
from pathlib import Path
from typing import Any, Self

import keras

from deeplab_tf import keys
from deeplab_tf.backbones import BACKBONES
from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_folder, read_json, write_json
from deeplab_tf.layers.normalization import BatchNorm
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.recompute import Recomputed
from deeplab_tf.models.weights import load_variables, save_variables

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.npz"


class SegmentationModel(keras.Model):
    """A flat functional graph inside a thin class whose config is its own arguments.

    Attributes:
        info: a `ModelInfo`: classes, colours, the picture size to use, where weights come from.
        endpoints: name -> layer whose output it is: "backbone", "aspp", "decoder", "logits", …
    """

    info: ModelInfo
    endpoints: dict[str, str]
    _recomputed: Recomputed | None = None

    def _finish(self, arguments: dict[str, Any], endpoints: dict[str, str]) -> None:
        """Called last by a subclass's `__init__`, with what its `get_config` shall return."""
        self._arguments = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in arguments.items()
        }
        made = {layer.name for layer in self.layers}  # of what leads to an output
        self.endpoints = {name: layer for name, layer in endpoints.items() if layer in made}
        self.info = ModelInfo()

    def call(self, inputs, training=None, mask=None):
        if training and self._recomputed is not None:
            return self._recomputed(inputs)
        return super().call(inputs, training=training, mask=mask)

    def get_config(self) -> dict:
        """The constructor's arguments: JSON scalars and lists, enough to build an equal model."""
        config = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dict(self._arguments).items()
        }
        return {**config, "name": self.name}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> Self:
        return cls(**config)

    @property
    def backbone_name(self) -> str:
        """The registry's name of what ImageNet training gives it; "" for nothing."""
        return self.encoder_of(dict(self._arguments))[0]

    @classmethod
    def encoder_of(cls, arguments: dict[str, Any]) -> tuple[str, int]:
        """The encoder that a model with these arguments has: its name, and its output stride."""
        return str(arguments.get("backbone", "")), arguments.get("output_stride", 0)

    def endpoint_model(self, *names: str) -> keras.Model:
        """A model with the same weights that returns {name: endpoint} for the given names.

        Raises:
            ValueError: the model has no endpoint of that name.
        """
        unknown = [name for name in names if name not in self.endpoints]
        if unknown:
            raise ValueError(f"{self.name} has the endpoints {[*self.endpoints]}; not {unknown}.")
        outputs = {name: self.get_layer(self.endpoints[name]).output for name in names}
        return keras.Model(self.input, outputs)

    def set_batch_norm(
        self, *, momentum: float | None = None, freeze_statistics: bool | None = None
    ) -> None:
        """Sets all batch norms for training; call it before `compile`.

        Args:
            momentum: of the moving statistics. The official 0.9997 wants tens of thousands of
                steps; for a few thousand take 0.99, or validation sees statistics of long ago.
            freeze_statistics: use the moving statistics in training and leave them alone, as the
                official `fine_tune_batch_norm=False` does: for fewer than 16 pictures a step.
        """
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, BatchNorm):
                if momentum is not None:
                    layer.momentum = momentum
                if freeze_statistics is not None:
                    layer.freeze_statistics = freeze_statistics

    def set_recompute(self, recompute: bool = True) -> None:
        """Has training compute maps again on the way back instead of keeping them all.

        That needs less memory and more time, and gives the same gradients: see
        `deeplab_tf.models.recompute`. Call it before `compile`; it isn't part of the config.
        """
        self._recomputed = Recomputed(self) if recompute else None

    def save_to_preset(self, folder: str | os.PathLike, info: ModelInfo | None = None) -> None:
        """Writes config.json and weights.npz, which `from_preset` opens. Replaces the folder whole.

        Args:
            folder: where to; written beside it first and renamed.
            info: stored instead of `self.info`.
        """
        config = {
            "class_name": type(self).__name__,
            "arguments": self.get_config(),
            "info": (info or self.info).to_json(),
        }
        with atomic_folder(folder) as temporary:
            write_json(temporary / CONFIG_FILE, config)
            save_variables(self, temporary / WEIGHTS_FILE)

    @classmethod
    def from_preset(cls, preset: str | os.PathLike, **arguments) -> "SegmentationModel":
        """`deeplab_tf.from_preset` for those who have the class at hand.

        Raises:
            InputError: the preset is of another class.
        """
        from deeplab_tf.models.presets import from_preset

        model = from_preset(preset, **arguments)
        if not isinstance(model, cls):
            raise InputError(f"{preset} holds a {type(model).__name__}, not a {cls.__name__}.")
        return model


def instances_by(model: keras.Model) -> str | None:
    """How a model tells instances apart: by "centers", by "masks", or not at all."""
    outputs = model.output if isinstance(model.output, dict) else {}
    if keys.MASK_LOGITS in outputs:
        return "masks"
    return "centers" if keys.CENTER_HEATMAP in outputs else None


def preset_class(folder: str | os.PathLike) -> str:
    """Name of the class whose model a preset folder holds; "" if that can't be told.

    Raises:
        InputError: there is no config.json, or it isn't JSON.
    """
    config = read_json(Path(folder) / CONFIG_FILE)
    return str(config.get("class_name", "")) if isinstance(config, dict) else ""


def read_preset_folder(
    folder: str | os.PathLike,
    classes: dict[str, type[SegmentationModel]],
    *,
    load_weights: bool = True,
    **arguments,
) -> SegmentationModel:
    """Builds the model of a preset folder.

    Args:
        folder: written by `save_to_preset`.
        classes: model classes by name.
        load_weights: False leaves the weights random.
        **arguments: constructor arguments that replace the stored ones. A changed `num_classes`
            makes the last layer anew; the atrous rates follow a changed `output_stride`.

    Raises:
        InputError: a file is missing or broken, or a variable doesn't fit; says which.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if preset_class(folder) == "ImageClassifier" not in classes:
        raise InputError(
            f"{folder} holds an ImageClassifier: dl.ImageClassifier.from_preset opens it, "
            "dl.checkpoints.load and a training's init take its backbone."
        )
    try:
        cls = classes[config["class_name"]]
        stored = dict(config["arguments"])
        info = ModelInfo.from_json(config["info"])
        model = cls(**replace_arguments(stored, arguments))
    except InputError as error:
        # What the caller asked for instead isn't the file's fault.
        raise error if arguments else InputError(f"{folder / CONFIG_FILE}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{folder / CONFIG_FILE}: not a preset of this version ({error!r}); "
            "write it again with save_to_preset."
        ) from None
    model.info = info
    if load_weights:
        new_classes = arguments.get("num_classes", stored.get("num_classes"))
        remade = new_classes != stored.get("num_classes")
        skip = model.last_layers if remade else None
        load_variables(model, folder / WEIGHTS_FILE, skip=skip)
    return model


def replace_arguments(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A model's constructor arguments with some of them replaced.

    Another `output_stride` takes the atrous rates along, unless they are given too: half the
    stride, twice the rates (v3, Sec. 3.3). What they reach in the picture then stays the same,
    and so do the weights.

    Raises:
        InputError: a rate would not be whole at the given stride.
    """
    result = {**stored, **given}
    # A published preset's record leaves out what is at its default.
    old, new = stored.get("output_stride", 16), result.get("output_stride", 16)
    backbone = BACKBONES.get(result.get("backbone", "mobilenet_v2"))
    if new == old or backbone is None or new not in backbone.output_strides:
        return result  # a stride that it can't do is the constructor's to refuse
    for key in ("atrous_rates", "instance_atrous_rates"):
        rates = stored.get(key)
        if not rates or key in given:
            continue
        if any(rate * old % new for rate in rates):
            raise InputError(
                f"{key} {tuple(rates)} of output stride {old} are no whole numbers at {new}; "
                f"give {key} for output stride {new} too."
            )
        result[key] = tuple(rate * old // new for rate in rates)
    return result
