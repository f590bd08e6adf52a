"""The fully connected CRF that sharpens label maps in DeepLab v1 and v2.

Paper: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (https://arxiv.org/abs/1210.5644). Numbers are those of the authors' C++ code and of
its Python binding: kernels are filtered on the permutohedral lattice, an approximation, and a
pixel's message to itself stays in. They are the same on any number of threads.

`crf_layer` has it as a Keras layer, to train through.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess.crf_parameters import CRF_PRESETS as CRF_PRESETS
from deeplab_tf.postprocess.crf_parameters import CrfParameters, find_parameters
from deeplab_tf.postprocess.crf_unary import (
    unary_from_labels,
    unary_from_logits,
    unary_from_probabilities,
)
from deeplab_tf.postprocess.permutohedral import LANES, Lattice, free_memory, loops

_EMPTY, _EMPTY_IDS = np.empty(0, np.float32), np.empty(0, np.int32)
_EMPTY_SIZES = np.empty(0, np.int64)
# A kernel that adds nothing, see `lattice_loops.update`.
_NOTHING = (_EMPTY, _EMPTY_SIZES, _EMPTY_SIZES, _EMPTY_IDS, _EMPTY, 0, _EMPTY)


def dense_crf(
    image: np.ndarray,
    *,
    probabilities: np.ndarray | None = None,
    logits: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    num_classes: int | None = None,
    confidence: float = 0.9,
    ignore_label: int | None = 255,
    parameters: str | CrfParameters = "deeplab_v2_resnet_101",
    threads: int | None = None,
) -> np.ndarray:
    """Probabilities of a picture's pixels, sharpened: float32 [H, W, C].

    One of `probabilities`, `logits` and `labels` says what a network found. Compiling takes some
    seconds the first time, then it is on disk. A picture of 4000 x 3000 pixels and 21 classes
    takes 5 GB beside the picture and its probabilities.

    Args:
        image: RGB, uint8 [H, W, 3].
        probabilities: float [H, W, C], see `unary_from_probabilities`.
        logits: float [H, W, C], see `unary_from_logits`.
        labels: integers [H, W], see `unary_from_labels`.
        num_classes, confidence, ignore_label: of labels.
        parameters: a key of `CRF_PRESETS`, or a record.
        threads: at most so many; None takes the machine's.

    Raises:
        InputError: what is given doesn't fit together or lies outside its range, there is too
            little memory, or numba isn't installed.
    """
    kinds = {"probabilities": probabilities, "logits": logits, "labels": labels}
    given = {kind: value for kind, value in kinds.items() if value is not None}
    if len(given) != 1:
        raise InputError(f"Give one of {[*kinds]}; got {' and '.join(given) or 'none'}.")
    ((kind, found),) = given.items()
    shape = np.shape(found)
    classes = num_classes if kind == "labels" else shape[-1] if shape else 0
    if classes is None:
        raise InputError("labels need num_classes.")
    _check_same_size(np.shape(image), shape)
    if len(shape) >= 2:
        _check_memory((*shape[:2], classes))
    makers: dict[str, Callable] = {
        "probabilities": unary_from_probabilities,
        "logits": unary_from_logits,
        "labels": functools.partial(
            unary_from_labels,
            num_classes=classes,
            confidence=confidence,
            ignore_label=ignore_label,
        ),
    }
    return PictureCrf(image, parameters, threads=threads).infer(makers[kind](found))


class PictureCrf:
    """The CRF of one picture: its lattices are built once, for any unaries and kernel weights.

    Args:
        image: RGB, uint8 [H, W, 3].
        parameters: the name of a preset, or a record; here its widths count, and which weights
            are 0.
        threads: at most so many; None takes the machine's.

    Raises:
        InputError: another shape or dtype, a name or a number of threads that don't exist, widths
            too small for the picture; numba isn't installed.
    """

    def __init__(
        self,
        image: np.ndarray,
        parameters: str | CrfParameters = "deeplab_v2_resnet_101",
        *,
        threads: int | None = None,
    ):
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(
                f"image is RGB, uint8 [H, W, 3], 0..255; got {image.dtype} {image.shape}."
            )
        if threads is not None and threads < 1:
            raise InputError(f"threads is at least 1; got {threads}.")
        self.parameters = find_parameters(parameters)
        self.height, self.width = image.shape[:2]
        self.threads = threads or os.cpu_count() or 1
        makers: dict[str, Callable] = {}
        if self.parameters.w1:
            makers["bilateral"] = functools.partial(self._bilateral, image)
        if self.parameters.w2:
            makers["gaussian"] = self._gaussian
        with _Workers(self.threads) as workers:
            kernels = workers.run([*makers.values()])
        self._kernels: dict[str, _Kernel] = dict(zip(makers, kernels, strict=True))

    def _gaussian(self) -> "_Kernel":
        positions = self._positions(self.parameters.sigma_gamma)
        return _Kernel.of_features(positions.reshape(-1, 2), self.width)

    def _bilateral(self, image: np.ndarray) -> "_Kernel":
        features = np.empty((self.height, self.width, 5), np.float32)
        features[..., :2] = self._positions(self.parameters.sigma_alpha)
        np.divide(image, np.asarray(self.parameters.sigma_beta, np.float32), out=features[..., 2:])
        return _Kernel.of_features(features.reshape(-1, 5), self.width)

    def _positions(self, widths) -> np.ndarray:
        """float32 [H, W, 2]: x and y over their widths."""
        across, down = np.broadcast_to(np.asarray(widths, np.float32), 2)
        result = np.empty((self.height, self.width, 2), np.float32)
        result[..., 0] = np.arange(self.width, dtype=np.float32) / across
        result[..., 1] = (np.arange(self.height, dtype=np.float32) / down)[:, None]
        return result

    @property
    def vertices(self) -> dict[str, int]:
        """Of each kernel's lattice."""
        return {name: kernel.lattice.vertices for name, kernel in self._kernels.items()}

    def infer(self, unary: np.ndarray, parameters: CrfParameters | None = None) -> np.ndarray:
        """Mean field (Algorithm 1): float32 [H, W, C] -> float32 [H, W, C], Q.

        Args:
            unary: -log of probabilities, see `crf_unary`.
            parameters: other weights, iterations, normalisation and compatibility than those the
                lattices were built for; the widths must be the same.

        Raises:
            InputError: unaries of another picture or not finite, other widths, a compatibility
                of another number of classes, or too little memory.
        """
        parameters = parameters or self.parameters
        self._check_widths(parameters)
        unary = np.ascontiguousarray(unary, np.float32)
        _check_same_size((self.height, self.width), unary.shape)
        if unary.ndim != 3 or not np.isfinite([unary.min(), unary.max()]).all():
            raise InputError("unaries are finite, of shape [H, W, C]; got NaN or another shape.")
        costs = _costs(parameters.compatibility, unary.shape[2])
        inference = _MeanField(self._filters(parameters), unary, costs, self.threads)
        with _Workers(self.threads) as workers:
            inference.run(parameters.iterations, workers)
        return inference.q.reshape(unary.shape)

    def _check_widths(self, parameters: CrfParameters) -> None:
        built = self.parameters
        for kernel, weight, *widths in (
            ("bilateral", "w1", "sigma_alpha", "sigma_beta"),
            ("gaussian", "w2", "sigma_gamma"),
        ):
            if not getattr(parameters, weight):
                continue
            if kernel not in self._kernels:
                raise InputError(f"{weight} was 0 for this PictureCrf: make one for {parameters}.")
            for width in widths:
                if getattr(parameters, width) != getattr(built, width):
                    raise InputError(
                        f"{width} was {getattr(built, width)} for this PictureCrf: make one for "
                        f"{getattr(parameters, width)}."
                    )

    def _filters(self, parameters: CrfParameters) -> list["_Filter"]:
        """Of kernels with a weight; the one that takes longest first."""
        weights = {"bilateral": parameters.w1, "gaussian": parameters.w2}
        return [
            kernel.filter(parameters.normalization, weights[name])
            for name, kernel in self._kernels.items()
            if weights[name]
        ]


