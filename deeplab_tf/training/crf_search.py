"""The CRF's parameters for a model, searched on a validation set, coarse to fine.

As DeepLabv1 did (https://arxiv.org/abs/1412.7062, Sec. 5), and v2 after it: the weight and the
widths of the bilateral kernel are searched on 100 pictures, all else stays as it is.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file
from deeplab_tf.inference.base import PixelScores, Runner, ScoreMap
from deeplab_tf.inference.crf import CrfRunner
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.postprocess.crf import PictureCrf, unary_from_probabilities
from deeplab_tf.postprocess.crf_parameters import CrfParameters
from deeplab_tf.postprocess.permutohedral import free_memory, loops
from deeplab_tf.training.crf_grid import NAMES, Candidate, CrfGrid, CrfSearch, listed

if TYPE_CHECKING:  # it loads TensorFlow, which a wrong option needn't wait for
    from deeplab_tf.training.examples import Examples

# What v1 didn't search.
START = CrfParameters(w2=3, sigma_gamma=3, iterations=10)
# The network needn't see a picture again in the next round while all it said takes no more.
_KEPT_BYTES = 2**30
# Of a pixel while its CRF runs, beside 8 for each class: lattices and what they are made from.
_BYTES_OF_PIXEL = 300
_BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


def search_crf(
    model: Any,
    data: str | os.PathLike,
    split: str = "val",
    *,
    grid: CrfGrid | None = None,
    start: CrfParameters = START,
    rounds: int = 2,
    limit: int | None = 100,
    threads: int | None = None,
    partial: str | os.PathLike | None = None,
    progress: bool = False,
    say: Callable[[str], Any] | None = None,
) -> CrfSearch:
    """Scores the CRF behind a model with all parameters of a grid, then of finer ones.

    The scores are those that `evaluate` gives for the same pictures: labels aren't resized, and
    classes are matched after the CRF. They are the same on any number of threads, and after an
    interruption too.

    Args:
        model: what `load_runner` opens.
        data, split: see `evaluate`.
        grid: of the first round, None for v1's. The others are `CrfGrid.finer` around the best
            so far.
        start: what else the CRF is run with; its w1, sigma_alpha and sigma_beta aren't used.
        rounds: at least 1.
        limit: only the first so many pictures; None for all.
        threads: at most so many; None takes the machine's.
        partial: a file that holds what was done, brought up to date after each picture. If it is
            there, the search goes on from it. Remove it when the result is safe.
        progress: show a bar, if this is a terminal.
        say: called with lines about cost and progress.

    Raises:
        InputError: numba isn't installed; model, data or classes as for `evaluate`; `partial` is
            of another search; a value outside its range.
    """
    from deeplab_tf.inference.runner import load_runner
    from deeplab_tf.training.examples import open_examples

    for name, value in (("rounds", rounds), ("limit", limit), ("threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"{name} is at least 1; got {value}.")
    loops()  # without numba there is nothing to begin
    examples = open_examples(data, split)
    pictures = min(examples.count, limit or examples.count)
    if not pictures:
        raise InputError(f"{examples.name}: no pictures in {split!r}; name a split that has some.")
    runner = load_runner(model)
    if isinstance(runner, CrfRunner):
        raise InputError(f"{runner.name} has a CRF already; search with the model alone.")
    grid = grid or CrfGrid()
    settings = _settings(runner, examples, grid, start, rounds=rounds, pictures=pictures)
    counter = _Counter(runner, examples, start, threads or os.cpu_count() or 1)
    search = _Search(counter, _Partial(partial, settings), pictures, progress, say)
    return search.run(grid, rounds)


def _settings(runner: Runner, examples: "Examples", grid: CrfGrid, start, **counts) -> dict:
    """What must be the same for a search to go on, as JSON gives it back."""
    fixed = {name: value for name, value in start.to_dict().items() if name not in NAMES}
    settings = {
        "model": runner.name,
        "overlap": getattr(runner, "overlap", None),  # not in the name
        "data": examples.name,
        "split": examples.split,
        "classes": examples.classes,
        **counts,
        **{name: listed(getattr(grid, name)) for name in NAMES},
        **fixed,
    }
    return json.loads(json.dumps(settings))


class _Round:
    """Candidates of a grid, and what became of the pictures so far with each of them.

    Attributes:
        grid: the grid.
        candidates: those of it that no earlier round had.
        matrices: int64 [1 + candidates, C, C], see `confusion_matrix`; the first without a CRF.
        pictures: how many are in them.
    """

    def __init__(self, grid: CrfGrid, known: Mapping[Candidate, float], classes: int):
        self.grid, self.pictures = grid, 0
        self.candidates = [c for c in grid.candidates() if c not in known]
        self.matrices = np.zeros((1 + len(self.candidates), classes, classes), np.int64)

    def scores(self) -> list[float]:
        """Mean IoU without a CRF, then of each candidate."""
        return [ConfusionMatrix.of(matrix).mean_iou for matrix in self.matrices]


class _Partial:
    """The file that a search goes on from.

    Args:
        path: of the file, None for none.
        settings: of the search.
    """

    def __init__(self, path: str | os.PathLike | None, settings: dict[str, Any]):
        self._path, self._settings = None if path is None else Path(path), settings

    def load(self) -> tuple[list[tuple[int, np.ndarray]], list[str], float]:
        """Pictures and matrices of each round that was begun, notes and seconds.

        Raises:
            InputError: the file is broken or of another search.
        """
        if self._path is None or not self._path.exists():
            return [], [], 0.0
        try:
            with np.load(self._path) as arrays:
                header = json.loads(str(arrays["header"]))
                theirs, pictures = header["settings"], header["pictures"]
                rounds = [(count, arrays[f"round{i}"]) for i, count in enumerate(pictures)]
                self._compare(theirs)
                return rounds, [*header["notes"]], float(header["seconds"])
        except InputError:
            raise
        except _BROKEN:
            raise InputError(
                f"{self._path} isn't what an interrupted search leaves. Move it away to start anew."
            ) from None

    def _compare(self, theirs: dict[str, Any]) -> None:
        for name, mine in self._settings.items():
            if theirs.get(name) != mine:
                raise InputError(
                    f"{self._path} is of another search: its {name} is {theirs.get(name)}, not "
                    f"{mine}. Give the command that began it to go on, or delete that file to "
                    "start anew."
                )

    def save(self, rounds: Sequence[_Round], notes: list[str], seconds: float) -> None:
        if self._path is None:
            return
        pictures = [each.pictures for each in rounds]
        header = dict(settings=self._settings, pictures=pictures, notes=notes, seconds=seconds)
        arrays: dict[str, Any] = {f"round{i}": each.matrices for i, each in enumerate(rounds)}
        with atomic_file(self._path, suffix=".npz") as temporary:
            np.savez_compressed(temporary, header=np.array(json.dumps(header)), **arrays)


class _Search:
    """The rounds, one picture after the other.

    Args:
        counter: does the work.
        partial: keeps it.
        pictures: how many to take.
        progress, say: see `search_crf`.
    """

    def __init__(self, counter: "_Counter", partial: _Partial, pictures: int, progress, say):
        self._counter, self._partial, self._total = counter, partial, pictures
        self._progress, self._say = progress, say or (lambda line: None)
        self._rounds: list[_Round] = []
        self._stored, counter.notes, seconds = partial.load()
        self._started = time.perf_counter() - seconds

    def run(self, grid: CrfGrid, rounds: int) -> CrfSearch:
        known: dict[Candidate, float] = {}
        while len(self._rounds) < rounds:
            current = self._open(grid, known)
            if not current.candidates:  # one value of each: there is nothing finer
                break
            self._rounds.append(current)
            self._fill(current)
            known |= zip(current.candidates, current.scores()[1:], strict=True)
            grid = grid.finer(max(known, key=lambda candidate: known[candidate]))
        return self._found(known)

    def _open(self, grid: CrfGrid, known: Mapping[Candidate, float]) -> _Round:
        """The next round, from the partial file if it has it."""
        examples = self._counter.examples
        current = _Round(grid, known, len(examples.classes))
        if len(self._stored) > len(self._rounds):
            current.pictures, matrices = self._stored[len(self._rounds)]
            current.matrices = matrices.reshape(current.matrices.shape)
        return current

    def _fill(self, current: _Round) -> None:
        """Adds the pictures that are missing."""
        self._announce(current)
        if current.pictures == self._total:
            return
        each, begun, first = len(current.candidates), time.perf_counter(), current.pictures
        with self._bar(each) as advance:
            advance(first * each)
            examples = itertools.islice(self._counter.examples, first, self._total)
            for index, example in enumerate(examples, first):
                current.matrices += self._counter.count(index, example, current, advance)
                current.pictures += 1
                self._save()
                if index == first:
                    self._foretell(time.perf_counter() - begun, self._total - first)
        self._counter.examples.refuse_fewer(current.pictures, self._total)

    def _save(self) -> None:
        seconds = time.perf_counter() - self._started
        self._partial.save(self._rounds, self._counter.notes, seconds)

    def _announce(self, current: _Round) -> None:
        counts = " x ".join(str(len(getattr(current.grid, name))) for name in NAMES)
        ranges = ", ".join(f"{name} {listed(getattr(current.grid, name))}" for name in NAMES)
        work = len(current.candidates) * self._total
        self._say(f"round {len(self._rounds)}: {ranges}")
        self._say(
            f"  {counts} values, {len(current.candidates)} new candidates x {self._total} "
            f"pictures: the CRF runs {work:,} times"
        )
        if current.pictures:
            self._say(f"  {current.pictures} of {self._total} pictures were done before")

    def _foretell(self, seconds: float, pictures: int) -> None:
        """How long the round takes, said where that isn't over in a moment."""
        if (left := round(seconds * (pictures - 1) / 60)) > 0:
            hours, minutes = divmod(left, 60)
            shown = f"{hours} h {minutes} min" if hours else f"{minutes} min"
            self._say(f"  about {shown} more for this round, by its first picture")

    @contextlib.contextmanager
    def _bar(self, each: int) -> Iterator[Callable[[int], None]]:
        from deeplab_tf.datasets.progress import bar

        with bar(f"round {len(self._rounds)}", quiet=not self._progress) as advance:
            yield lambda count: advance(count, each * self._total)

    def _found(self, known: Mapping[Candidate, float]) -> CrfSearch:
        counter = self._counter
        best = max(known, key=lambda candidate: known[candidate])
        return CrfSearch(
            model=counter.runner.name,
            data=counter.examples.name,
            split=counter.examples.split,
            pictures=self._total,
            parameters=counter.parameters(best),
            mean_iou=known[best],
            without_crf=self._rounds[0].scores()[0],
            grids=tuple(current.grid for current in self._rounds),
            scores=known,
            notes=tuple(counter.notes),
            seconds=time.perf_counter() - self._started,
        )


