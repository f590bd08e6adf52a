"""The official float TFLite models: batch norm folded into kernels and biases."""

import os
from pathlib import Path

import keras
import numpy as np
from keras import layers

from deeplab_tf.errors import InputError
from deeplab_tf.layers.normalization import BatchNorm

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_KERNEL_ENDINGS = ("/weights", "/depthwise_weights")


def read_tflite(path: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scope -> (kernel in TF layout, bias) of every convolution of a float TFLite file.

    Raises:
        InputError: no TFLite file, a quantised one, or one without the official names.
    """
    from ai_edge_litert import schema_py_generated as schema

    path = Path(path)
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise InputError(f"{path} isn't a TFLite file.")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
        graph = model.subgraphs[0]
        codes = {value: name for name, value in vars(schema.BuiltinOperator).items()}
        found = {}
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode))
            if name not in _CONVOLUTIONS:
                continue
            kernel, bias = (_tensor(model, graph, schema, path, i) for i in operator.inputs[1:3])
            title = graph.tensors[operator.inputs[1]].name.decode()
            found[_scope(title)] = (kernel.transpose(1, 2, 3, 0), bias)
    except (IndexError, TypeError, AttributeError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: a damaged TFLite file ({error!r}).") from None
    if not any(scope == "logits/semantic" for scope in found):
        raise InputError(f"{path}: its tensors don't have the names of the official DeepLab files.")
    return found


def _scope(title: str) -> str:
    """`MobilenetV2/Conv/weights` -> `MobilenetV2/Conv`; converters append a reader or a suffix."""
    for ending in _KERNEL_ENDINGS:
        if ending in title:
            return title[: title.index(ending)]
    return title


def _tensor(model, graph, schema, path: Path, index: int) -> np.ndarray:
    tensor = graph.tensors[index]
    if tensor.type != schema.TensorType.FLOAT32:
        raise InputError(
            f"{path} is quantised ({tensor.name.decode()}); only float files give weights back."
        )
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
    return values.reshape(tensor.shape)


def unfold(
    convolutions: dict[str, tuple[np.ndarray, np.ndarray]], model: keras.Model
) -> dict[str, np.ndarray]:
    """TF1 name -> array, with a batch norm behind each kernel that the model wants one for.

    gamma = sqrt(1 + epsilon), beta = the folded bias, mean 0, variance 1: the batch norm then
    changes nothing but the bias.
    """
    by_name = {layer.name: layer for layer in model.layers}
    arrays = {}
    for scope, (kernel, bias) in convolutions.items():
        layer = by_name.get(scope.replace("/", "."))
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        kernel = _without_holes(kernel, layer)
        arrays[f"{scope}/{'depthwise_weights' if depthwise else 'weights'}"] = kernel
        norm = by_name.get(f"{scope.replace('/', '.')}.BatchNorm")
        if not isinstance(norm, BatchNorm):
            arrays[f"{scope}/biases"] = bias
            continue
        arrays[f"{scope}/BatchNorm/gamma"] = np.full_like(bias, np.sqrt(1.0 + norm.epsilon))
        arrays[f"{scope}/BatchNorm/beta"] = bias
        arrays[f"{scope}/BatchNorm/moving_mean"] = np.zeros_like(bias)
        arrays[f"{scope}/BatchNorm/moving_variance"] = np.ones_like(bias)
    return arrays


def _without_holes(kernel: np.ndarray, layer) -> np.ndarray:
    """Some converters write a rate into the kernel, as zeros between its values: takes them out."""
    rate = getattr(layer, "dilation_rate", (1, 1))[0]
    size = getattr(layer, "kernel_size", kernel.shape[:2])[0]
    if kernel.shape[0] != (size - 1) * rate + 1 or rate == 1:
        return kernel
    values = kernel[::rate, ::rate]
    return values if np.count_nonzero(values) == np.count_nonzero(kernel) else kernel
