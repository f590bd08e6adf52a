"""What a config stands for: the network and its optimiser."""

import json
from pathlib import Path
from typing import Any

import keras

from deeplab_tf import checkpoints, keys
from deeplab_tf.checkpoints import tf1
from deeplab_tf.checkpoints.backbone import beside_the_backbone
from deeplab_tf.datasets import DatasetDescriptor
from deeplab_tf.errors import InputError
from deeplab_tf.inference.panoptic import center_settings, mask_settings
from deeplab_tf.models.base import (
    CONFIG_FILE,
    SegmentationModel,
    instances_by,
    preset_class,
)
from deeplab_tf.models.classifier import ImageClassifier
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.mask_transformer import MaskTransformer
from deeplab_tf.models.panoptic_deeplab import PanopticDeepLab
from deeplab_tf.models.presets import MODEL_CLASSES, from_preset
from deeplab_tf.training.config import TrainConfig
from deeplab_tf.training.optimizers import (
    AdamW,
    Momentum,
    decayed_variables,
    learning_rate_multipliers,
)
from deeplab_tf.training.schedules import Schedule
from deeplab_tf.training.values import listed

# Below this many pictures a step, batch statistics are too noisy to learn from (v3, Sec. 4.1).
_SMALL_BATCH = 16


def build_model(config: TrainConfig, descriptor: DatasetDescriptor, say) -> SegmentationModel:
    """The network, its starting weights and its batch norms' settings."""
    model = (
        _started_from(config, descriptor, say) if config.init else _new_model(config, descriptor)
    )
    _warn_of_unused_rates(model, config.image_size, say)
    size = config.eval_size or config.image_size
    model.info = ModelInfo(
        classes=descriptor.classes,
        colors=descriptor.colors,
        ignore_label=descriptor.ignore_label,
        image_size=size,
        resize=config.resize,
        source=f"trained on {descriptor.name}, {descriptor.splits[config.train_split]} pictures",
        # Names, not places: the record travels with the weights.
        training={
            **config.to_json(),
            "data": Path(config.data).name,
            "init": Path(config.init).name,
        },
        **_instances(model, config, descriptor),
    )
    freeze = config.freeze_batch_norm
    if freeze == "auto":
        freeze = bool(config.init) and config.batch_size < _SMALL_BATCH
        if freeze:
            say(
                f"batch norm keeps its statistics: {config.batch_size} pictures a step are too few "
                "to renew them (freeze_batch_norm=false changes that)"
            )
        elif config.batch_size < _SMALL_BATCH:
            say(f"{config.batch_size} pictures a step are few for batch norm; 16 or more is better")
    model.set_batch_norm(momentum=config.batch_norm_momentum, freeze_statistics=bool(freeze))
    model.set_recompute(config.recompute)
    return model


def _instances(model, config: TrainConfig, descriptor: DatasetDescriptor) -> dict[str, Any]:
    """What the `info` of a model that tells instances apart says of them.

    Raises:
        InputError: it can't learn from these records, or the settings of the merge make no sense.
    """
    kind = instances_by(model)
    if kind is None:
        return {}
    if descriptor.label_divisor is None:
        raise InputError(
            f"{config.data}: its labels tell no instances apart, which a panoptic model learns. "
            "Build records of a folder with instances/ or of panoptic PNGs: deeplab-tf data build "
            "--help"
        )
    if not descriptor.thing_classes:
        raise InputError(
            f"{config.data}: none of its classes is a thing, so that there is nothing to tell "
            "apart. Mark them in classes.csv (index,name,thing) and build the records anew."
        )
    if keys.SEMANTIC_LOGITS not in model.output:
        raise InputError(
            "model.arguments.tasks=instance learns no classes, without which nothing is scored; "
            "train tasks=panoptic."
        )
    slots = model.output[keys.MASK_LOGITS].shape[-1] if kind == "masks" else 0
    if slots >= descriptor.label_divisor:
        raise InputError(
            f"{config.data}: its label_divisor {descriptor.label_divisor} doesn't tell {slots} "
            f"masks apart. Build the records with --label-divisor {max(1000, slots + 1)}, or set "
            "fewer model.arguments.num_mask_slots."
        )
    found: dict[str, Any] = {
        "thing_classes": descriptor.thing_classes,
        "label_divisor": descriptor.label_divisor,
        "merge": (config.masks if kind == "masks" else config.panoptic).merge,
    }
    settings_of = mask_settings if kind == "masks" else center_settings
    settings_of(ModelInfo(ignore_label=descriptor.padding_label, **found))
    return found


