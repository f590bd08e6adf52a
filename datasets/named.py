"""Sources by what a user writes: a folder, "synthetic", "tfds:NAME"."""

import os
from pathlib import Path

from deeplab_tf.datasets.folder import scan_folder
from deeplab_tf.datasets.panoptic_folder import is_panoptic, scan_panoptic
from deeplab_tf.datasets.source import Source
from deeplab_tf.errors import InputError

TFDS = "tfds:"
SYNTHETIC = "synthetic"


def is_named(what: str | os.PathLike) -> bool:
    """Whether this is the name of a source; a folder of that name goes first."""
    return str(what).startswith(TFDS) or (str(what) == SYNTHETIC and not Path(what).exists())


def open_source(
    what: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
) -> Source:
    """Opens a folder of pictures and masks, or a named source; reads no picture yet.

    Args:
        what: a folder, "synthetic" (drawn shapes), or "tfds:" and a name in TensorFlow Datasets.
        classes: a class file or known list for a folder.
        annotations: a panoptic JSON file, for a folder that doesn't have it where it usually is.
        label_divisor: of panoptic labels; None takes one that fits.

    Raises:
        InputError: it can't be opened, or is no folder of the right layout.
    """
    if not is_named(what):
        if is_panoptic(what, annotations):
            return scan_panoptic(
                what, classes=classes, annotations=annotations, label_divisor=label_divisor
            )
        if label_divisor is not None:
            raise InputError(
                f"{what} has no instances, so --label-divisor means nothing; leave it out."
            )
        return scan_folder(what, classes=classes)
    if classes is not None:
        raise InputError(f"{what} has its own classes; leave --classes out.")
    if annotations is not None or label_divisor is not None:
        raise InputError(f"{what} has no instances; leave --annotations, --label-divisor out.")
    if str(what) == SYNTHETIC:
        from deeplab_tf.datasets.synthetic import Shapes

        return Shapes()
    # TensorFlow Datasets is an extra that few need.
    from deeplab_tf.datasets.tfds import open_tfds

    return open_tfds(str(what).removeprefix(TFDS))
