"""Caffe's .caffemodel files, of the releases of DeepLabv1 and v2.

Only what holds weights is declared here: names and numbers of fields are those of Caffe's own
caffe.proto. ResNet-101 gets deeplab-pytorch's names, VGG-16 has its own; `pytorch` maps both.
"""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_tf.errors import InputError

_INT64, _FLOAT, _STRING, _MESSAGE = 3, 2, 9, 11
# Message -> (field, number, type, message of that type, repeated and packed).
_MESSAGES = {
    "BlobShape": [("dim", 1, _INT64, "", True)],
    "BlobProto": [
        *((name, i, _INT64, "", False) for i, name in enumerate(("num", "channels", "height"), 1)),
        ("width", 4, _INT64, "", False),
        ("data", 5, _FLOAT, "", True),
        ("shape", 7, _MESSAGE, "BlobShape", False),
    ],
    # Of Caffe before and after 2014.
    "V1LayerParameter": [
        ("name", 4, _STRING, "", False),
        ("blobs", 6, _MESSAGE, "BlobProto", True),
    ],
    "LayerParameter": [
        ("name", 1, _STRING, "", False),
        ("type", 2, _STRING, "", False),
        ("blobs", 7, _MESSAGE, "BlobProto", True),
    ],
    "NetParameter": [
        ("name", 1, _STRING, "", False),
        ("layers", 2, _MESSAGE, "V1LayerParameter", True),
        ("layer", 100, _MESSAGE, "LayerParameter", True),
    ],
}
# Copies of a layer for the other scales of the picture, by which Caffe shares its weights.
_SHARED = re.compile(r"_res0?75$|_res0?5$")
_BRANCHES = {"1": "shortcut", "2a": "reduce", "2b": "conv3x3", "2c": "increase"}


@functools.cache
def net_parameter() -> type:
    """The message that a .caffemodel file is."""
    from google.protobuf import (  # type: ignore[import-untyped]
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    file = descriptor_pb2.FileDescriptorProto(
        name="deeplab_tf/caffe.proto", package="deeplab_tf.caffe", syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, of, repeated in fields:
            field = declared.field.add(name=name, number=number, type=kind, label=1 + 2 * repeated)
            if of:
                field.type_name = f".deeplab_tf.caffe.{of}"
            elif repeated:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("deeplab_tf.caffe.NetParameter")
    return message_factory.GetMessageClass(found)


def read_caffemodel(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Variable name -> array in Caffe's layout, which is PyTorch's.

    Raises:
        InputError: the file is cut off, holds no weights, or layers that these models don't have.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    net: Any = net_parameter()()
    try:
        net.ParseFromString(Path(path).read_bytes())
    except (DecodeError, ValueError):
        raise InputError(
            f"{path} isn't a Caffe model, or it is cut off; download it again."
        ) from None
    arrays: dict[str, np.ndarray] = {}
    for layer in [*net.layers, *net.layer]:
        if layer.blobs and not _SHARED.search(layer.name):
            blobs = [_array(blob, f"{path}: {layer.name}") for blob in layer.blobs]
            arrays |= dict(_variables(layer.name, blobs, str(path)))
    if not arrays:
        raise InputError(f"{path} isn't a Caffe model with weights.")
    return arrays


def _array(blob, where: str) -> np.ndarray:
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    data = np.array(blob.data, np.float32)
    if data.size != np.prod(shape):
        raise InputError(f"{where} has {data.size} numbers for the shape {shape}; it is damaged.")
    # Older files have four sides for vectors too.
    return data.reshape(shape[-1:] if shape[:-1] == (1,) * (len(shape) - 1) else shape)


def _variables(layer: str, blobs: list[np.ndarray], path: str) -> Iterator[tuple[str, np.ndarray]]:
    """The names and arrays of one layer."""
    kind = re.match(r"(bn|scale)_?(?=conv1|\d)", layer)
    if kind is None:
        module = _module(layer, "conv")
        names = [f"{module}.weight", f"{module}.bias"][: len(blobs)]
    elif kind[1] == "bn":
        module = _module(layer.removeprefix(kind[0]), "bn")
        names = [f"{module}.running_mean", f"{module}.running_var"]
        if len(blobs) == 3:
            # Sums over some time; the third number says how long.
            blobs = [blob / (blobs[2].item() or 1.0) for blob in blobs[:2]]
    else:
        module = _module(layer.removeprefix(kind[0]), "bn")
        names = [f"{module}.weight", f"{module}.bias"]
    if len(names) != len(blobs):
        raise InputError(f"{path}: {layer} has {len(blobs)} arrays; it is another kind of network.")
    yield from zip(names, blobs, strict=True)


def _module(layer: str, part: str) -> str:
    """deeplab-pytorch's name for a layer, VGG-16's own.

    Units are a, b, c or, in deep stages, a, b1, b2. A batch norm has the name of its convolution,
    but for what comes before: "res2a_branch1" and "2a_branch1".
    """
    if layer == "conv1":
        return f"layer1.conv1.{part}"
    found = re.fullmatch(r"(?:res)?(\d)([a-z])(\d*)_branch(\w+)", layer)
    if found:
        stage, letter, number, branch = found.groups()
        block = int(number) + 1 if number else ord(letter) - ord("a") + 1
        return f"layer{stage}.block{block}.{_BRANCHES.get(branch, branch)}.{part}"
    found = re.fullmatch(r"fc1_\w+_c(\d)", layer)
    if found:
        return f"aspp.c{found[1]}"
    return "fc" if re.fullmatch(r"fc1(_(?!c\d)\w+)?", layer) else layer
