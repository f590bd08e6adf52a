"""Reads tensors from PyTorch's files, without PyTorch and without running anything in them.

A .pth file is a Python pickle beside raw numbers, and a pickle may name any function to be called
as it is opened. Here it can name only what makes a tensor, and a few plain values that training
scripts keep beside; all else stops the reading. A .safetensors file is a table in JSON before raw
numbers.
"""

import collections
import dataclasses
import json
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deeplab_tf.errors import InputError

# How files of torch.save began until version 1.6: a pickled number.
_OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"
# bfloat16 is the upper half of a float32.
_BFLOAT16 = "bfloat16"
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_SAFE = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": _BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
# Where training scripts keep the state dict beside their counters and optimisers.
_STATE_KEYS = ("model_state", "state_dict", "model_state_dict", "model", "net")
_SUFFIXES = (".pth", ".pt")


class _RefusedError(Exception):
    """A pickle names something that makes no tensor."""


@dataclasses.dataclass
class _Storage:
    kind: str
    key: str
    count: int


@dataclasses.dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unread:
    """Stands for a value that nobody needs, such as a score among the counters."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        pass


def _rebuild_tensor(storage, offset, shape, strides, *rest) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(data, *rest):
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("argparse", "Namespace"): _Unread,
    ("torch", "Size"): _Unread,
    ("torch", "device"): _Unread,
    ("numpy", "dtype"): _Unread,
    ("numpy.core.multiarray", "scalar"): _Unread,
    ("numpy._core.multiarray", "scalar"): _Unread,
    ("_codecs", "encode"): _Unread,
    **{("torch", name): kind for name, kind in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Makes plain containers and descriptions of tensors; refuses every other name."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid):
        word, kind, key, _, count, *view = pid
        if word != "storage" or kind not in _STORAGES.values() or any(view):
            raise ValueError(f"unknown reference {word!r}")
        return _Storage(kind, str(key), int(count))


def recognise_pytorch(path: str | os.PathLike, head: bytes) -> bool:
    """Whether a file is one of those that `read_state_dict` reads.

    Args:
        path: of the file.
        head: its first bytes, at least 16 if it is as long.

    Raises:
        InputError: it is a pickle that PyTorch didn't write, or cut off.
    """
    path = Path(path)
    length = int.from_bytes(head[:8], "little")
    is_table = head[8:9] == b"{" and length <= path.stat().st_size - 8
    if is_table or head.startswith(_OLD_MAGIC):
        return True
    if head.startswith(_ZIP):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError):
            if path.suffix in _SUFFIXES:
                raise _damaged(path) from None
            return False
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        raise InputError(
            f"{path} is a bare Python pickle, which can hold code; it was not opened. Save the "
            "state_dict of its model with torch.save, or as .safetensors."
        )
    return False


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Name -> array of a .pth, .pt or .safetensors file; bfloat16 becomes float32.

    Raises:
        InputError: it is damaged, or holds anything but tensors. Nothing in it is ever run.
    """
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        try:
            if head.startswith(_ZIP):
                return _read_zip(path)
            if head.startswith(_OLD_MAGIC):
                return _read_old(file, path)
            return _read_safetensors(file, path)
        except InputError:
            raise
        except _RefusedError as error:
            raise InputError(
                f"{path} holds Python code ({error}), not only tensors; nothing of it was run. "
                "Save the state_dict of its model instead: torch.save(model.state_dict(), FILE)."
            ) from None
        except Exception as error:
            # A damaged pickle fails in any way.
            raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception | None = None) -> InputError:
    reason = f" ({error})" if error and str(error) else ""
    return InputError(f"{path} is damaged or cut off{reason}; download or save it again.")


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        # As PyTorch writes them; so the file's size bounds what is read.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        if any(name.startswith(f"{folder}code/") for name in archive.namelist()):
            raise InputError(
                f"{path} is a TorchScript program, not a state dict; nothing of it was run. "
                "Save the state_dict of its model instead: torch.save(model.state_dict(), FILE)."
            )
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise InputError(f"{path} was written on a big-endian machine, which can't be read.")

        def read(storage: _Storage) -> bytes:
            return archive.read(f"{folder}data/{storage.key}")

        with archive.open(pickled) as file:
            tensors = _state_dict(_Unpickler(file).load(), path)
        return _arrays(tensors, read)


