"""Training: a config in, a run folder out.

run/config.json     the settings, with everything that was derived
run/log.jsonl       one line per evaluation
run/curves.png      the same, drawn
run/best, run/last  preset folders that `from_preset` opens
run/tensorboard/    the same and a few pictures, where TensorBoard is installed
run/checkpoints/    the full state, from which a killed run goes on
"""

import dataclasses
import os
from pathlib import Path

import keras

from deeplab_tf.datasets import DatasetDescriptor, reading
from deeplab_tf.datasets.determinism import make_deterministic
from deeplab_tf.datasets.tfrecord import find_shards
from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json, remove_leftovers, write_json
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.training import callbacks, state
from deeplab_tf.training.build import build_model, build_optimizer, set_policy
from deeplab_tf.training.config import TrainConfig, config_from_json
from deeplab_tf.training.objectives import batches, build_losses
from deeplab_tf.training.tensorboard import Board
from deeplab_tf.training.validation import Validation


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
        Stopped: after Ctrl-C; a checkpoint of that step is written.
    """
    run = Path(run)
    if resume:
        config = _config_of(run)
        remove_leftovers(run, "config.json", "curves.png", "log.jsonl", "best", "last")
        remove_leftovers(run / "checkpoints", "step-*.npz")
    elif (run / "config.json").exists():
        raise InputError(
            f"{run} holds a run already. Go on with --resume, or name another folder with --run."
        )
    else:
        # The run may be resumed from another working folder.
        init = str(Path(config.init).resolve()) if Path(config.init).is_dir() else config.init
        config = dataclasses.replace(
            config, data=str(Path(config.data).resolve()), init=init if config.init else ""
        )
    policy = keras.mixed_precision.dtype_policy()
    try:
        return _train(config, run, resume, say)
    finally:
        keras.mixed_precision.set_global_policy(policy)


def _train(config: TrainConfig, run: Path, resume: bool, say) -> SegmentationModel:
    descriptor = DatasetDescriptor.load(config.data)
    if config.train_split not in descriptor.splits:
        raise InputError(
            f"{config.data} has no split {config.train_split!r} to train on; it has "
            f"{', '.join(descriptor.splits)}. Choose with train_split=NAME."
        )
    find_shards(config.data, config.train_split)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        make_deterministic()
    if config.mixed_precision:
        set_policy(config.mixed_precision)

    ignore = descriptor.padding_label
    model = build_model(config, descriptor, say if not resume else lambda line: None)
    optimizer = build_optimizer(config, model)
    model.compile(
        optimizer=optimizer,
        **build_losses(model, config, descriptor, ignore, optimizer.iterations),
        # On a CPU, XLA makes depthwise convolutions 20 to 100 times slower; "auto" knows.
        jit_compile="auto",
    )
    optimizer.build(model.trainable_variables)
    first = 0
    if resume:
        first = state.restore(run, model)
        done = first >= config.steps
        say(
            f"{run} is finished: all {config.steps} steps are done"
            if done
            else f"resuming {run} at step {first} of {config.steps}"
        )
    else:
        write_json(run / "config.json", config.to_json())
    log = callbacks.Log(run, first)
    with callbacks.StopOnInterrupt(say) as interrupt:
        board = Board.open(run / "tensorboard", first)
        validation = Validation(
            model,
            config,
            descriptor,
            ignore,
            run,
            log=log,
            say=say,
            check=interrupt.check,
            board=board,
        )
        # The checkpoint comes before the evaluation, which may be long: no step is lost with it.
        watch = [
            callbacks.StopOnNaN(run),
            callbacks.ProgressBar(config, first),
            callbacks.Checkpoint(run, config.checkpoint_every, config.steps),
            validation,
            interrupt,
        ]
        try:
            if validation.due(first) and all(entry["step"] != first for entry in log.read()):
                # Killed after the checkpoint of this step and before its evaluation.
                validation.evaluate(first, {})
            _fit(model, config, first, watch)
            validation.finish()
        except callbacks.Stopped as stop:
            state.save(run, model, stop.step)
            raise
        finally:
            if board is not None:
                board.close()
    return model


def _config_of(run: Path) -> TrainConfig:
    """The settings a run was started with."""
    try:
        return config_from_json(read_json(run / "config.json"))
    except InputError as error:
        raise InputError(f"{run / 'config.json'}: {error}") from None


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
        for callback in watch:
            callback.first_step = step
        try:
            with reading(config.data, config.train_split):
                model.fit(
                    batches(model, config, first_step=step),
                    steps_per_epoch=end - step,
                    epochs=1 + whole,
                    # The stream has its own order; Keras warns if asked for another.
                    shuffle=False,
                    verbose=0,
                    callbacks=watch,
                )
        finally:
            for callback in watch:
                callback.close()
        step = end + whole * config.evaluate_every