def _warn_of_unused_rates(model: SegmentationModel, size: tuple[int, int], say) -> None:
    """Says from which rate on the head's kernels reach past the map of a training picture.

    What is left of such a kernel is its middle: a 1x1 convolution (v3, Sec. 3.3).
    """
    settings = model.get_config()
    if "output_stride" not in settings or "atrous_rates" not in settings:
        return
    stride = settings["output_stride"]
    cell = settings.get("dense_prediction_cell_config")
    if settings.get("aspp_use_only_1x1_proj_conv"):
        return
    if cell is None:
        rates = [[rate, rate] for rate in settings["atrous_rates"]]
    else:
        rates = [[n * 16 // stride for n in branch.get("rate", (1, 1))] for branch in cell]
    sides = [(side - 1) // stride + 1 for side in size]
    unused = [r for pair in rates for r, n in zip(pair, sides, strict=True) if r >= n]
    if unused:
        say(
            f"pictures of {size[0]}x{size[1]} give a map of {sides[0]}x{sides[1]} at output stride "
            f"{stride}: around their middle, kernels with an atrous rate of {min(unused)} or more "
            "see padding alone; a larger image_size or smaller rates mend that"
        )


def _new_model(config: TrainConfig, descriptor: DatasetDescriptor) -> SegmentationModel:
    """The config's network with random weights."""
    if config.model.class_name not in MODEL_CLASSES:
        raise InputError(
            f"model.class_name is one of {', '.join(MODEL_CLASSES)}; "
            f"got {config.model.class_name!r}."
        )
    cls, arguments = MODEL_CLASSES[config.model.class_name], config.model.arguments
    if issubclass(cls, MaskTransformer):
        # Its slots have no channel for what isn't labelled.
        arguments = {"ignore_label": descriptor.padding_label, **arguments}
    try:
        return cls(descriptor.num_classes, **arguments)
    except InputError as error:
        raise InputError(f"model.arguments: {error}") from None
    except Exception as error:
        # Whatever of a wrong value the layers notice; their first line says it.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"model.arguments: {reason}") from None


def _started_from(config: TrainConfig, descriptor: DatasetDescriptor, say) -> SegmentationModel:
    """The network of `init` with its weights, for the classes of the data.

    A checkpoint or an image classifier holds no network of ours: its weights go into the config's.
    """
    if _is_weights_only(config.init):
        model = _new_model(config, descriptor)
        say(f"starting from {checkpoints.assign(model, checkpoints.read(config.init, model))}")
        return model
    model = from_preset(config.init)
    if tells_instances_apart(config.model.class_name) and instances_by(model) is None:
        return _with_backbone_of(model, _new_model(config, descriptor), config.init, say)
    settings, before = model.get_config(), model.info.classes
    if settings["num_classes"] != descriptor.num_classes:
        model = from_preset(config.init, num_classes=descriptor.num_classes)
        say(
            f"starting from {config.init}; its last layer, for {settings['num_classes']} classes, "
            f"is replaced by a random one for {descriptor.num_classes}"
        )
    elif before and before != descriptor.classes:
        say(
            f"starting from {config.init}, made for {listed(before)}; "
            f"the same outputs are now {listed(descriptor.classes)}"
        )
    else:
        say(f"starting from {config.init}, last layer included")
    other = [
        key
        for key, value in config.model.arguments.items()
        if json.dumps(settings.get(key)) != json.dumps(value)
    ]
    if type(model).__name__ != config.model.class_name:
        other.insert(0, "class_name")
    if other:
        say(f"the network is that of {config.init}, not the config's (other: {listed(other)})")
    return model


def tells_instances_apart(name: str) -> bool:
    """Whether models of that class have heads for instances."""
    return issubclass(MODEL_CLASSES.get(name, object), PanopticDeepLab | MaskTransformer)


def _with_backbone_of(source: SegmentationModel, model: SegmentationModel, init: str, say):
    """A new panoptic model that begins with the backbone of a semantic one.

    Raises:
        InputError: they have different backbones.
    """
    theirs, ours = source.backbone_name, model.backbone_name
    known, new = {w.path: w for w in source.weights}, set(beside_the_backbone(model))
    wanted = [w for w in model.weights if w.path not in new]
    if any(w.path not in known or known[w.path].shape != w.shape for w in wanted):
        settings = {
            key: value
            for key, value in source.get_config().items()
            if key in ("backbone", "depth_multiplier")
        }
        raise InputError(
            f"init={init} has the backbone {theirs}, which doesn't fit the config's {ours}; set "
            + " ".join(f"model.arguments.{key}={value}" for key, value in settings.items())
        )
    for weight in wanted:
        weight.assign(known[weight.path])
    say(f"starting from the backbone of {init}; decoders and heads are new")
    return model


def _is_weights_only(init: str) -> bool:
    if init == "keras_applications":
        return True
    if (Path(init) / CONFIG_FILE).is_file():
        return preset_class(init) == ImageClassifier.__name__
    return Path(init).exists() or tf1.checkpoint_prefix(init) is not None


def set_policy(name: str) -> None:
    """Makes a Keras precision policy the one that new layers get.

    Raises:
        InputError: there is none of that name.
    """
    try:
        keras.mixed_precision.set_global_policy(name)
    except ValueError:
        raise InputError(
            f"mixed_precision is a Keras policy such as mixed_bfloat16; got {name!r}."
        ) from None


def build_optimizer(config: TrainConfig, model):
    settings = config.optimizer
    schedule = Schedule(
        settings.policy,
        base_rate=settings.learning_rate,
        steps=config.steps,
        power=settings.power,
        end_rate=settings.end_rate,
        slow_start_step=settings.warmup_steps,
        slow_start_rate=settings.warmup_rate,
        burn_in="linear",
    )
    common: dict[str, Any] = dict(
        learning_rate=schedule,
        global_clipnorm=settings.clip_norm,
        use_ema=settings.ema > 0,
        ema_momentum=settings.ema or 0.99,
    )
    decayed = [variable.path for variable in decayed_variables(model)]
    if settings.name == "momentum":
        return Momentum(
            momentum=settings.momentum,
            weight_decay_l2=settings.weight_decay,
            decayed=decayed,
            multipliers=learning_rate_multipliers(model, settings.last_layer_multiplier),
            **common,
        )
    optimizer = AdamW(
        weight_decay=settings.weight_decay,
        multipliers=learning_rate_multipliers(
            model, settings.last_layer_multiplier, bias_multiplier=1.0
        ),
        **common,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if v.path not in decayed]
    )
    return optimizer
