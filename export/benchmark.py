"""Running and timing what was exported. Reads .tflite files without TensorFlow."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from deeplab_tf.errors import InputError
from deeplab_tf.export.lite_file import not_a_lite_file, read_lite_file, read_model_bytes
from deeplab_tf.export.quiet import quiet
from deeplab_tf.inference.intact import check_intact


class LiteModel:
    """A .tflite file ready to run with LiteRT and XNNPACK.

    Attributes:
        size: (height, width) of its input.
        input_name, output_name: as in the file's signature.
        partitions: parts of the graph that XNNPACK runs; 1 is best: nothing is handed back and
            forth.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1):
        check_intact(read_model_bytes(path), str(path))
        self._path = path
        reason: Exception | None = None
        with quiet() as printed:
            try:
                self._interpreter = Interpreter(str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                reason = error
        if reason is not None:
            said = (str(reason) or printed.text).strip().splitlines()
            raise not_a_lite_file(path, f"LiteRT can't load it ({said[0] if said else 'why?'})")
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]["shape"]) != 4:
            raise InputError(f"{path} isn't a segmenter: it needs one picture in and one map out.")
        self._input, self._output = inputs[0], outputs[0]
        self.size = (int(self._input["shape"][1]), int(self._input["shape"][2]))
        signature: dict = next(iter(self._interpreter.get_signature_list().values()), {})
        self.input_name = next(iter(signature.get("inputs", ())), self._input["name"])
        self.output_name = next(iter(signature.get("outputs", ())), self._output["name"])
        self.partitions = self._count_partitions()

    def run(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> float32 [h, w, classes], or integer labels [h, w]."""
        self.invoke(image)
        output = self._interpreter.get_tensor(self._output["index"])[0]
        if output.ndim == 2:
            return output
        scale, zero_point = self._output["quantization"]
        if scale:
            return (output.astype(np.float32) - zero_point) * np.float32(scale)
        return output.astype(np.float32)

    def invoke(self, image: np.ndarray) -> None:
        """Runs without fetching the output: what is timed."""
        pixels = image[None]
        if self._input["dtype"] == np.int8:
            pixels = pixels.astype(np.int16) - 128
        self._interpreter.set_tensor(
            self._input["index"], np.ascontiguousarray(pixels, self._input["dtype"])
        )
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise not_a_lite_file(self._path, f"LiteRT can't run it ({error})") from None

    def _count_partitions(self) -> int:
        # The public interface doesn't tell.
        details = self._interpreter._get_ops_details()
        return sum(operator["op_name"] == "DELEGATE" for operator in details)


def median_ms(call: Callable[[], object], *, seconds: float = 1.0, most: int = 100) -> float:
    """Median time of a call in milliseconds, after a warm-up.

    Args:
        call: what is timed.
        seconds: stop after so long, but not before five calls.
        most: stop after so many calls.
    """
    for _ in range(2):
        call()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < most and (len(times) < 5 or time.perf_counter() - start < seconds):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1000


def lite_latency(
    path: str | os.PathLike, *, threads: tuple[int, ...] = (1, 2), seconds: float = 1.0
) -> dict[str, float]:
    """Median milliseconds of a .tflite file by number of threads."""
    result = {}
    for count in threads:
        model = LiteModel(path, threads=count)
        image = noise(model.size)
        result[str(count)] = round(median_ms(lambda: model.invoke(image), seconds=seconds), 3)  # noqa: B023
    return result


def noise(size: tuple[int, int]) -> np.ndarray:
    """A picture to time with: uint8 [H, W, 3]. What it shows doesn't matter, that it varies may."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def folder_size(folder: str | os.PathLike) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def measure_lite_file(
    path: str | os.PathLike, *, threads: tuple[int, ...] = (1, 2), seconds: float = 1.0
) -> dict:
    """Size, operators and latency of a .tflite file, as JSON scalars and dictionaries."""
    model = LiteModel(path)
    facts = read_lite_file(path)
    return {
        "size": list(model.size),
        "bytes": facts.size,
        "operators": facts.operators,
        "builtin_only": not facts.custom,
        "partitions": model.partitions,
        "latency_ms": lite_latency(path, threads=threads, seconds=seconds),
    }
