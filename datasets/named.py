"""Sources by what a user writes: a folder, "synthetic", "tfds:NAME"."""

import os
from pathlib import Path

from deeplab_tf.datasets.folder import scan_folder
from deeplab_tf.datasets.source import Source
from deeplab_tf.errors import InputError

TFDS = "tfds:"
SYNTHETIC = "synthetic"


def is_named(what: str | os.PathLike) -> bool:
    """Whether this is the name of a source; a folder of that name goes first."""
    return str(what).startswith(TFDS) or (str(what) == SYNTHETIC and not Path(what).exists())


def open_source(what: str | os.PathLike, *, classes: str | os.PathLike | None = None) -> Source:
    """Opens a folder of pictures and masks, or a named source; reads no picture yet.

    Args:
        what: a folder, "synthetic" (drawn shapes), or "tfds:" and a name in TensorFlow Datasets.
        classes: a class file or known list for a folder.

    Raises:
        InputError: it can't be opened, or is no folder of the right layout.
    """
    if not is_named(what):
        return scan_folder(what, classes=classes)
    if classes is not None:
        raise InputError(f"{what} has its own classes; leave --classes out.")
    if str(what) == SYNTHETIC:
        from deeplab_tf.datasets.synthetic import Shapes

        return Shapes()
    # TensorFlow Datasets is an extra that few need.
    from deeplab_tf.datasets.tfds import open_tfds

    return open_tfds(str(what).removeprefix(TFDS))