def _read_old(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    """The layout until PyTorch 1.6: five pickles, then each storage after its length."""
    for _ in range(3):  # magic number, version, sizes of C types
        _Unpickler(file).load()
    content = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    tensors = _state_dict(content, path)
    kinds = {str(t.storage.key): t.storage.kind for t in _all_tensors(content)}
    raw = {}
    for key in map(str, keys):
        count = int.from_bytes(file.read(8), "little")
        raw[key] = _read_exactly(file, count * _item_size(kinds[key]), path)
    return _arrays(tensors, lambda storage: raw[storage.key])


def _read_safetensors(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    length = int.from_bytes(file.read(8), "little")
    table = json.loads(_read_exactly(file, length, path))
    table.pop("__metadata__", None)
    data = file.read()
    arrays = {}
    for name, entry in table.items():
        begin, end = entry["data_offsets"]
        shape, kind = tuple(entry["shape"]), _SAFE.get(entry["dtype"])
        if kind is None:
            raise InputError(f"{path}: {name} has the type {entry['dtype']}, which can't be read.")
        if not 0 <= begin <= end <= len(data) or math.prod(shape) * _item_size(kind) != end - begin:
            raise ValueError(f"{name} doesn't fit its place")
        arrays[name] = _numbers(data[begin:end], kind).reshape(shape)
    return arrays


def _read_exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    if size > path.stat().st_size:
        raise ValueError("more numbers than bytes")
    data = file.read(size)
    if len(data) != size:
        raise ValueError("it ends too early")
    return data


def _item_size(kind: str) -> int:
    return 2 if kind == _BFLOAT16 else np.dtype(kind).itemsize


def _numbers(data: bytes, kind: str) -> np.ndarray:
    if kind == _BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, kind)


def _all_tensors(content) -> list[_Tensor]:
    """Every tensor in nested dicts, lists and tuples: an optimiser's too."""
    found, waiting, seen = [], [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Tensor):
            found.append(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return found


def _state_dict(content, path: Path) -> dict[str, _Tensor]:
    """The tensors by name, out of what a training script may have put around them."""
    if isinstance(content, dict):
        for key in _STATE_KEYS:
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no state dict (name -> tensor).")
    others = [str(key) for key, value in content.items() if not isinstance(value, _Tensor)]
    if others:
        raise InputError(
            f"{path} holds no state dict (name -> tensor): {', '.join(others[:4])} "
            f"{'is no tensor' if len(others) == 1 else 'are no tensors'}."
        )
    return {str(name): tensor for name, tensor in content.items()}


def _arrays(tensors: dict[str, _Tensor], read) -> dict[str, np.ndarray]:
    """Cuts tensors out of their storages, each of which `read` gives as bytes."""
    storages: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in storages:
            storages[key] = _numbers(read(tensor.storage), tensor.storage.kind)
        arrays[name] = _cut(storages[key], tensor, name)
    return arrays


def _cut(numbers: np.ndarray, tensor: _Tensor, name: str) -> np.ndarray:
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    if len(shape) != len(strides) or offset < 0 or min((*shape, *strides), default=0) < 0:
        raise ValueError(f"{name} has impossible sizes")
    if 0 in shape:
        return np.zeros(shape, numbers.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # Nothing may be read outside the storage, nor a huge array made of a few numbers.
    if last >= len(numbers) or math.prod(shape) > len(numbers):
        raise ValueError(f"{name} is larger than its storage")
    steps = tuple(stride * numbers.itemsize for stride in strides)
    view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
    return np.ascontiguousarray(view).reshape(shape)
