"""Runs .tflite files with LiteRT: no TensorFlow, no Keras, an answer within a second."""

import contextlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner, softmax, with_all_classes
from deeplab_tf.inference.intact import INFO_FILE, check_intact
from deeplab_tf.inference.lite_maps import input_sized
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import voc_colors

_IDENTIFIER = b"TFL3"
_METADATA = b"TFLITE_METADATA"
# Outputs of a panoptic file.
PANOPTIC_MAPS = (keys.PROBABILITIES, keys.CENTER_HEATMAP, keys.OFFSET_MAP)


class LiteRTRunner(Runner):
    """A .tflite file.

    Ours take raw uint8 pixels, and give probabilities; of a panoptic model all three maps, which
    are merged here. Files of others work too, if they take one picture and give one map of scores
    or labels. Where float pixels go in, the file's metadata say how they are normalised; without
    metadata, -1..1 as in the models that TensorFlow publishes.

    Args:
        path: the file.
        threads: to run on; None takes the cores, at most four.
        pixels: (lowest, highest) value of float pixels, instead of the above.

    Attributes:
        pixels: in effect; None for integer pixels.

    Raises:
        InputError: the file is missing, damaged or no TFLite segmenter, or LiteRT isn't installed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        threads: int | None = None,
        pixels: tuple[float, float] | None = None,
    ):
        self.name = str(path)
        content = _read(Path(path))
        check_intact(content, self.name)
        self._interpreter = _open(content, self.name, threads or min(4, os.cpu_count() or 1))
        self._input = self._choose_input(self._interpreter.get_input_details())
        self._outputs = self._choose_outputs()
        height, width = (int(side) for side in self._input["shape"][1:3])
        self.size: tuple[int, int] = (height, width)
        files = _files_behind(content)
        self.info = _info(files, self.size, self.name)
        self.pixels = None
        if self._input["dtype"] == np.float32:
            own = (0.0, 255.0) if INFO_FILE in files else None
            self.pixels = pixels or own or _normalization(content) or (-1.0, 1.0)

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(h, w, classes) of the probabilities as the file gives them."""
        height, width, classes = self._outputs[keys.PROBABILITIES]["shape"][1:]
        return int(height), int(width), int(classes)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        found = [self._one(image) for image in batch]
        result = {name: [maps[name] for maps in found] for name in found[0]}
        result[keys.PROBABILITIES] = with_all_classes(result[keys.PROBABILITIES])
        return {name: np.stack(values) for name, values in result.items()}

    def _one(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [h, w, 3] -> float32 [h', w', ...] by name; "probabilities" are among them."""
        self._interpreter.set_tensor(self._input["index"], self._as_input(image)[None])
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise _cannot_run(self.name, error) from None
        found = {
            name: self._interpreter.get_tensor(details["index"])[0]
            for name, details in self._outputs.items()
        }
        if keys.CENTER_HEATMAP not in found:
            return {keys.PROBABILITIES: self._as_probabilities(found[keys.PROBABILITIES])}
        return self.at_input_size({name: self._as_floats(name, x) for name, x in found.items()})

    def at_input_size(self, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a panoptic file gives of a picture, ready to be merged: see `input_sized`."""
        # Of 8 bits each, probabilities add up to one but roughly.
        sums = maps[keys.PROBABILITIES].sum(axis=-1, keepdims=True)
        maps = {**maps, keys.PROBABILITIES: maps[keys.PROBABILITIES] / np.maximum(sums, 1e-6)}
        maps = input_sized(maps, self.size)
        if self.info.label_divisor is None:  # nothing says how to merge them
            return {keys.PROBABILITIES: maps[keys.PROBABILITIES]}
        return maps

    def _as_input(self, image: np.ndarray) -> np.ndarray:
        if self.pixels is not None:
            low, high = self.pixels
            return (image * np.float32((high - low) / 255) + np.float32(low)).astype(np.float32)
        if self._input["dtype"] == np.int8:
            return (image.astype(np.int16) - 128).astype(np.int8)
        return image.astype(self._input["dtype"])

    def _as_floats(self, name: str, output: np.ndarray) -> np.ndarray:
        scale, zero_point = self._outputs[name]["quantization"]
        values: np.ndarray = output.astype(np.float32)
        return (values - zero_point) * np.float32(scale) if scale else values

    def _as_probabilities(self, output: np.ndarray) -> np.ndarray:
        scale, _ = self._outputs[keys.PROBABILITIES]["quantization"]
        if output.ndim == 3 and output.shape[-1] == 1 and not scale and output.dtype != np.float32:
            output = output[..., 0]
        if output.ndim == 2:  # an argmax inside: certain everywhere
            known = max(len(self.info.classes), int(output.max(initial=0)) + 1, 2)
            return np.eye(known, dtype=np.float32)[output.astype(np.int64)]
        scores = self._as_floats(keys.PROBABILITIES, output)
        if scores.shape[-1] == 1:  # one map: of the foreground
            if scores.min() < -0.01 or scores.max() > 1.01:
                scores = 1 / (1 + np.exp(-scores))
            return np.concatenate([1 - scores, scores], axis=-1)
        # Each of C values is off by up to half a step where they are quantised.
        tolerance = 0.01 + scores.shape[-1] * scale / 2
        sums = scores.sum(-1)
        if scores.min() >= -tolerance and np.abs(sums - 1).max() <= tolerance:
            return scores / np.maximum(sums, 1e-6)[..., None]
        return softmax(scores)

    def _choose_input(self, details: list[dict]) -> dict:
        shapes = [[*map(int, entry["shape_signature"])] for entry in details]
        if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3 or shapes[0][0] > 1:
            raise InputError(f"{self.name} takes {shapes}, not one RGB picture [1, h, w, 3].")
        if -1 in shapes[0][1:3]:
            raise InputError(f"{self.name} has no fixed size; export it again with --size.")
        return details[0]

    def _choose_outputs(self) -> dict[str, dict]:
        """The three maps of a panoptic file by name, else the first map as "probabilities"."""
        details = self._interpreter.get_output_details()
        named = output_names(self._interpreter)
        found = {named[o["index"]]: o for o in details if o["index"] in named}
        if {*PANOPTIC_MAPS} <= {*found}:
            return {name: found[name] for name in PANOPTIC_MAPS}
        for output in details:
            if len(output["shape"]) in (3, 4) and min(output["shape"][1:3]) > 1:
                return {keys.PROBABILITIES: output}
        shapes = [[*map(int, output["shape"])] for output in details]
        raise InputError(
            f"{self.name} isn't a segmenter: it gives {shapes}, no map [1, h, w, classes]."
        )


def output_names(interpreter) -> dict[int, str]:
    """Tensor index -> name, of the outputs that the file's signature names."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        return {}
    outputs = interpreter.get_signature_runner(next(iter(signatures))).get_output_details()
    return {int(details["index"]): name for name, details in outputs.items()}


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a .tflite file.") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change that, or copy it.") from None
    if content[4:8] != _IDENTIFIER:
        raise InputError(
            f"{path} isn't a TFLite model, whatever its name says; write one with: "
            "deeplab-tf export --model MODEL --out FILE.tflite"
        )
    return content


def _open(content: bytes, name: str, threads: int):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise InputError(
            f"{name}: running a .tflite file needs LiteRT: pip install ai-edge-litert"
        ) from None
    try:
        with quiet_stderr():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise _cannot_run(name, error) from None
    return interpreter


def _cannot_run(name: str, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or ["unknown reason"])[0]
    return InputError(
        f"{name} can't be run ({reason}); it is damaged or has operators that LiteRT doesn't know. "
        "Copy or export it again."
    )


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what native code prints past `sys.stderr` while it is loaded."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _files_behind(content: bytes) -> dict[str, str]:
    """Text files in the zip archive that may follow a model: name -> text."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if name.endswith((".txt", ".json"))]
            return {name: archive.read(name).decode("utf-8", "replace") for name in names}
    except Exception:  # most files have none, and a broken one is no reason not to run the model
        return {}


def _info(files: dict[str, str], size: tuple[int, int], name: str) -> ModelInfo:
    """The record of the model: ours if the file has it, else its labels."""
    if INFO_FILE in files:
        try:
            return ModelInfo.from_json(json.loads(files[INFO_FILE]))
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{name}: its record {INFO_FILE} can't be read ({error}); export it again."
            ) from None
    texts = [text for file, text in sorted(files.items()) if file.endswith(".txt")]
    labels = tuple(line.strip() for line in texts[0].splitlines()) if texts else ()
    return ModelInfo(labels, voc_colors(len(labels)), image_size=size, resize="stretch")


