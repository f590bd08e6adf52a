"""What a .tflite file holds: operators, inputs, outputs. Reads it without TensorFlow."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from deeplab_tf.errors import InputError

_IDENTIFIER = b"TFL3"
_OPERATOR_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}
_TYPE_NAMES = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of the file.

    Attributes:
        name: as stored, not as in the signature.
        shape: all sides; -1 where open.
        dtype: "uint8", "float32", …
        scale, zero_point: value = scale * (stored - zero_point); 0 for float tensors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class LiteFile:
    """Facts of a .tflite file.

    Attributes:
        size: in bytes.
        operators: name -> how often.
        custom: names among them that aren't builtin.
        inputs, outputs: in the file's order.
    """

    size: int
    operators: dict[str, int]
    custom: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_lite_file(path: str | os.PathLike) -> LiteFile:
    """Reads the facts of a .tflite file.

    Raises:
        InputError: the file is missing or isn't one.
    """
    path = Path(path)
    content = read_model_bytes(path)
    try:
        model = schema.Model.GetRootAsModel(content, 0)
        graph = model.Subgraphs(0)
        operators, custom = _operators(model, graph)
        return LiteFile(
            size=len(content),
            operators=operators,
            custom=custom,
            inputs=tuple(_tensor(graph, graph.Inputs(i)) for i in range(graph.InputsLength())),
            outputs=tuple(_tensor(graph, graph.Outputs(i)) for i in range(graph.OutputsLength())),
        )
    except Exception:  # the reader follows offsets blindly and may fail anywhere
        raise not_a_lite_file(path, "it is damaged or cut short") from None


def read_model_bytes(path: str | os.PathLike) -> bytes:
    """The content of a .tflite file, its identifier checked."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a .tflite file.") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change that, or copy it.") from None
    if content[4:8] != _IDENTIFIER:
        raise not_a_lite_file(path, "it doesn't begin like one")
    return content


def not_a_lite_file(path: str | os.PathLike, reason: str) -> InputError:
    return InputError(f"{path} isn't a TFLite model: {reason}. Export or download it again.")


def _operators(model, graph) -> tuple[dict[str, int], tuple[str, ...]]:
    names, custom = [], set()
    for i in range(graph.OperatorsLength()):
        code = model.OperatorCodes(graph.Operators(i).OpcodeIndex())
        # Codes up to 127 stand in the old one-byte field, later ones in the new field only.
        name = _OPERATOR_NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM":
            name = code.CustomCode().decode()
            custom.add(name)
        names.append(name)
    return dict(Counter(names).most_common()), tuple(sorted(custom))


def _tensor(graph, index: int) -> Tensor:
    tensor = graph.Tensors(index)
    quantization = tensor.Quantization()
    quantized = quantization is not None and quantization.ScaleLength() == 1
    shape = tensor.ShapeSignature if tensor.ShapeSignatureLength() else tensor.Shape
    return Tensor(
        name=tensor.Name().decode(),
        shape=tuple(int(shape(i)) for i in range(tensor.ShapeLength())),
        dtype=_TYPE_NAMES[tensor.Type()],
        scale=float(quantization.Scale(0)) if quantized else 0.0,
        zero_point=int(quantization.ZeroPoint(0)) if quantized else 0,
    )
