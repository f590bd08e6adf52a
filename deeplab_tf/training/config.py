"""What a training run is: frozen dataclasses, Python config files and `key=value` overrides."""

import ast
import dataclasses
import difflib
import importlib.util
import runpy
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.errors import InputError
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.training.values import check_types, fitted

OPTIMIZERS = ("momentum", "adamw")
RESIZES = ("stretch", "fit")
_FOLDER = Path(__file__).parent.parent / "configs"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. `num_classes` comes from the data.

    Attributes:
        class_name: "DeepLabV3Plus", "KMaXDeepLab", …: a class of `deeplab_tf`.
        arguments: of its constructor.
    """

    class_name: str = "DeepLabV3Plus"
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_types(self)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How weights move.

    Attributes:
        name: "momentum" (the official SGD) or "adamw".
        learning_rate: base rate.
        policy: see `schedules.Schedule`.
        power, end_rate: of the policy.
        warmup_steps: linear growth of the rate from `warmup_rate`.
        warmup_rate: where it starts.
        momentum: of "momentum".
        weight_decay: L2 coefficient for "momentum" (sum(w ** 2) / 2, as TF1 counts), decoupled
            decay for "adamw". Both on convolution kernels only.
        last_layer_multiplier: of the learning rate after the backbone.
        clip_norm: of all gradients together, None for none.
        ema: share of the old average kept at each step if weights shall be averaged, else 0.
    """

    name: str = "momentum"
    learning_rate: float = 0.007
    policy: str = "poly"
    power: float = 0.9
    end_rate: float = 0.0
    warmup_steps: int = 0
    warmup_rate: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 4e-5
    last_layer_multiplier: float = 1.0
    clip_norm: float | None = None
    ema: float = 0.0

    def __post_init__(self):
        check_types(self)
        if self.name not in OPTIMIZERS:
            raise InputError(f"optimizer.name is {' or '.join(OPTIMIZERS)}; got {self.name!r}.")
        if self.learning_rate <= 0:
            raise InputError(f"optimizer.learning_rate is above 0; got {self.learning_rate}.")
        if not 0 <= self.ema < 1:
            raise InputError(f"optimizer.ema is at least 0 and below 1; got {self.ema}.")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which pixels count how much.

    Attributes:
        class_weights: () for none, one number per class, or "auto": the inverse square root of
            each class's share, as counted when the records were written.
        top_k_percent_pixels, hard_example_mining_step, label_stride: see `SoftmaxCrossEntropy`.
        auxiliary_weight: of the loss of each further output: of an auxiliary head (torchvision
            has 0.5 there, MMSegmentation 0.4) or of a scale of DeepLabV2.
    """

    class_weights: tuple[float, ...] | str = ()
    top_k_percent_pixels: float = 1.0
    hard_example_mining_step: int = 0
    label_stride: int = 1
    auxiliary_weight: float = 1.0

    def __post_init__(self):
        check_types(self)
        if isinstance(self.class_weights, str) and self.class_weights != "auto":
            raise InputError(
                'loss.class_weights is "auto" or a list with one number per class; '
                f"got {self.class_weights!r}."
            )
        if self.auxiliary_weight < 0:
            raise InputError(f"loss.auxiliary_weight is at least 0; got {self.auxiliary_weight}.")


@dataclasses.dataclass(frozen=True)
class PanopticConfig:
    """What a panoptic model learns of instances, and how its maps are merged.

    Attributes:
        sigma: of the Gaussians around centres, in pixels. 8 is for pictures of 1025x2049: smaller
            ones have smaller instances.
        small_instance_area: instances of fewer pixels weigh more in the semantic loss.
        small_instance_weight: how much more.
        center_loss_weight, offset_loss_weight: of these losses beside the semantic one.
        center_threshold, nms_kernel, keep_k_centers, stuff_area_limit, rule: see `MergeSettings`.
    """

    sigma: float = 8.0
    small_instance_area: int = 4096
    small_instance_weight: float = 3.0
    center_loss_weight: float = 200.0
    offset_loss_weight: float = 0.01
    center_threshold: float = MergeSettings.center_threshold
    nms_kernel: int = MergeSettings.nms_kernel
    keep_k_centers: int = MergeSettings.keep_k_centers
    stuff_area_limit: int = MergeSettings.stuff_area_limit
    rule: str = MergeSettings.rule

    def __post_init__(self):
        check_types(self)
        for key in ("sigma", "small_instance_weight"):
            if getattr(self, key) <= 0:
                raise InputError(f"panoptic.{key} is above 0; got {getattr(self, key)}.")

    @property
    def merge(self) -> dict[str, Any]:
        """The settings of the merge."""
        keys = ("center_threshold", "nms_kernel", "keep_k_centers", "stuff_area_limit", "rule")
        return {key: getattr(self, key) for key in keys}


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """What a mask transformer learns, and how its masks become one map.

    Attributes:
        pq_loss_weight, mask_id_loss_weight, instance_loss_weight, semantic_loss_weight,
            instance_sample_k, instance_sample_temperature, semantic_sample_k,
            semantic_sample_temperature: see `MaskTransformerLoss`.
        max_thing_id: the most instances that a picture may have.
        small_instance_area: instances of fewer pixels weigh more in the semantic loss; 0: none.
        small_instance_weight: how much more.
        rule, thing_area_limit, stuff_area_limit, pixel_confidence_threshold,
            class_confidence_threshold, class_confidence_threshold_thing,
            class_confidence_threshold_stuff, overlap_threshold, class_weight, mask_weight: see
            `MaskSettings`.
    """

    pq_loss_weight: float = 3.0
    mask_id_loss_weight: float = 0.3
    instance_loss_weight: float = 1.0
    semantic_loss_weight: float = 1.0
    instance_sample_k: int = 0
    instance_sample_temperature: float = 0.6
    semantic_sample_k: int = 0
    semantic_sample_temperature: float = 1.0
    max_thing_id: int = 128
    small_instance_area: int = 0
    small_instance_weight: float = 3.0
    rule: str = MaskSettings.rule
    thing_area_limit: int = MaskSettings.thing_area_limit
    stuff_area_limit: int = MaskSettings.stuff_area_limit
    pixel_confidence_threshold: float = MaskSettings.pixel_confidence_threshold
    class_confidence_threshold: float = MaskSettings.class_confidence_threshold
    class_confidence_threshold_thing: float = MaskSettings.class_confidence_threshold_thing
    class_confidence_threshold_stuff: float = MaskSettings.class_confidence_threshold_stuff
    overlap_threshold: float = MaskSettings.overlap_threshold
    class_weight: float = MaskSettings.class_weight
    mask_weight: float = MaskSettings.mask_weight

    def __post_init__(self):
        check_types(self)
        if self.max_thing_id < 1:
            raise InputError(f"masks.max_thing_id is at least 1; got {self.max_thing_id}.")
        for key in (
            *("pq_loss_weight", "mask_id_loss_weight", "instance_loss_weight"),
            *("semantic_loss_weight", "instance_sample_k", "semantic_sample_k"),
            "small_instance_area",
        ):
            if getattr(self, key) < 0:
                raise InputError(f"masks.{key} is at least 0; got {getattr(self, key)}.")

    @property
    def merge(self) -> dict[str, Any]:
        """The settings by which masks become a map."""
        names = {field.name for field in dataclasses.fields(MaskSettings)}
        own = [field.name for field in dataclasses.fields(self) if field.name in names]
        return {name: getattr(self, name) for name in own}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One experiment.

    Attributes:
        data: folder of records.
        model, augment, optimizer, loss, panoptic, masks: see there.
        image_size: (height, width) of the training pictures. The encoder's map is `output_stride`
            times smaller; atrous rates that reach past it are of no use, which a run says.
        eval_size: (height, width) for validation and prediction; None takes image_size.
        resize: how a whole picture gets to that size: "stretch" or "fit".
        batch_size: pictures in a step.
        steps: of the whole training.
        train_split, val_split: names of splits.
        batch_norm_momentum: of every batch norm; None keeps the official ones, which are made
            for tens of thousands of steps.
        freeze_batch_norm: keep the moving statistics; "auto" does so below 16 pictures a step
            when training starts from given weights.
        init: preset or run folder to start from; "" starts from random weights. An image
            classifier's folder, an official checkpoint, or "keras_applications" for those ImageNet
            weights, gives its weights to `model`.
        evaluate_every, checkpoint_every: in steps.
        seed: of weights, order, augmentation and dropout.
        mixed_precision: "" or a Keras policy such as "mixed_bfloat16".
        recompute: compute maps again on the way back instead of keeping them: less memory, more
            time, the same gradients.
        deterministic: bit-identical repeats; costs a little speed.
    """

    data: str = ""
    model: ModelConfig = ModelConfig()
    augment: Augment = Augment()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    panoptic: PanopticConfig = PanopticConfig()
    masks: MaskConfig = MaskConfig()
    image_size: tuple[int, int] = (513, 513)
    eval_size: tuple[int, int] | None = None
    resize: str = "fit"
    batch_size: int = 16
    steps: int = 30000
    train_split: str = "train"
    val_split: str = "val"
    batch_norm_momentum: float | None = None
    freeze_batch_norm: bool | str = "auto"
    init: str = ""
    evaluate_every: int = 1000
    checkpoint_every: int = 500
    seed: int = 0
    mixed_precision: str = ""
    recompute: bool = False
    deterministic: bool = True

    def __post_init__(self):
        check_types(self)
        for key in ("batch_size", "steps", "evaluate_every", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} is at least 1; got {getattr(self, key)}.")
        for key in ("image_size", "eval_size"):
            if min(getattr(self, key) or (1,)) < 1:
                raise InputError(f"{key} is [height, width]; got {list(getattr(self, key))}.")
        if self.resize not in RESIZES:
            raise InputError(f"resize is {' or '.join(RESIZES)}; got {self.resize!r}.")
        if self.freeze_batch_norm not in (True, False, "auto"):
            raise InputError(
                f"freeze_batch_norm is true, false or auto; got {self.freeze_batch_norm!r}."
            )

    def to_json(self) -> dict:
        return dataclasses.asdict(self)