class _Filter(NamedTuple):
    """A lattice and what values are multiplied by before and after it: float32 [N] both."""

    lattice: Lattice
    before: np.ndarray
    after: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """One kernel of a picture: its lattice, and what that gives for ones (float32 [N])."""

    lattice: Lattice
    ones: np.ndarray

    @classmethod
    def of_features(cls, features: np.ndarray, row_length: int) -> "_Kernel":
        lattice = Lattice(features, row_length)
        return cls(lattice, lattice.filter_ones())

    def filter(self, normalization: str, weight: float) -> _Filter:
        """With its weight and normalisation, see `CrfParameters`."""
        one = np.ones_like(self.ones)
        norm = 1 / (self.ones + np.float32(1e-20))
        if normalization == "symmetric":
            norm = np.sqrt(norm)
        before = norm if normalization in ("symmetric", "before") else one
        after = norm if normalization in ("symmetric", "after") else one
        return _Filter(self.lattice, before, after * (np.float32(weight) * self.lattice.gain))


class _MeanField:
    """Q of one picture and what it takes to update it.

    For each pixel and class there are the unary and Q, nothing else: messages are read off the
    lattices where they are added up.

    Args:
        filters: of the kernels, at most two.
        unary: float32 [H, W, C].
        costs: see `lattice_loops.update`.
        groups: classes are spread over the vertices in so many groups, each a task of its own.
    """

    def __init__(self, filters: list[_Filter], unary: np.ndarray, costs: np.ndarray, groups: int):
        self._filters, self._costs = filters, costs
        self._row_length, self._classes = unary.shape[1:]
        self._unary = unary.reshape(-1)
        blocks = -(-self._classes // LANES)
        self._groups = np.array_split(np.arange(blocks), min(groups, blocks))
        _check_memory(unary.shape, sum(filter.lattice.vertices for filter in filters))
        self.q = np.empty(unary.size, np.float32)
        self._values = [
            np.empty(blocks * LANES * filter.lattice.vertices, np.float32) for filter in filters
        ]

    def run(self, iterations: int, workers: "_Workers") -> None:
        """Starts from softmax(-unary), then updates all pixels at once, so many times."""
        kernels = [self._kernel(*pair) for pair in zip(self._filters, self._values, strict=True)]
        workers.run(self._updates([_NOTHING, _NOTHING]))
        for _ in range(iterations):
            workers.run(self._spreads())
            workers.run(self._updates([*kernels, _NOTHING, _NOTHING][:2]))

    def _spreads(self) -> list[Callable]:
        """Filters Q up to the vertices: a task for each kernel and group of classes."""
        tasks: list[Callable] = []
        for (lattice, before, _), values in zip(self._filters, self._values, strict=True):
            size = lattice.vertices * LANES
            for group in self._groups:
                first, after_last = int(group[0]), int(group[-1]) + 1
                part = values[first * size : after_last * size]
                where = (self.q, self._classes, first * LANES, before)
                tasks.append(functools.partial(lattice.spread, *where, part, len(group) * LANES))
        return tasks

    def _updates(self, kernels: list[tuple]) -> list[Callable]:
        """A task for each strip of the picture."""
        arguments = (self.q, self._unary, self._classes, *kernels, self._costs, self._row_length)
        lefts = range(0, self._row_length, loops().STRIP)
        return [functools.partial(loops().update, *arguments, left) for left in lefts]

    def _kernel(self, filter: _Filter, values: np.ndarray) -> tuple:
        """As `lattice_loops.update` takes it: where in a group's rows each block begins."""
        lattice = filter.lattice
        widths = np.array([len(group) * LANES for group in self._groups for _ in group])
        offsets = np.array(
            [
                (group[0] * lattice.vertices + position) * LANES
                for group in self._groups
                for position in range(len(group))
            ]
        )
        where = (lattice.corner_ids, lattice.weights, lattice.corners)
        return values, offsets, widths, *where, filter.after


class _Workers:
    """Some threads, for tasks that let other threads run."""

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error) -> None:
        if self._pool:
            self._pool.shutdown()

    def run(self, tasks: list[Callable]) -> list:
        """Calls all, the first ones first, and waits: their answers."""
        if self._pool is None or len(tasks) < 2:
            return [task() for task in tasks]
        return [future.result() for future in [self._pool.submit(task) for task in tasks]]


