"""The full state of a run on disk: what a resumed run needs to end with the same weights."""

import os
import zipfile
from pathlib import Path

import keras
import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file

_KEEP = 2


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Name -> variable: weights, random states, optimiser slots and weight averages."""
    found = {f"model/{variable.path}": variable for variable in _model_variables(model)}
    for index, variable in enumerate(model.optimizer.variables):
        found[f"optimizer/{index:05d}/{variable.path}"] = variable
    return found


def _model_variables(model: keras.Model) -> list:
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in metrics]


def save(run: str | os.PathLike, model: keras.Model, step: int) -> None:
    """Writes checkpoints/step-N.npz and removes all but the newest two."""
    folder = Path(run) / "checkpoints"
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in _variables(model).items()}
    path = folder / f"step-{step:08d}.npz"
    with atomic_file(path, suffix=".npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, step=np.int64(step), **arrays)
    for old in sorted(folder.glob("step-*.npz"))[:-_KEEP]:
        old.unlink(missing_ok=True)


def restore(run: str | os.PathLike, model: keras.Model) -> int:
    """Sets the state of the newest readable checkpoint and returns its step; 0 if there is none.

    Raises:
        InputError: a checkpoint of another model.
    """
    for path in sorted((Path(run) / "checkpoints").glob("step-*.npz"), reverse=True):
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
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
    return 0