def config_names() -> list[str]:
    """Names of the configs in the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")


def load_config(name_or_file: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a config by name or from a Python file, and applies `key=value` overrides.

    Args:
        name_or_file: a name from `config_names()`, or a .py file that defines CONFIG.
        overrides: "optimizer.learning_rate=0.01", "model.arguments.depth_multiplier=0.5", …

    Raises:
        InputError: no such config, a key that doesn't exist (the nearest is named), or a value
            of another type.
    """
    if name_or_file in config_names():
        spec = importlib.util.find_spec(f"deeplab_tf.configs.{name_or_file}")
        path = Path(spec.origin)  # type: ignore[union-attr, arg-type]
    else:
        path = Path(name_or_file)
        if path.suffix != ".py" or not path.is_file():
            near = difflib.get_close_matches(name_or_file, config_names(), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"no config {name_or_file!r}.{hint} Known: {', '.join(config_names())}; "
                "or name a .py file."
            )
    config = _run(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r}: write overrides as key=value.")
        config = _override(config, key.strip().split("."), text, key)
    return config


def _run(path: Path) -> TrainConfig:
    """The CONFIG that a Python file defines."""
    try:
        config = runpy.run_path(str(path)).get("CONFIG")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        # Whatever else the file raises is its writer's to mend: say where.
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        raise InputError(f"{path}, line {line}: {type(error).__name__}: {error}") from None
    if not isinstance(config, TrainConfig):
        raise InputError(f"{path} defines no CONFIG = TrainConfig(...).")
    return config


