"""The full state of a run on disk: what a resumed run needs to end with the same weights."""

import os
import re
import zipfile
from pathlib import Path

import keras
import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file

_KEEP = 2


def save(run: str | os.PathLike, model: keras.Model, step: int) -> None:
    """Writes checkpoints/step-N.npz and removes all but the newest two."""
    folder = Path(run) / "checkpoints"
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in _variables(model).items()}
    path = folder / f"step-{step:08d}.npz"
    with atomic_file(path, suffix=".npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, step=np.int64(step), **arrays)
        # On disk before it has its name: a crash of the machine may not leave half a file either.
        file.flush()
        os.fsync(file.fileno())
    for old in checkpoints(run)[_KEEP:]:
        old.unlink(missing_ok=True)


def restore(run: str | os.PathLike, model: keras.Model) -> int:
    """Sets the state of the newest readable checkpoint and returns its step; 0 if there is none.

    Raises:
        InputError: a checkpoint of another model, or none of several can be read.
    """
    paths = checkpoints(run)
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {_without_numbers(name): archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile):
            # Whole files only get this name; one damaged later has an older one behind it.
            continue
        step = int(arrays.pop("step"))
        variables = _variables(model)
        if set(variables) != set(arrays) or any(
            tuple(v.shape) != arrays[name].shape for name, v in variables.items()
        ):
            raise InputError(f"{path} belongs to another model or optimiser than config.json says.")
        for name, variable in variables.items():
            variable.assign(arrays[name])
        return step
    if paths:
        raise InputError(
            f"{paths[0].parent}: no checkpoint in there can be read. Start anew with another --run."
        )
    return 0


def checkpoints(run: str | os.PathLike) -> list[Path]:
    """The run's checkpoint files, newest first."""
    return sorted((Path(run) / "checkpoints").glob("step-*.npz"), reverse=True)


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Name -> variable: weights, random states, optimiser slots and weight averages."""
    metrics = {id(variable) for variable in model.metrics_variables}
    found = {}
    for variable in model.variables:
        if id(variable) not in metrics:
            name = _without_numbers(f"model/{variable.path}")
            while name in found:
                name += "+"
            found[name] = variable
    for index, variable in enumerate(model.optimizer.variables):
        found[_without_numbers(f"optimizer/{index:05d}/{variable.path}")] = variable
    return found


def _without_numbers(name: str) -> str:
    """A name without what Keras numbers anew for each object of a process."""
    name = re.sub(r"^(optimizer/\d+)/[^/]+/", r"\1/", name)
    return re.sub(r"^model/seed_generator(_\d+)?/", "model/seed_generator/", name)
