"""Can results be written where they shall go? Asked before the work, which may take an hour."""

import os
import tempfile
from pathlib import Path

from deeplab_tf.errors import InputError


def check_place(path: str | os.PathLike) -> None:
    """Refuses a path where nothing can be written.

    Makes a file in the nearest folder that exists and deletes it: permissions alone don't tell,
    on file systems that take no files or none of this user.

    Args:
        path: of a file or folder that needn't exist.

    Raises:
        InputError: nothing can be written there.
    """
    path = Path(path)
    place = path if path.is_dir() else path.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{path}: {place} is a file, not a folder. Choose another place.")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: nothing can be written in {place} ({error.strerror}). Choose another place."
        ) from None