def summary(name: str) -> str:
    """What a config of the package is for: the first line of its file."""
    text = (_FOLDER / f"{name}.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def config_from_json(value: dict) -> TrainConfig:
    """The config that a run folder's config.json holds.

    Raises:
        InputError: it holds something else.
    """
    parts = {
        "model": ModelConfig,
        "augment": Augment,
        "optimizer": OptimizerConfig,
        "loss": LossConfig,
        "panoptic": PanopticConfig,
        "masks": MaskConfig,
    }
    try:
        value = {"panoptic": {}, "masks": {}, **value}  # runs of earlier versions have none
        read = {k: v if k in parts else _tuples(v) for k, v in value.items()}
        for name, cls in parts.items():
            read[name] = cls(**{k: _tuples(v) for k, v in value[name].items()})
        return TrainConfig(**read)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"not the settings of a run of this version ({error!r}).") from None


def _tuples(value):
    return tuple(value) if isinstance(value, list) else value


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _override(record: Any, keys: list[str], text: str, whole: str) -> Any:
    """A copy of a dataclass or dict with one nested value replaced."""
    key, *rest = keys
    if isinstance(record, dict):
        if rest and not isinstance(record.get(key, {}), dict):
            raise InputError(f"config key {whole!r}: {key} has no parts.")
        new = _override(record.get(key, {}), rest, text, whole) if rest else _parse(text)
        return {**record, key: new}
    names = [field.name for field in dataclasses.fields(record)]
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(names)}."
        raise InputError(f"config key {whole!r} doesn't exist.{hint}")
    old = getattr(record, key)
    if rest:
        if not (dataclasses.is_dataclass(old) or isinstance(old, dict)):
            raise InputError(f"config key {whole!r}: {key} has no parts.")
        return dataclasses.replace(record, **{key: _override(old, rest, text, whole)})
    if dataclasses.is_dataclass(old) or isinstance(old, dict):
        raise InputError(f"config key {whole!r} is a group; set one of its keys.")
    hint = typing.get_type_hints(type(record))[key]
    value = _parse(text)
    if hint is str and not isinstance(value, str):
        # A folder may be called 2024.
        value = text
    return dataclasses.replace(record, **{key: fitted(value, hint, whole)})
