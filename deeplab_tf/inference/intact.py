"""Is a .tflite file as it was written? Asked before LiteRT gets it.

LiteRT believes what a file says. One flipped byte can stop the whole process, or change a weight
and give another answer without a word. Files that we export carry a checksum, which tells at once.
Files of others run first in a process of their own.
"""

import io
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from deeplab_tf.errors import InputError

# Our own record of the model, which an export leaves in the archive behind the file.
INFO_FILE = "deeplab_tf.json"
# Beside it: CRC-32 of all that comes before the archive, in hexadecimal digits.
CHECKSUM_FILE = "deeplab_tf.crc32"
# In the metadata of every file that we export.
_AUTHOR = b"deeplab-tf"
# Loads a file and runs it once. What Python can catch is no business of this trial: the caller
# meets it again, and knows better what to say.
_TRIAL = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
try:
    with open(sys.argv[1], "rb") as file:
        interpreter = Interpreter(model_content=file.read(), num_threads=2)
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    interpreter.invoke()
except Exception:
    pass
"""
# Checksums of contents that have run.
_known_to_run: set[tuple[int, int]] = set()


def checksum(content: bytes) -> str:
    """CRC-32 in eight hexadecimal digits."""
    return f"{zlib.crc32(content):08x}"


def check_intact(content: bytes, name: str) -> None:
    """Refuses a file that was damaged, or that would take the process down.

    Args:
        content: of the file.
        name: to call it in an error.

    Raises:
        InputError: it is damaged.
    """
    expected = _written_checksum(content)
    ours = expected is not None or _AUTHOR in content or INFO_FILE.encode() in content
    if ours and not _has_archive(content):
        raise _damaged(name, "its end, where the labels are, is missing or was overwritten")
    if expected is None:
        _try(content, name)
    elif checksum(content[: expected[1]]) != expected[0]:
        raise _damaged(name, "its content isn't what was exported")


def _damaged(name: str, reason: str) -> InputError:
    return InputError(f"{name} is damaged: {reason}. Copy or export it again.")


def _has_archive(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except Exception:  # the reader follows offsets and may fail anywhere
        return False


def _written_checksum(content: bytes) -> tuple[str, int] | None:
    """(checksum, length of what it is of), if the file has one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            start = min(entry.header_offset for entry in archive.infolist())
            return archive.read(CHECKSUM_FILE).decode("ascii").strip(), start
    except Exception:  # no archive, another one, or a broken one
        return None


def _try(content: bytes, name: str) -> None:
    """Runs a file in a process of its own, once for each content."""
    key = (zlib.crc32(content), len(content))
    if key in _known_to_run:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        command = [sys.executable, "-c", _TRIAL, str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode < 0 or done.returncode > 1:
        raise _damaged(name, "LiteRT breaks down on it")
    _known_to_run.add(key)
