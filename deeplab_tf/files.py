"""Writing files so that nothing half-made ever carries a final name."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeplab_tf.errors import InputError


def _in_words(path: Path, error: OSError) -> Exception:
    """The same failure in words that say what to do, where we know; else the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path}: the disk is full. Free some space and run the command again.")
    # A block may fail to read a file of its own: only what happened on the way to `path` counts.
    target, place = path.absolute(), Path(error.filename or path).absolute()
    if target.is_relative_to(place) or place.is_relative_to(target.parent):
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return InputError(f"{path}: no permission to write here. Choose another folder.")
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            return InputError(f"{path}: a part of this path is a file, not a folder.")
    return error


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike, suffix: str = "") -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds.

    Args:
        path: the final name. Missing parent folders are made.
        suffix: ending of the temporary name, for writers that look at it (".png").

    Raises:
        InputError: the disk is full, the place can't be written, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to write to.")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)
        os.close(handle)
        temporary = Path(name)
        # mkstemp makes private files; results get the permissions any other file would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _in_words(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it takes the final name if the block succeeds.

    An existing folder of that name stays as it is until then, and is replaced whole.

    Raises:
        InputError: the disk is full, the place can't be written, or `path` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder to write to.")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        temporary.chmod(0o755)
        yield temporary
        _swap_in(temporary, path)
    except OSError as error:
        raise _in_words(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike, *names: str) -> None:
    """Removes what a killed process left of writing `names` (patterns, such as "step-*.npz").

    Only for folders that nobody writes to at the time.
    """
    for name in names:
        for path in Path(folder).glob(f".{name}.*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _swap_in(new: Path, path: Path) -> None:
    """Gives the folder `new` the name `path`. If that fails, the old folder keeps it."""
    if not path.exists():
        os.replace(new, path)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    old = aside / path.name
    try:
        os.replace(path, old)
        os.replace(new, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_file(path, suffix=".json") as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: the file is missing or isn't JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a JSON file.") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it.") from None
    # A number of 5000 digits is a plain ValueError, lists a thousand deep a RecursionError.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} isn't valid JSON: {error}.") from None
