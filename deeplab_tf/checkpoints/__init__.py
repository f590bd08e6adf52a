"""Official weights of every published format, loaded strictly."""

import os
from pathlib import Path

import keras
import numpy as np

from deeplab_tf.checkpoints import frozen_graph, tf1, tflite
from deeplab_tf.errors import InputError


def load(
    model: keras.Model, path: str | os.PathLike, *, new_last_layer: bool = False
) -> list[tuple[str, str, tuple[int, ...]]]:
    """Fills `model` from an official file, whose format is recognised.

    Args:
        model: of the architecture that the file holds.
        path: a TF1 checkpoint (prefix, .index file or folder), a frozen graph (.pb), or a float
            TFLite file of an official model.
        new_last_layer: leave the last layer random, for another number of classes.

    Returns:
        (source name, our variable path, shape) of every variable that was set.

    Raises:
        InputError: unknown or damaged, or a variable is missing, extra or misshapen.
    """
    return tf1.assign(model, read(path, model), source=str(path), new_last_layer=new_last_layer)


def read(path: str | os.PathLike, model: keras.Model) -> dict[str, np.ndarray]:
    """TF1 variable name -> array of an official file; see `load`."""
    path = Path(path)
    if tf1.checkpoint_prefix(path) is not None:
        return tf1.read_checkpoint(path)
    if path.is_dir():
        raise InputError(f"{path}: no checkpoint in this folder (NAME.index is missing).")
    if not path.is_file():
        raise InputError(f"{path}: no such file or checkpoint.")
    with open(path, "rb") as file:
        head = file.read(8)
    if head[4:8] == b"TFL3":
        return tflite.unfold(tflite.read_tflite(path), model)
    if path.suffix == ".tflite":
        raise InputError(f"{path} isn't a TFLite file, whatever its name says.")
    return frozen_graph.read_frozen_graph(path)
