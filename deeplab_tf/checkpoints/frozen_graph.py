"""Frozen TF1 graphs: variables that became constants of the same name."""

import os
from pathlib import Path

import numpy as np

from deeplab_tf.errors import InputError

_VARIABLE_ENDINGS = (
    "/weights",
    "/biases",
    "/depthwise_weights",
    "/pointwise_weights",
    "/gamma",
    "/beta",
    "/moving_mean",
    "/moving_variance",
)


def read_frozen_graph(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Variable name -> array of a frozen GraphDef whose batch norms weren't folded.

    Raises:
        InputError: no GraphDef, or none of its constants is named like a variable.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path} isn't a frozen TensorFlow graph ({error}).") from None
    arrays = {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.node
        if node.op == "Const" and node.name.endswith(_VARIABLE_ENDINGS)
    }
    if not arrays:
        raise InputError(
            f"{path}: no constant in this graph is named like a variable; it may be optimised or "
            "quantised. Use the checkpoint, or a graph made with the official export."
        )
    return arrays