class _Counter:
    """Runs the model and the CRF on a picture.

    Args:
        runner: the model.
        examples: where pictures come from.
        start: see `search_crf`.
        threads: at most so many.
    """

    def __init__(self, runner: Runner, examples: "Examples", start: CrfParameters, threads: int):
        self.runner, self.examples = runner, examples
        self.notes: list[str] = []
        self._start, self._threads = start, threads
        self._seen: dict[int, PixelScores] = {}
        self._kept = 0

    def parameters(self, candidate: Candidate) -> CrfParameters:
        w1, sigma_alpha, sigma_beta = candidate
        return dataclasses.replace(
            self._start, w1=w1, sigma_alpha=sigma_alpha, sigma_beta=sigma_beta
        )

    def count(self, index: int, example, current: _Round, advance) -> np.ndarray:
        """What a picture adds to the matrices of a round.

        Args:
            index: of the picture.
            example: the picture, see `Examples`.
            current: the round.
            advance: called with how many more candidates are done.

        Raises:
            InputError: the classes don't match, a label is outside them, or there is too little
                memory.
        """
        name, image, label = example
        scores = self._scores(index, image)
        values = self._match(scores.num_classes)
        confusion = functools.partial(self.examples.confusion, name, label)
        found = np.empty_like(current.matrices)
        found[0] = confusion(values[scores.labels()])
        unary = unary_from_probabilities(scores.probabilities())

        def score(crf: PictureCrf, candidate: Candidate) -> np.ndarray:
            q = crf.infer(unary, self.parameters(candidate))
            return confusion(values[q.argmax(-1)])

        parts = self._spread(image, scores.num_classes, current.candidates, score)
        with contextlib.closing(parts):  # or threads would outlive a Ctrl-C
            for place, matrix in parts:
                found[1 + place] = matrix
                advance(1)
        return found

    def _scores(self, index: int, image: np.ndarray) -> PixelScores:
        """What the model says; from memory if it was asked in an earlier round."""
        if index in self._seen:
            return self._seen[index]
        scores = self.runner.scores(image)
        if isinstance(scores, ScoreMap) and self._kept + scores.values.nbytes <= _KEPT_BYTES:
            self._seen[index] = scores
            self._kept += scores.values.nbytes
        return scores

    def _match(self, count: int) -> np.ndarray:
        """Class of the data for each class of the model."""
        from deeplab_tf.training.evaluate import match_classes

        values, note = match_classes(self.runner.info.classes, count, self.examples.classes)
        if note and note not in self.notes:
            self.notes.append(note)
        return values

    def _spread(
        self, image: np.ndarray, classes: int, candidates: Sequence[Candidate], score: Callable
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Scores candidates at the same time, pairs of widths apart: yields (place, matrix).

        Threads gain more so than within one CRF, a part of which runs on one alone.
        """
        pairs: dict[tuple[float, ...], list[int]] = {}
        for place, candidate in enumerate(candidates):
            pairs.setdefault(candidate[1:], []).append(place)
        needed = image.shape[0] * image.shape[1] * (8 * classes + _BYTES_OF_PIXEL)
        at_once = max(1, int(min(free_memory() / needed, self._threads, len(pairs))))
        stopped = threading.Event()

        def run(places: list[int]) -> list[tuple[int, np.ndarray]]:
            first = self.parameters(candidates[places[0]])
            crf = PictureCrf(image, first, threads=max(1, self._threads // at_once))
            left = (place for place in places if not stopped.is_set())
            return [(place, score(crf, candidates[place])) for place in left]

        with ThreadPoolExecutor(at_once) as pool:
            try:
                for done in as_completed([pool.submit(run, part) for part in pairs.values()]):
                    yield from done.result()
            finally:  # after Ctrl-C, no more than the CRFs that are running now
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