def _costs(compatibility: tuple[tuple[float, ...], ...] | None, classes: int) -> np.ndarray:
    """The matrix as `lattice_loops.update` reads it: transposed, rows padded."""
    if compatibility is None:
        return _EMPTY
    if len(compatibility) != classes:
        raise InputError(
            f"compatibility is of {len(compatibility)} classes, the picture of {classes}."
        )
    padded = np.zeros((classes, -(-classes // LANES) * LANES), np.float32)
    padded[:, :classes] = np.asarray(compatibility).T
    return padded.reshape(-1)


def _check_same_size(image: tuple[int, ...], other: tuple[int, ...]) -> None:
    # What isn't a picture at all is refused elsewhere.
    if min(len(image), len(other)) >= 2 and tuple(image[:2]) != tuple(other[:2]):
        raise InputError(
            f"image is of {image[0]} x {image[1]} pixels, what belongs to it of {other[0]} x "
            f"{other[1]}: resize one to the other."
        )


def _check_memory(shape: tuple[int, ...], vertices: int = 0) -> None:
    """Refuses what the machine has no memory for: Q, unaries, and lattices or their values."""
    height, width, classes = shape
    needed = 4 * height * width * classes
    if vertices:
        needed += 4 * vertices * -(-classes // LANES) * LANES
    else:
        needed += needed + 100 * height * width
    if needed > (free := free_memory()):
        raise InputError(
            f"The CRF of {width} x {height} pixels and {classes} classes needs "
            f"{needed / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free: take a smaller picture "
            "(and resize the result), or fewer classes."
        )
