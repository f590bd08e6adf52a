"""Running and timing what was exported. Reads .tflite files without TensorFlow."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.export.lite_file import not_a_lite_file, read_lite_file, read_model_bytes
from deeplab_tf.export.quiet import quiet
from deeplab_tf.inference.intact import check_intact
from deeplab_tf.inference.litert import PANOPTIC_MAPS, LiteRTRunner, output_names
from deeplab_tf.inference.panoptic import HeadScoreMap, center_settings

# That a merge is timed with.
_INSTANCES = 16


class LiteModel:
    """A .tflite file ready to run with LiteRT and XNNPACK.

    Attributes:
        size: (height, width) of its input.
        input_name, output_name: as in the file's signature; of a panoptic file's outputs that of
            the probabilities.
        output_names: of all outputs, in their order.
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
        names = output_names(self._interpreter)
        self.output_names = tuple(names.get(o["index"], o["name"]) for o in outputs)
        known = len(outputs) == 1 or {*self.output_names} == {*PANOPTIC_MAPS}
        if len(inputs) != 1 or not known or len(inputs[0]["shape"]) != 4:
            raise InputError(
                f"{path} isn't a segmenter: it needs one picture in and one map out, or the maps "
                "of a panoptic model."
            )
        self._input = inputs[0]
        place = self.output_names.index(keys.PROBABILITIES) if self.is_panoptic else 0
        self._output, self.output_name = outputs[place], self.output_names[place]
        self.size = (int(self._input["shape"][1]), int(self._input["shape"][2]))
        signature: dict = next(iter(self._interpreter.get_signature_list().values()), {})
        self.input_name = next(iter(signature.get("inputs", ())), self._input["name"])
        self.partitions = self._count_partitions()

    @property
    def is_panoptic(self) -> bool:
        """Whether it gives the three maps of a panoptic model."""
        return len(self.output_names) > 1

    def run(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> float32 [h, w, classes], or integer labels [h, w].

        Of a panoptic file the probabilities alone; `LiteRTRunner` gives all.
        """
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


def merge_latency(path: str | os.PathLike, *, seconds: float = 1.0) -> float | None:
    """Median milliseconds that merging takes beside the network of a panoptic file.

    It is for `_INSTANCES` drawn instances, at the input's size: what a network gives for noise is
    no measure. Enlarging the maps is in it. None if the file's record doesn't say how to merge.
    """
    runner = LiteRTRunner(path)
    if runner.info.label_divisor is None:
        return None
    settings = center_settings(runner.info)
    drawn = _drawn_maps(runner.map_shape, settings.thing_classes[0])

    def merge() -> None:
        maps = runner.at_input_size(drawn)
        heatmap, offsets = maps[keys.CENTER_HEATMAP][..., 0], maps[keys.OFFSET_MAP]
        scores = HeadScoreMap(maps[keys.PROBABILITIES], runner.size, settings, heatmap, offsets)
        assert scores.merged

    return round(median_ms(merge, seconds=seconds), 3)


def _drawn_maps(shape: tuple[int, int, int], thing: int) -> dict[str, np.ndarray]:
    """Maps [h, w, C] of `_INSTANCES` discs in rows, of a class, on another class."""
    height, width, classes = shape
    rows = round(_INSTANCES**0.5)
    cells = np.array([height, width]) / rows
    places = np.moveaxis(np.mgrid[0:height, 0:width], 0, -1).astype(np.float32)
    centers = np.floor((np.floor(places / cells) + 0.5) * cells).astype(np.float32)
    offsets = centers - places
    distance = np.square(offsets / cells.astype(np.float32)).sum(-1)
    other = next((index for index in range(classes) if index != thing), 0)
    labels = np.where(distance < 0.1, thing, other)
    return {
        keys.PROBABILITIES: np.eye(classes, dtype=np.float32)[labels],
        keys.CENTER_HEATMAP: np.exp(-20 * distance)[..., None],
        keys.OFFSET_MAP: offsets,
    }


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
    result = {
        "size": list(model.size),
        "bytes": facts.size,
        "operators": facts.operators,
        "builtin_only": not facts.custom,
        "partitions": model.partitions,
        "latency_ms": lite_latency(path, threads=threads, seconds=seconds),
    }
    if model.is_panoptic:
        result["merge_ms"] = merge_latency(path, seconds=seconds)
    return result
