"""The official float TFLite models: batch norm folded into kernels and biases."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from deeplab_tf.errors import InputError

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_KERNEL_ENDINGS = ("/weights", "/depthwise_weights")
IDENTIFIER = b"TFL3"


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of a TFLite file.

    Attributes:
        kernel: in TensorFlow's layout.
        bias: [filters].
        kernel_name, bias_name: of the tensors in the file.
    """

    kernel: np.ndarray
    bias: np.ndarray
    kernel_name: str
    bias_name: str


def read_tflite(path: str | os.PathLike) -> dict[str, Convolution]:
    """TF1 scope -> convolution of a float TFLite file.

    Raises:
        InputError: no TFLite file, a quantised one, or one without the official names.
    """
    data = Path(path).read_bytes()
    if data[4:8] != IDENTIFIER:
        raise InputError(f"{path} isn't a TFLite file, whatever its name says.")
    try:
        found = _convolutions(data, path)
    except InputError:
        raise
    except Exception:  # the reader follows offsets blindly and may fail anywhere
        raise InputError(f"{path}: a damaged or cut-off TFLite file; download it again.") from None
    if not any(scope.startswith("logits/semantic") for scope in found):
        raise InputError(
            f"{path}: its tensors aren't named as in the official DeepLab files, so its weights "
            "have no place. Use the checkpoint or preset folder that it was made from."
        )
    return found


def _convolutions(data: bytes, path: str | os.PathLike) -> dict[str, Convolution]:
    # Without TensorFlow: the runtime brings the schema.
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    found = {}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        # Codes up to 127 stand in the old one-byte field, later ones in the new field only.
        if names.get(max(code.builtinCode, code.deprecatedBuiltinCode)) not in _CONVOLUTIONS:
            continue
        kernel, bias = (graph.tensors[i] for i in operator.inputs[1:3])
        kernel_name, bias_name = kernel.name.decode(), bias.name.decode()
        values = [_values(tensor, model, schema, path) for tensor in (kernel, bias)]
        convolution = Convolution(
            values[0].transpose(1, 2, 3, 0), values[1], kernel_name, bias_name
        )
        found[_scope(kernel_name)] = convolution
    return found


def _scope(name: str) -> str:
    """`MobilenetV2/Conv/weights` -> `MobilenetV2/Conv`; some converters append to the name."""
    for ending in _KERNEL_ENDINGS:
        if ending in name:
            return name[: name.index(ending)]
    return name


def _values(tensor: Any, model: Any, schema: Any, path: str | os.PathLike) -> np.ndarray:
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None:
        raise InputError(
            f"{path} is quantised or compressed ({tensor.name.decode()} isn't stored as float32); "
            "only float files give their weights back."
        )
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)


def unfold(
    convolutions: dict[str, Convolution], model: keras.Model
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(TF1 name -> array, TF1 name -> where it comes from) for a model with batch norms.

    Where the model has a batch norm, gamma = sqrt(1 + epsilon), beta = the folded bias, mean 0
    and variance 1: it then adds the bias and changes nothing else.
    """
    by_name = {layer.name: layer for layer in model.layers}
    arrays, origins = {}, {}

    def put(name: str, array: np.ndarray, origin: str) -> None:
        arrays[name], origins[name] = array, origin

    for scope, convolution in convolutions.items():
        layer = by_name.get(scope.replace("/", "."))
        kernel, bias = _without_holes(convolution.kernel, layer), convolution.bias
        last = "depthwise_weights" if isinstance(layer, layers.DepthwiseConv2D) else "weights"
        put(f"{scope}/{last}", kernel, convolution.kernel_name)
        norm = by_name.get(f"{scope.replace('/', '.')}.BatchNorm")
        if norm is None:
            put(f"{scope}/biases", bias, convolution.bias_name)
            continue
        epsilon, scope = norm.epsilon, f"{scope}/BatchNorm"
        put(f"{scope}/gamma", np.full_like(bias, np.sqrt(1 + epsilon)), f"sqrt(1 + {epsilon:g})")
        put(f"{scope}/beta", bias, convolution.bias_name)
        put(f"{scope}/moving_mean", np.zeros_like(bias), "0")
        put(f"{scope}/moving_variance", np.ones_like(bias), "1")
    return arrays, origins


def _without_holes(kernel: np.ndarray, layer: Any) -> np.ndarray:
    """Takes out the zeros by which some converters write an atrous rate into the kernel."""
    rate = getattr(layer, "dilation_rate", (1, 1))[0]
    size = getattr(layer, "kernel_size", kernel.shape[:2])[0]
    if rate == 1 or kernel.shape[0] != (size - 1) * rate + 1:
        return kernel
    values = kernel[::rate, ::rate]
    return values if np.count_nonzero(values) == np.count_nonzero(kernel) else kernel


def run_tflite(path: str | os.PathLike, pixels: np.ndarray) -> np.ndarray:
    """What a TFLite file says about normalised pixels float32 [1, h, w, 3].

    Raises:
        ValueError: it doesn't take them, or can't be run here.
    """
    interpreter = _interpreter(path)
    entry, *others = interpreter.get_input_details()
    if others or entry["dtype"] != np.float32 or tuple(entry["shape"]) != pixels.shape:
        raise ValueError(f"its input isn't float32 {pixels.shape}")
    interpreter.set_tensor(entry["index"], pixels)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def input_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) that a TFLite file takes.

    Raises:
        ValueError: it can't be run here.
    """
    shape = _interpreter(path).get_input_details()[0]["shape"]
    return int(shape[1]), int(shape[2])


def _interpreter(path: str | os.PathLike) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        # Without delegates: they print, and change the last digits.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise ValueError(f"it can't be run: {str(error).splitlines()[0]}") from None
    return interpreter
