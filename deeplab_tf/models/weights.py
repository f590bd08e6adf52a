"""Weights by variable path, strictly.

Keras' own `.weights.h5` goes by class and order: two layers of one shape, made in another order,
get each other's weights without a word. A path can't be mistaken.
"""

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file


def save_variables(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes every weight of `model` to an .npz: variable path -> array."""
    arrays = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    if len(arrays) != len(model.weights):
        raise ValueError("Two variables of the model share a path; name its layers apart.")
    # A plain archive member keeps the "/" of the path; numpy would take it as it is too, but
    # writing the file object lets the temporary name be anything.
    with atomic_file(path, suffix=".npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


_DAMAGE = (ValueError, OSError, EOFError, KeyError, RuntimeError)


def read_variables(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `save_variables` wrote.

    Raises:
        InputError: the file is missing, cut short or something else.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a preset folder needs its weights.") from None
    # A RuntimeError is what zipfile says to methods, versions and passwords that it can't read.
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} isn't a whole weights file ({error}); copy or write it again."
        ) from None


def assign_variables(
    model: keras.Model,
    arrays: Mapping[str, np.ndarray],
    *,
    skip: str | None = None,
    source: str = "the weights",
) -> list[str]:
    """Sets every weight of `model` from `arrays`.

    Args:
        model: the model to fill.
        arrays: variable path -> array.
        skip: regular expression of paths to leave as they are (matched from the start).
        source: what to call the arrays in an error.

    Returns:
        Paths that were left as they are because of `skip`.

    Raises:
        InputError: something is missing, extra or misshapen; the message has the names, and
            no weight has been changed.
    """
    pattern = re.compile(skip) if skip else None
    skipped = [w.path for w in model.weights if pattern and pattern.match(w.path)]
    wanted = {w.path: w for w in model.weights if w.path not in skipped}
    given = {name: a for name, a in arrays.items() if not (pattern and pattern.match(name))}
    problems = [
        *_listed("missing", [name for name in wanted if name not in given]),
        *_listed("not in the model", [name for name in given if name not in wanted]),
        *_listed(
            "of another shape",
            [
                f"{name} {tuple(given[name].shape)} instead of {tuple(w.shape)}"
                for name, w in wanted.items()
                if name in given and tuple(given[name].shape) != tuple(w.shape)
            ],
        ),
    ]
    if problems:
        raise InputError(f"{source}: these variables don't fit {model.name}. " + " ".join(problems))
    for name, weight in wanted.items():
        weight.assign(given[name])
    return skipped


def load_variables(
    model: keras.Model, path: str | os.PathLike, *, skip: str | None = None
) -> list[str]:
    """Fills `model` from the .npz at `path`: `assign_variables` of `read_variables`."""
    return assign_variables(model, read_variables(path), skip=skip, source=str(path))


def _listed(what: str, names: list[str], most: int = 6) -> list[str]:
    """["3 missing: a, b, c."], or nothing."""
    if not names:
        return []
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{len(names)} {what}: {', '.join(names[:most])}{rest}."]
