"""Writes what the sources write: checkpoints of TF1 and TF2, and state dicts of PyTorch."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}


def write_checkpoint(prefix: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> str:
    """Name -> array as the files of a TF1 Saver, but for the graph. Returns their prefix."""
    import tensorflow as tf

    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(array) for array in arrays.values()],
    )
    return str(prefix)


def write_object_checkpoint(prefix: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> str:
    """Path of attributes -> array as `tf.train.Checkpoint` writes it. Returns its prefix.

    With what a trainer has beside the model: its step, and slots of its optimiser.
    """
    import tensorflow as tf

    def grow(parts: list[str], array: np.ndarray, place) -> None:
        if len(parts) == 1:
            setattr(place, parts[0], tf.Variable(array))
            return
        if not hasattr(place, parts[0]):
            setattr(place, parts[0], tf.Module())
        grow(parts[1:], array, getattr(place, parts[0]))

    root = tf.Module()
    for name, array in arrays.items():
        grow(name.split("/"), array, root)
    root.optimizer = tf.Module()
    root.optimizer.iter = tf.Variable(60000, dtype=tf.int64)
    root.global_step = tf.Variable(60000, dtype=tf.int64)
    return tf.train.Checkpoint(root=root).write(str(prefix))


def write_state_dict(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> str:
    """Name -> array as the .pth file of `torch.save`. Returns its path."""
    with zipfile.ZipFile(path, "w") as archive:
        items = "".join(_pickled(i, *item) for i, item in enumerate(arrays.items()))
        archive.writestr("archive/data.pkl", "\x80\x02}(".encode("latin-1") + f"{items}u.".encode())
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
    return str(path)


def _pickled(number: int, name: str, array: np.ndarray) -> str:
    """A name and its tensor, in the language of pickles."""
    strides = [stride // array.itemsize for stride in array.strides]
    storage = (
        f"(Vstorage\nctorch\n{_STORAGES[array.dtype.name]}\nV{number}\nVcpu\nI{array.size}\ntQ"
    )
    shape = "".join(f"I{n}\n" for n in array.shape)
    steps = "".join(f"I{n}\n" for n in strides)
    return (
        f"V{name}\nctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n({shape}t({steps}tI00\n"
        "ccollections\nOrderedDict\n(tRtR"
    )
