"""TF1 slim checkpoints, and the one rule between their names and ours."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
from keras import layers

from deeplab_tf.errors import InputError
from deeplab_tf.models.weights import assign_variables

_LAST = {
    "weights": "kernel",
    "biases": "bias",
    "depthwise_weights": "kernel",
    "pointwise_weights": "pointwise_kernel",
}
# What training adds to a checkpoint: counters, optimiser slots, averages.
_NOT_WEIGHTS = re.compile(
    r"(global_step|.*/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|ExponentialMovingAverage)"
    r"|beta[12]_power)$"
)


def variable_path(name: str, model: keras.Model) -> str:
    """Our path of a TF1 variable: `aspp0/BatchNorm/gamma` -> `aspp0.BatchNorm/gamma`.

    Args:
        name: with "/" between scopes.
        model: decides whether a depthwise kernel belongs to a depthwise or a fused separable
            convolution.
    """
    scope, _, last = name.rpartition("/")
    layer_name = scope.replace("/", ".")
    if last == "depthwise_weights" and isinstance(
        _layers(model).get(layer_name), layers.SeparableConv2D
    ):
        return f"{layer_name}/depthwise_kernel"
    return f"{layer_name}/{_LAST.get(last, last)}"


def _layers(model: keras.Model) -> dict[str, keras.Layer]:
    return {layer.name: layer for layer in model.layers}


def source_name(path: str, model: keras.Model) -> str:
    """The TF1 name of one of our variables: the inverse of `variable_path`."""
    layer_name, _, last = path.rpartition("/")
    layer = _layers(model).get(layer_name)
    scope = layer_name.replace(".", "/")
    if isinstance(layer, layers.SeparableConv2D):
        names = {"depthwise_kernel": "depthwise_weights", "pointwise_kernel": "pointwise_weights"}
    elif isinstance(layer, layers.DepthwiseConv2D):
        names = {"kernel": "depthwise_weights", "bias": "biases"}
    else:
        names = {"kernel": "weights", "bias": "biases"}
    return f"{scope}/{names.get(last, last)}"


def is_weight(name: str) -> bool:
    """False for counters, optimiser slots and averages."""
    return not _NOT_WEIGHTS.fullmatch(name)


def assign(
    model: keras.Model,
    arrays: Mapping[str, np.ndarray],
    *,
    source: str,
    new_last_layer: bool = False,
) -> list[tuple[str, str, tuple[int, ...]]]:
    """Fills `model` from TF1 names; strict.

    Args:
        model: to fill.
        arrays: TF1 name -> array in TensorFlow's layout.
        source: what to call them in an error.
        new_last_layer: leave the last layer random, for another number of classes.

    Returns:
        (source name, our path, shape) of every variable that was set.

    Raises:
        InputError: something is missing, extra or misshapen; names what, and the nearest name.
    """
    weights = {name: array for name, array in arrays.items() if is_weight(name)}
    paths = {variable_path(name, model): name for name in weights}
    skip = model.last_layers if new_last_layer else None
    wanted = {weight.path for weight in model.weights}
    kept = {p for p in wanted | set(paths) if skip and re.match(skip, p)}
    missing = sorted(source_name(p, model) for p in wanted - set(paths) - kept)
    extra = sorted(paths[p] for p in set(paths) - wanted - kept)
    if missing or extra:
        raise InputError(f"{source} isn't a checkpoint of this model: " + _names(missing, extra))
    renamed = {path: weights[name] for path, name in paths.items()}
    assign_variables(model, renamed, skip=skip, source=source)
    return [(paths[p], p, tuple(renamed[p].shape)) for p in sorted(renamed) if p not in kept]


def _names(missing: Iterable[str], extra: Iterable[str]) -> str:
    missing, extra = list(missing), list(extra)
    parts = []
    if missing:
        near = difflib.get_close_matches(missing[0], extra, n=1)
        hint = f" (there is {near[0]})" if near else ""
        parts.append(f"{len(missing)} missing, the first: {missing[0]}{hint}.")
    if extra:
        parts.append(f"{len(extra)} that the model doesn't have, the first: {extra[0]}.")
    return " ".join(parts)


def checkpoint_prefix(path: str | os.PathLike) -> str | None:
    """The prefix that TensorFlow wants, from a folder, an .index file or the prefix; or None."""
    path = Path(path)
    if path.is_dir():
        import tensorflow as tf

        latest = tf.train.latest_checkpoint(str(path))
        if latest is None:
            found = sorted(path.glob("*.index"))
            latest = str(found[-1])[: -len(".index")] if found else None
        return latest
    text = str(path)
    for suffix in (".index", ".meta"):
        if text.endswith(suffix):
            text = text[: -len(suffix)]
    text = re.sub(r"\.data-\d{5}-of-\d{5}$", "", text)
    return text if Path(f"{text}.index").is_file() else None


def read_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Variable name -> array of a TF1 checkpoint, optimiser slots included.

    Raises:
        InputError: there is no index, or a file is missing or cut short.
    """
    import tensorflow as tf

    prefix = checkpoint_prefix(path)
    if prefix is None:
        raise InputError(
            f"{path}: no TensorFlow checkpoint there; it consists of NAME.index and "
            "NAME.data-00000-of-00001, name either of them or their folder."
        )
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{prefix}: the checkpoint is incomplete or damaged ({reason}); download it again."
        ) from None