def _normalization(content: bytes) -> tuple[float, float] | None:
    """(lowest, highest) float pixel by the file's metadata: pixel 0..255 -> (pixel - mean) / std.

    Walks the published schema by the positions of its fields: ModelMetadata.subgraph_metadata[0]
    .input_tensor_metadata[0].process_units[i].options, a NormalizationOptions.
    """
    if _METADATA not in content:
        return None
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import encode, number_types, table

    def field(place, slot):
        offset = place.Offset(4 + 2 * slot)
        return offset and place.Pos + offset

    def items(place, slot):
        at = field(place, slot)
        if not at:
            return []
        start = place.Vector(at - place.Pos)
        return [start + 4 * i for i in range(place.VectorLen(at - place.Pos))]

    def tables(place, slot):
        return [table.Table(place.Bytes, place.Indirect(at)) for at in items(place, slot)]

    try:
        model = schema.Model.GetRootAsModel(content, 0)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        index = next(entry.Buffer() for entry in entries if entry.Name() == _METADATA)
        data = model.Buffers(index).DataAsNumpy().tobytes()
        root = table.Table(data, encode.Get(number_types.UOffsetTFlags.packer_type, data, 0))
        for unit in tables(tables(tables(root, 3)[0], 2)[0], 4):
            kind, at = field(unit, 0), field(unit, 1)
            if kind and unit.Get(number_types.Uint8Flags, kind) == 1 and at:
                options = table.Table(data, unit.Indirect(at))
                mean, std = (
                    options.Get(number_types.Float32Flags, items(options, slot)[0])
                    for slot in (0, 1)
                )
                return (0 - mean) / std, (255 - mean) / std
    except Exception:  # offsets are followed blindly; metadata that can't be read say nothing
        return None
    return None
