"""Official weights of every published format, loaded strictly."""

import logging
import os
from pathlib import Path

import keras

from deeplab_tf.checkpoints import (
    caffe,
    deeplab2,
    frozen_graph,
    keras_applications,
    pytorch,
    pytorch_file,
    tf1,
    tflite,
)
from deeplab_tf.checkpoints.strict import Assigned, Loaded, Source, assign
from deeplab_tf.errors import InputError
from deeplab_tf.models.base import CONFIG_FILE, WEIGHTS_FILE
from deeplab_tf.models.weights import read_variables

__all__ = ["Assigned", "Loaded", "Source", "assign", "load", "read"]

_LOG = logging.getLogger(__name__)

CHECKPOINT, FROZEN_GRAPH, TFLITE = "TF1 checkpoint", "frozen graph", "TFLite"
DEEPLAB2 = "deeplab2 (TF2) checkpoint"
PYTORCH, CAFFE = "PyTorch state dict", "Caffe model"
PRESET, KERAS_APPLICATIONS = "preset folder", "ImageNet weights of keras.applications"
# How files begin that people give by mistake, and what to do with them.
_OTHER_FILES = (
    (b"\x1f\x8b", "is a compressed archive; unpack it (tar xf) and name what was in it"),
    (b"PK\x03\x04", "is a zip archive; unpack it and name what was in it"),
    (b"<", "is a web page, not a model; the download has gone wrong"),
    (b"version https://git-lfs", "only points to a file in Git LFS; fetch it with git lfs pull"),
    (b"\x89HDF", "is an HDF5 file, which can't be read"),
)


def load(
    model: keras.Model, path: str | os.PathLike, *, new_last_layer: bool | None = None
) -> Loaded:
    """Fills `model` from an official file, whose format is recognised by its content.

    All or nothing: if anything is missing, extra or misshapen, no weight changes. Counters and
    optimiser slots are left out by rule. If the file has another number of classes than the
    model, the last layer stays as it was made, and one line says so. An image classifier gives a
    segmentation model its backbone, and one line says that.

    Args:
        model: of the architecture that the file holds.
        path: a checkpoint of TF1 or of deeplab2 (folder, prefix or one of its files), a frozen
            graph (.pb), a float TFLite file of an official model, a .caffemodel, or a PyTorch state
            dict (.pth, .pt, .safetensors), which is read without PyTorch and without running
            anything in it. Or a preset folder, such as `ImageClassifier.save_to_preset` writes; or
            "keras_applications" for those ImageNet weights, which Keras downloads.
        new_last_layer: True leaves the last layer as it was made in any case; False makes
            another number of classes an error.

    Returns:
        What was set, left out and made anew. `print(loaded)` is one line; `loaded.variables` is
        the whole name map.

    Raises:
        InputError: not one of these formats, damaged, or not of this model; says what is wrong.
    """
    loaded = assign(model, read(path, model), new_last_layer=new_last_layer)
    if loaded.backbone_only:
        _LOG.warning(str(loaded))
    return loaded


def read(path: str | os.PathLike, model: keras.Model) -> Source:
    """The variables in an official file, by their names there; those of TFLite by their TF1 names.

    Args:
        path: see `load`.
        model: says which batch norms were folded into the convolutions of a TFLite file, and
            which modules a PyTorch file has.
    """
    kind = recognise(path)
    if kind == KERAS_APPLICATIONS:
        return Source(str(path), kind, *keras_applications.read_keras_applications(model))
    if kind == PRESET:
        # Its names are our paths, which the rule of TF1 leaves as they are.
        return Source(str(path), kind, read_variables(Path(path) / WEIGHTS_FILE))
    if kind == CHECKPOINT:
        prefix, arrays = str(tf1.checkpoint_prefix(path)), tf1.read_checkpoint(path)
        if deeplab2.OBJECT_GRAPH not in arrays:
            return Source(prefix, kind, arrays)
        names = deeplab2.Deeplab2Names(model)
        return Source(prefix, DEEPLAB2, deeplab2.by_attributes(arrays, prefix), names=names)
    if kind == TFLITE:
        arrays, origins = tflite.unfold(tflite.read_tflite(path), model)
        return Source(str(path), kind, arrays, origins)
    if kind == CAFFE:
        arrays = caffe.read_caffemodel(path)
        modules = pytorch.PyTorchNames(model, arrays)
        return Source(str(path), kind, pytorch.to_tensorflow(arrays, modules, model), names=modules)
    if kind == PYTORCH:
        arrays, modules, origins = pytorch.read_pytorch(path, model)
        return Source(str(path), kind, arrays, origins, modules)
    return Source(str(path), kind, frozen_graph.read_frozen_graph(path))


def recognise(path: str | os.PathLike) -> str:
    """Which format a path has, by its content.

    Raises:
        InputError: there is nothing, or nothing that can be read.
    """
    if path == "keras_applications" and not Path(path).exists():
        return KERAS_APPLICATIONS
    path = Path(path)
    if tf1.checkpoint_prefix(path) is not None:
        return CHECKPOINT
    if (path / CONFIG_FILE).is_file():
        return PRESET
    if path.is_dir():
        files = sorted(p.name for p in (*path.glob("*.pb"), *path.glob("*.tflite")))
        hint = f"; name a file in it: {', '.join(files)}" if files else ""
        raise InputError(f"{path}: no checkpoint (NAME.index) in this folder{hint}.")
    if not path.is_file():
        raise InputError(f"{path}: no such file, folder or checkpoint.")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise InputError(f"{path} is empty; download it again.")
    if head[4:8] == tflite.IDENTIFIER:
        return TFLITE
    if path.suffix == ".caffemodel":
        return CAFFE  # nothing in it tells it from other protocol buffers
    if pytorch_file.recognise_pytorch(path, head):
        return PYTORCH
    for beginning, what in _OTHER_FILES:
        if head.startswith(beginning):
            raise InputError(f"{path} {what}.")
    if path.suffix == ".safetensors":
        return PYTORCH  # damaged, which its reader says
    if path.suffix == ".tflite":
        raise InputError(f"{path} isn't a TFLite file, whatever its name says.")
    try:
        frozen_graph.parse(path)
    except InputError:
        if path.suffix == ".pb":
            raise
        raise InputError(
            f"{path} is none of what can be read: a TensorFlow checkpoint, a frozen graph (.pb), a "
            "float TFLite file, a Caffe model (.caffemodel), a PyTorch state dict (.pth, "
            ".safetensors)."
        ) from None
    return FROZEN_GRAPH
