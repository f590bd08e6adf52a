"""What a panoptic .tflite file leaves to its helper: maps brought to the input's size, ties undone.

Our files give their maps at the decoders' stride, corner on corner with the picture as all resizes
of these models are. NumPy and Pillow only.
"""

import numpy as np
from PIL import Image

from deeplab_tf import keys

# More values than 8 bits have: not quantised, or so finely that equal neighbours are rare.
_FEWEST_LEVELS, _MOST_LEVELS = 2, 256
# Cells to each side that say which of equal cells is the centre, and how much a neighbour says:
# a Gaussian as wide as that of the targets, 8 pixels, is at stride 4.
_REACH, _SIGMA = 6, 2.0
# A little more weight to one side: cells of a symmetric plateau differ too.
_TILT = 0.02


def enlarge(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corner on corner: float32 [h, w, C] -> [*size, C], no smaller than that."""
    if values.shape[:2] == size:
        return values
    (top, bottom), (left, right) = (
        _span(small, large) for small, large in zip(values.shape[:2], size, strict=True)
    )
    result = np.empty((values.shape[2], *size), np.float32)
    for index, plane in enumerate(result):
        image = Image.fromarray(np.ascontiguousarray(values[..., index], np.float32))
        box = (left, top, right, bottom)
        plane[...] = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box))
    return np.moveaxis(result, 0, -1)


def _span(small: int, large: int) -> tuple[float, float]:
    """The part of `small` cells that Pillow shall read for `large` ones.

    It reads at the middle of each cell's share, which for the first shall be the middle of the
    first.
    """
    step = (small - 1) / max(large - 1, 1)
    return 0.5 - step / 2, 0.5 - step / 2 + step * large


def enlarge_offsets(offsets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`enlarge` for offsets (y, x) in pixels of their map: they become pixels of the new one."""
    factors = [
        (large - 1) / max(small - 1, 1)
        for small, large in zip(offsets.shape[:2], size, strict=True)
    ]
    return enlarge(offsets, size) * np.array(factors, np.float32)


def enlarge_probabilities(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`enlarge` for the softmax of logits, as if the logits had been enlarged before it.

    Their logarithms are the logits but for a number that all classes of a cell share. What is
    rounded to zero is taken for half of the least that isn't.
    """
    if probabilities.shape[:2] == size:
        return probabilities
    least = probabilities.min(where=probabilities > 0, initial=1.0)
    floor = max(least / 2, np.finfo(np.float32).tiny)
    result = enlarge(np.log(np.maximum(probabilities, floor)), size)
    planes = np.moveaxis(result, -1, 0)
    planes -= planes.max(axis=0)
    np.exp(planes, out=planes)
    planes /= planes.sum(axis=0)
    return result


def input_sized(maps: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The three maps of a picture [h, w, C] at the size of a file's input."""
    return {
        keys.PROBABILITIES: enlarge_probabilities(maps[keys.PROBABILITIES], size),
        keys.CENTER_HEATMAP: enlarge(without_ties(maps[keys.CENTER_HEATMAP]), size),
        keys.OFFSET_MAP: enlarge_offsets(maps[keys.OFFSET_MAP], size),
    }


def without_ties(heatmap: np.ndarray) -> np.ndarray:
    """A quantised heatmap [h, w, 1] without plateaus; any other comes back as it is.

    Each cell that equals the highest in its neighbourhood is a centre. In 8 bits the cells around
    a peak are often equal, and an instance would fall into as many parts. The true values are
    known up to half a step of quantisation, so that much is added or taken: by the mean around the
    cell, so that the cell in the middle of the warm spot is the highest. Cells a step apart stay
    in their order.
    """
    levels = np.unique(heatmap)
    if not _FEWEST_LEVELS <= len(levels) <= _MOST_LEVELS:
        return heatmap
    mean = heatmap[..., 0].astype(np.float64)
    for axis in (0, 1):
        mean = _blur(mean, axis)
    mean -= mean.min()
    share = mean / max(mean.max(), 1e-9) - 0.5
    step = float(np.diff(levels).min())
    return (heatmap + (0.98 * step * share)[..., None]).astype(np.float32)


def _blur(values: np.ndarray, axis: int) -> np.ndarray:
    """The weighted mean along an axis of [h, w], the edge repeated."""
    places = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-0.5 * (places / _SIGMA) ** 2) * (1 + _TILT * places)
    padding = [(0, 0), (0, 0)]
    padding[axis] = (_REACH, _REACH)
    padded = np.pad(values, padding, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=axis)
    blurred: np.ndarray = windows @ (weights / weights.sum())
    return blurred
