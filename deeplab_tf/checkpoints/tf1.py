"""TF1 slim checkpoints, and the one rule between their names and ours."""

import os
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers

from deeplab_tf.errors import InputError

# The last part of a variable's name, by the kind of its layer.
_PLAIN = {"weights": "kernel", "biases": "bias"}
_DEPTHWISE = {"depthwise_weights": "kernel", "biases": "bias"}
_SEPARABLE = {
    "depthwise_weights": "depthwise_kernel",
    "pointwise_weights": "pointwise_kernel",
    "biases": "bias",
}
# What training adds to a checkpoint: counters, optimiser slots, averages.
_SLOTS = r"Momentum|Adam(_1)?|RMSProp(_1)?|Adagrad|Adadelta(_1)?|Ftrl(_1)?|ExponentialMovingAverage"
_NOT_WEIGHTS = re.compile(rf"global_step|(.*/)?beta[12]_power|.*/({_SLOTS})")
_DATA_SUFFIX = re.compile(r"\.data-\d{5}-of-\d{5}$")


def variable_path(name: str, model: keras.Model) -> str:
    """Our path of a TF1 variable: `aspp0/BatchNorm/gamma` -> `aspp0.BatchNorm/gamma`.

    A scope becomes a layer's name, "/" a ".", and the last part is translated. The variables of a
    batch norm keep theirs, whatever its scope is called: `bn_sep_7x7/gamma` of the searched
    backbones follows the same rule.

    Args:
        name: with "/" between scopes.
        model: decides what kind of layer a kernel belongs to.
    """
    scope, _, last = name.rpartition("/")
    layer_name = scope.replace("/", ".")
    return f"{layer_name}/{_names(layer_name, model, last).get(last, last)}"


def source_name(path: str, model: keras.Model) -> str:
    """The TF1 name of one of our variables: the inverse of `variable_path`."""
    layer_name, _, last = path.rpartition("/")
    names = {ours: theirs for theirs, ours in _names(layer_name, model).items()}
    return f"{layer_name.replace('.', '/')}/{names.get(last, last)}"


def _names(layer_name: str, model: keras.Model, last: str = "") -> dict[str, str]:
    """TF1's last part of a name -> ours, for the variables of one layer."""
    layer = next((layer for layer in model.layers if layer.name == layer_name), None)
    if isinstance(layer, layers.SeparableConv2D):
        return _SEPARABLE
    # A variable without a layer shall still get a path that says what it is.
    if isinstance(layer, layers.DepthwiseConv2D) or (layer is None and last in _DEPTHWISE):
        return _DEPTHWISE
    return _PLAIN


def is_weight(name: str, model: keras.Model | None = None) -> bool:
    """False for counters, optimiser slots and averages.

    Averages are left out like slots: the official code evaluates and exports the weights as
    trained.
    """
    return not _NOT_WEIGHTS.fullmatch(name)


def checkpoint_prefix(path: str | os.PathLike) -> str | None:
    """The common beginning of a checkpoint's files, or None if `path` is no checkpoint.

    Args:
        path: that beginning, one of the files, or their folder. In a folder the file `checkpoint`
            decides; without it, the highest step.

    Raises:
        InputError: the checkpoint has lost its index.
    """
    path = Path(path)
    if path.name == "checkpoint" and path.is_file():
        path = path.parent
    if path.is_dir():
        return _newest_prefix(path)
    text = _DATA_SUFFIX.sub("", str(path))
    for suffix in (".index", ".meta"):
        text = text.removesuffix(suffix)
    if Path(f"{text}.index").is_file():
        return text
    if _data_files(text) or (text != str(path) and path.exists()):
        raise InputError(f"{text}: half a checkpoint, {Path(text).name}.index is missing.")
    return None


def _newest_prefix(folder: Path) -> str | None:
    state = folder / "checkpoint"
    if state.is_file():
        text = state.read_text("utf-8", errors="replace")
        # The file was perhaps written on another machine: only the name counts, beside it.
        found = re.search(r'^model_checkpoint_path:\s*"(?:[^"]*[/\\])?([^"/\\]+)"', text, re.M)
        if found:
            prefix = folder / found[1]
            if not Path(f"{prefix}.index").is_file():
                raise InputError(f"{state} names {found[1]}, but {found[1]}.index isn't there.")
            return str(prefix)
    prefixes = [path.with_suffix("") for path in folder.glob("*.index")]
    data = [path.name for path in folder.glob("*.data-*") if _DATA_SUFFIX.search(path.name)]
    if data and not prefixes:
        name = _DATA_SUFFIX.sub("", min(data))
        raise InputError(f"{folder}: half a checkpoint, {name}.index is missing.")
    return str(max(prefixes, key=_step)) if prefixes else None


def _step(prefix: Path) -> tuple[int, str]:
    """Orders model.ckpt-9 before model.ckpt-10."""
    number = re.search(r"-(\d+)$", prefix.name)
    return (int(number[1]) if number else -1, prefix.name)


def _data_files(prefix: str) -> list[Path]:
    path = Path(prefix)
    if not path.parent.is_dir():
        return []
    names = sorted(path.parent.iterdir())
    return [p for p in names if _DATA_SUFFIX.sub("", p.name) == path.name != p.name]


def read_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Variable name -> array of a checkpoint of TF1 or TF2, optimiser slots included.

    What isn't a variable, such as the graph of objects in those of TF2, has an array too.

    Raises:
        InputError: there is none, or a file of it is missing or cut short.
    """
    import tensorflow as tf

    prefix = checkpoint_prefix(path)
    if prefix is None:
        raise InputError(
            f"{path}: no TensorFlow checkpoint there. It consists of NAME.index and "
            "NAME.data-00000-of-00001; name one of them, or their folder."
        )
    if not _data_files(prefix):
        name = Path(prefix).name
        raise InputError(f"{prefix}: half a checkpoint, {name}.data-00000-of-00001 is missing.")
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = sorted(reader.get_variable_to_shape_map())
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{prefix}: the checkpoint is incomplete or damaged ({reason}); download it again."
        ) from None
