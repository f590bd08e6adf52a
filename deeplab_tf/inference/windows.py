"""Sliding windows: large pictures at their own resolution, in memory that doesn't grow with them.

NumPy and Pillow only.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import (
    PAD_PIXEL,
    PixelScores,
    Prepared,
    Runner,
    ScoreMap,
    background_class,
    contrast,
    label_dtype,
    with_all_classes,
    without_padding,
)

# Share of a window that the next one covers too.
OVERLAP = 0.25


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where the windows along a side begin; they overlap by at least that share.

    Spread evenly: were only the last one moved inwards, it might repeat nearly all of the one
    before. A side that is shorter than the window has one, at 0.
    """
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    gaps = -(-(length - window) // step)
    return [i * (length - window) // gaps for i in range(gaps + 1)]


def blend_weights(length: int, window: int, starts: Sequence[int]) -> list[np.ndarray]:
    """What each window counts along a side: float32 [min(window, length)], positive.

    The weights of a pixel add up to one. They fall linearly from a window's middle to its edges,
    where it sees least of the surroundings and pads the rest: neighbours fade into each other
    without a seam, and a plain mean would draw one where a window ends.
    """
    window = min(window, length)
    rising = np.arange(1.0, window + 1)
    tent = np.minimum(rising, rising[::-1])
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += tent
    return [(tent / total[start : start + window]).astype(np.float32) for start in starts]


def blend(
    image: np.ndarray,
    window: tuple[int, int],
    overlap: float,
    forward: Callable[[np.ndarray], np.ndarray],
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Runs windows over a picture and gives every pixel's mean once, as soon as it is known.

    What is held is one window and the rows that two rows of windows share, along the picture's
    shorter side: [overlap * h, min(H, W), C]. Never [H, W, C].

    Args:
        image: [H, W, 3].
        window: (height, width); no larger than the picture is taken of it.
        overlap: share of a window that its neighbour covers too.
        forward: a part of the picture [h, w, 3] -> float32 [h, w, C].

    Yields:
        (rows, columns, float32 [rows, columns, C]); the array is used again for the next. C grows
        where the model's does: see `with_all_classes`.
    """
    if image.shape[1] > image.shape[0]:
        upright = blend(
            image.swapaxes(0, 1),
            (window[1], window[0]),
            overlap,
            lambda part: forward(part.swapaxes(0, 1)).swapaxes(0, 1),
        )
        for rows, columns, values in upright:
            yield columns, rows, values.swapaxes(0, 1)
        return
    height, width = image.shape[:2]
    tops = window_starts(height, window[0], overlap)
    lefts = window_starts(width, window[1], overlap)
    row_weights = blend_weights(height, window[0], tops)
    column_weights = blend_weights(width, window[1], lefts)
    h, w = len(row_weights[0]), len(column_weights[0])
    most_shared = max(
        (top + h - lower for top, lower in zip(tops, tops[1:], strict=False)), default=0
    )
    shared = sums = None
    above = 0  # rows at the top of this row of windows to which the one above gave its part
    for top, lower, by_row in zip(tops, [*tops[1:], height], row_weights, strict=True):
        done = lower - top
        for left, right, by_column in zip(lefts, [*lefts[1:], width], column_weights, strict=True):
            values = forward(image[top : top + h, left : left + w])
            if sums is None or shared is None:
                sums = np.zeros((h, w, values.shape[-1]), np.float32)
                shared = np.zeros((most_shared, width, values.shape[-1]), np.float32)
            if values.shape[-1] != sums.shape[-1]:
                values, sums, shared = with_all_classes([values, sums, shared])
            for row in range(h):  # at once the product would take a window more
                sums[row] += values[row] * (by_row[row] * by_column)[:, None]
            ready, columns = right - left, slice(left, right)
            sums[:above, :ready] += shared[:above, columns]
            shared[: h - done, columns] = sums[done:, :ready]
            yield slice(top, lower), columns, sums[:done, :ready]
            sums[:, : w - ready] = sums[:, ready:]
            sums[:, w - ready :] = 0
        above = h - done


class WindowScores(PixelScores):
    """Labels of a picture that was seen through windows.

    Its probabilities were decided strip by strip and are gone. Kept are a label and the opacity
    of all but the background, a byte each for a pixel. Anything else runs the windows again.

    Args:
        image: uint8 [H, W, 3].
        blocks: runs the windows once over the picture: see `blend`.
        background: the class that isn't cut out by default.
    """

    def __init__(
        self,
        image: np.ndarray,
        blocks: Callable[[], Iterator[tuple[slice, slice, np.ndarray]]],
        background: int | None,
    ):
        self.size = (image.shape[0], image.shape[1])
        self._blocks, self._background = blocks, background
        self._opacity = None if background is None else np.empty(self.size, np.uint8)
        self._labels: np.ndarray = np.empty(self.size, np.uint8)
        self._count = 0
        for rows, columns, values in blocks():
            self._count = max(self._count, values.shape[-1])
            self._labels = self._labels.astype(label_dtype(self._count), copy=False)
            self._labels[rows, columns] = values.argmax(-1)
            if self._opacity is not None:
                self._opacity[rows, columns] = _in_bytes(1 - values[..., background])

    @property
    def num_classes(self) -> int:
        return self._count

    def labels(self) -> np.ndarray:
        return self._labels

    def probabilities(self) -> np.ndarray:
        result = np.zeros((*self.size, self._count), np.float32)
        for rows, columns, values in self._blocks():
            result[rows, columns, : values.shape[-1]] = values
        return result

    def alpha(self, classes: Sequence[int]) -> np.ndarray:
        return self.opacity(classes).astype(np.float32) / 255

    def opacity(self, classes: Sequence[int]) -> np.ndarray:
        wanted = {*classes}
        if self._opacity is not None and wanted == {*range(self._count)} - {self._background}:
            return self._opacity
        result = np.empty(self.size, np.uint8)
        for rows, columns, values in self._blocks():
            known = [index for index in sorted(wanted) if index < values.shape[-1]]
            result[rows, columns] = _in_bytes(values[..., known].sum(-1))
        return result


def _in_bytes(probability: np.ndarray) -> np.ndarray:
    return np.rint(contrast(probability) * 255).astype(np.uint8)


class WindowRunner(Runner):
    """Another runner that sees the picture at its own resolution, through a window.

    What it holds beside the picture and its labels doesn't grow with their area. Measured by
    benchmarks/sliding_window.py on 10000x10000 pixels, 21 classes, windows of 513x513: 0.7 GB
    beyond the model at the peak, 0.3 GB of it the picture; 0.6 to 1.3 GB while results are saved.
    With 151 classes it was about 1.8 GB; a smaller overlap or window takes less.

    Args:
        runner: takes the windows.
        window: (height, width) in pixels of the picture.
        overlap: share of a window that the next one covers too, at least; from 0 to below 1.

    Attributes:
        on_window: called with (windows done, windows in all) after each, if it isn't None.

    Raises:
        InputError: no such window or overlap, or the model takes another size only.
    """

    def __init__(self, runner: Runner, window: tuple[int, int], overlap: float = OVERLAP):
        self._runner, self.window, self.overlap = runner, _checked_window(window), overlap
        if isinstance(overlap, str) or not 0 <= overlap < 1:
            raise InputError(f"overlap is a share of the window, 0 to below 1; got {overlap}.")
        only = runner.only_size
        if only not in (None, self.window):
            raise InputError(
                f"{runner.name} takes {only[0]}x{only[1]} pixels only: give window=({only[0]}, "
                f"{only[1]}), on the command line --window {only[0]}x{only[1]}."
            )
        self.name = f"{runner.name}, windows of {self.window[0]}x{self.window[1]}"
        self.info, self.size, self.max_pixels = runner.info, runner.size, runner.max_pixels
        self.on_window: Callable[[int, int], None] | None = None

    @property
    def only_size(self) -> tuple[int, int] | None:
        return self._runner.only_size

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return self._runner.forward(batch)

    def batch_scores(self, images: Sequence[np.ndarray]) -> list[PixelScores]:
        return [self._scores(image) for image in images]

    def _scores(self, image: np.ndarray) -> WindowScores:
        def blocks():
            return blend(image, self.window, self.overlap, self._counted(image.shape[:2]))

        return WindowScores(image, blocks, background_class(self.info))

    def _counted(self, size: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
        """`_part`, reported to `on_window`."""
        starts = [
            window_starts(*sides, self.overlap) for sides in zip(size, self.window, strict=True)
        ]
        done, total = 0, len(starts[0]) * len(starts[1])

        def part(pixels: np.ndarray) -> np.ndarray:
            nonlocal done
            values = self._part(pixels)
            done += 1
            if self.on_window is not None:
                self.on_window(done, total)
            return values

        return part

    def _part(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities of a window: uint8 [h, w, 3] -> float32 [h, w, C]."""
        size = (pixels.shape[0], pixels.shape[1])
        if self.only_size is not None and size != self.window:
            canvas = np.full((*self.window, 3), PAD_PIXEL, np.uint8)
            canvas[: size[0], : size[1]] = pixels
            pixels = canvas
        output = self._runner.forward(np.ascontiguousarray(pixels)[None])[0]
        return ScoreMap(without_padding(output, Prepared(pixels, size)), size).probabilities()


def _checked_window(window: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(window) if isinstance(window, Sequence) else (window, window)
    whole = all(isinstance(side, int | np.integer) for side in sides)
    if isinstance(window, str) or len(sides) != 2 or not whole or min(sides) < 1:
        raise InputError(f"window is (height, width), whole numbers from 1 on; got {window!r}.")
    return int(sides[0]), int(sides[1])
