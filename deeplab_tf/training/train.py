"""Training: a config in, a run folder out.

run/config.json     the settings, with everything that was derived
run/log.jsonl       one line per evaluation
run/curves.png      the same, drawn
run/best, run/last  preset folders that `from_preset` opens
run/checkpoints/    the full state, from which a killed run goes on
"""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deeplab_tf.datasets import DatasetDescriptor, pipeline
from deeplab_tf.datasets.determinism import make_deterministic
from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json, write_json
from deeplab_tf.layers.normalization import BatchNorm
from deeplab_tf.losses.semantic import SoftmaxCrossEntropy
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.presets import MODEL_CLASSES, from_preset
from deeplab_tf.training import callbacks, state
from deeplab_tf.training.config import TrainConfig, config_from_json
from deeplab_tf.training.optimizers import (
    AdamW,
    Momentum,
    decayed_variables,
    learning_rate_multipliers,
)
from deeplab_tf.training.schedules import Schedule

IGNORE_LABEL = 255
# Below this many pictures a step, batch statistics are too noisy to learn from (v3, Sec. 4.1).
_SMALL_BATCH = 16


def train(
    config: TrainConfig, run: str | os.PathLike, *, resume: bool = False, say=print
) -> SegmentationModel:
    """Trains with `keras.Model.fit` and returns the model with its last weights.

    A run that was stopped or killed at any moment and is resumed ends with the same weights as
    one that wasn't: checkpoints hold weights, optimiser, averages and random states, and batches
    are a function of the step.

    Args:
        config: the experiment.
        run: the run folder.
        resume: go on from the run's newest checkpoint. Its own config.json is used then.
        say: called with each line meant for the user.

    Raises:
        InputError: settings that don't fit the data or each other, or a run folder in use.
    """
    run = Path(run)
    if resume:
        config = config_from_json(read_json(run / "config.json"))
    elif (run / "config.json").exists():
        raise InputError(
            f"{run} holds a run already. Go on with --resume, or name another folder with --run."
        )
    descriptor = DatasetDescriptor.load(config.data)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        make_deterministic()
    if config.mixed_precision:
        keras.mixed_precision.set_global_policy(config.mixed_precision)

    ignore = IGNORE_LABEL if descriptor.ignore_label is None else descriptor.ignore_label
    model = _build_model(config, descriptor, say)
    optimizer = _build_optimizer(config, model)
    model.compile(
        optimizer=optimizer,
        loss=SoftmaxCrossEntropy(
            descriptor.num_classes,
            ignore,
            class_weights=_class_weights(config, descriptor),
            top_k_percent_pixels=config.loss.top_k_percent_pixels,
            hard_example_mining_step=config.loss.hard_example_mining_step,
            step=optimizer.iterations,
        ),
        # On a CPU, XLA makes depthwise convolutions 20 to 100 times slower; "auto" knows.
        jit_compile="auto",
    )
    optimizer.build(model.trainable_variables)
    first = 0
    if resume:
        first = state.restore(run, model)
        say(f"resuming {run} at step {first} of {config.steps}")
    else:
        write_json(run / "config.json", config.to_json())
    log = callbacks.Log(run, first)
    evaluation = callbacks.Evaluation(model, config, descriptor, ignore, run, log, say)
    checkpoint = callbacks.Checkpoint(run, config.checkpoint_every)
    watch = [callbacks.StopOnNaN(run), callbacks.ProgressBar(config, first), checkpoint, evaluation]
    _fit(model, config, first, watch)
    evaluation.finish()
    return model


def _fit(model, config: TrainConfig, first: int, watch: list) -> None:
    """Runs the steps from `first` on, in stretches that end at each evaluation."""
    step = first
    while step < config.steps:
        # The first stretch of a resumed run is what is left of the one it was killed in.
        end = min(config.steps, (step // config.evaluate_every + 1) * config.evaluate_every)
        whole = (
            (config.steps - end) // config.evaluate_every
            if step % config.evaluate_every == 0
            else 0
        )
        batches = pipeline(
            config.data,
            config.train_split,
            image_size=config.image_size,
            batch_size=config.batch_size,
            training=True,
            augment=config.augment,
            seed=config.seed,
            first_step=step,
        )
        for callback in watch:
            callback.first_step = step
        model.fit(
            batches,
            steps_per_epoch=end - step,
            epochs=1 + whole,
            verbose=0,
            callbacks=watch,
        )
        step = end + whole * config.evaluate_every


def _build_model(config: TrainConfig, descriptor: DatasetDescriptor, say) -> SegmentationModel:
    """The network, its starting weights and its batch norms' settings."""
    if config.model.class_name not in MODEL_CLASSES:
        raise InputError(
            f"model.class_name is one of {', '.join(MODEL_CLASSES)}; "
            f"got {config.model.class_name!r}."
        )
    if config.init:
        model = from_preset(config.init, num_classes=descriptor.num_classes)
        say(f"starting from {config.init}; the last layer is new if the classes differ")
    else:
        try:
            model = MODEL_CLASSES[config.model.class_name](
                descriptor.num_classes, **config.model.arguments
            )
        except TypeError as error:
            raise InputError(f"model.arguments: {error}.") from None
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
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, BatchNorm):
            layer.freeze_statistics = bool(freeze)
            if config.batch_norm_momentum is not None:
                layer.momentum = config.batch_norm_momentum
    return model


def _class_weights(config: TrainConfig, descriptor: DatasetDescriptor):
    weights = config.loss.class_weights
    if weights == "auto":
        share = np.maximum(np.array(descriptor.pixel_share), 1e-4)
        if share.size != descriptor.num_classes:
            raise InputError(f"{config.data}: dataset.json has no pixel shares to weight by.")
        inverse = 1.0 / np.sqrt(share)
        return (inverse / (inverse * share).sum()).tolist()
    return weights or 1.0


def _build_optimizer(config: TrainConfig, model):
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
    if settings.name == "adamw":
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
    raise InputError(f"optimizer.name is momentum or adamw; got {settings.name!r}.")
