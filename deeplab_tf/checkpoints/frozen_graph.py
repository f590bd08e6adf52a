"""Frozen TF1 graphs: variables that became constants of the same name."""

import os
from pathlib import Path
from typing import Any

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
# What the official export calls its ends.
_IMAGE, _LABELS = "ImageTensor", "SemanticPredictions"
# Between the network's input and its first convolution.
_PASS_THROUGH = ("Pad", "PadV2", "Identity", "SpaceToBatchND")


def parse(path: str | os.PathLike) -> Any:
    """The GraphDef in a file.

    Raises:
        InputError: there is none.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(Path(path).read_bytes())
    except (DecodeError, ValueError):
        raise InputError(
            f"{path} isn't a frozen TensorFlow graph, or it is cut off; download it again."
        ) from None
    # Other protocol buffers, and an empty file, can parse as a graph without nodes or operators.
    if not graph.node or not all(node.op for node in graph.node):
        raise InputError(f"{path} isn't a frozen TensorFlow graph: it has no nodes.")
    return graph


def read_frozen_graph(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Variable name -> array of a frozen GraphDef whose batch norms weren't folded.

    Raises:
        InputError: no GraphDef, a quantised one, or none of its constants is named like a
            variable.
    """
    import tensorflow as tf

    graph = parse(path)
    if any(node.op.startswith("FakeQuant") for node in graph.node):
        raise InputError(f"{path} is quantised; only float graphs give their weights back.")
    constants = [
        node for node in graph.node if node.op == "Const" and node.name.endswith(_VARIABLE_ENDINGS)
    ]
    arrays = {}
    for node in constants:
        try:
            arrays[node.name] = tf.make_ndarray(node.attr["value"].tensor)
        except (TypeError, ValueError):
            raise InputError(f"{path} is damaged at {node.name}; download it again.") from None
    if not arrays:
        raise InputError(
            f"{path}: none of this graph's constants is named like a variable. Give a graph that "
            "was frozen and not optimised, or the checkpoint that it was made from."
        )
    return arrays


def run_frozen_graph(
    path: str | os.PathLike, image: np.ndarray
) -> tuple[np.ndarray, tuple[int, int]]:
    """What a graph of the official export says.

    Args:
        path: of the graph.
        image: uint8 RGB [h, w, 3]. The graph pads it to its crop, below and at the right.

    Returns:
        (labels [h, w], crop as (height, width)).

    Raises:
        ValueError: it isn't such a graph, or it doesn't take this picture.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(parse(path), name="")
        names = {operation.name for operation in graph.get_operations()}
        if not {_IMAGE, _LABELS} <= names:
            raise ValueError(f"it has no {_IMAGE} and {_LABELS}")
        fetches = [f"{_LABELS}:0", _network_input(graph)]
        try:
            with tf.compat.v1.Session(graph=graph) as session:
                labels, pixels = session.run(fetches, {f"{_IMAGE}:0": image[None]})
        except tf.errors.OpError as error:
            raise ValueError(f"it can't be run: {error.message.splitlines()[0]}") from None
    return labels[0], (pixels.shape[1], pixels.shape[2])


def _network_input(graph) -> Any:
    """The tensor that the first convolution sees, before any padding of its own."""
    first = next((op for op in graph.get_operations() if op.type == "Conv2D"), None)
    if first is None:
        raise ValueError("it has no convolution")
    tensor = first.inputs[0]
    while tensor.op.type in _PASS_THROUGH:
        tensor = tensor.op.inputs[0]
    return tensor
