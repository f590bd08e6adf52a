"""Parameters of the CRF to try, and what trying them gave: numbers, words and a picture."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file, write_json
from deeplab_tf.postprocess.crf_parameters import CrfParameters
from deeplab_tf.training.curves import new_figure, png

# w1, sigma_alpha, sigma_beta.
Candidate = tuple[float, float, float]
NAMES = ("w1", "sigma_alpha", "sigma_beta")


@dataclasses.dataclass(frozen=True)
class CrfGrid:
    """Values to try, each with each of the others; those of v1's first round if none are given.

    Attributes:
        w1, sigma_alpha, sigma_beta: see `CrfParameters`; in ascending order, each once.

    Raises:
        InputError: there are none, or one isn't a number above 0.
    """

    w1: tuple[float, ...] = tuple(range(5, 11))
    sigma_alpha: tuple[float, ...] = tuple(range(50, 101, 10))
    sigma_beta: tuple[float, ...] = tuple(range(3, 11))

    def __post_init__(self):
        for name in NAMES:
            values = getattr(self, name)
            numbers = tuple(sorted({float(value) for value in values}))
            if not numbers or not all(0 < number < math.inf for number in numbers):
                raise InputError(
                    f"{name} to try are numbers above 0; got {listed(values) or 'none'}."
                )
            object.__setattr__(self, name, numbers)

    def candidates(self) -> list[Candidate]:
        """All of them; those of the same widths, which share their lattices, in a row."""
        widths = itertools.product(self.sigma_alpha, self.sigma_beta)
        return [(w1, *pair) for pair in widths for w1 in self.w1]

    def finer(self, best: Candidate) -> "CrfGrid":
        """Around one of these, in quarters of the steps, as far as half a step.

        On the border, in halves beyond it as far as a step: v1 began with w1 = 5 and ended with 4.
        """
        pairs = zip(NAMES, best, strict=True)
        return CrfGrid(*(_around(getattr(self, name), value) for name, value in pairs))


def _around(values: tuple[float, ...], best: float) -> tuple[float, ...]:
    if len(values) == 1:
        return values
    at, steps = values.index(best), np.diff(values)
    before, after = steps[max(0, at - 1)], steps[min(at, len(steps) - 1)]
    down = (1, 0.5) if at == 0 else (0.5, 0.25)
    up = (0.25, 0.5) if at < len(values) - 1 else (0.5, 1)
    others = [best - before * part for part in down] + [best + after * part for part in up]
    return (best, *(float(f"{other:.6g}") for other in others if other > 0))


def listed(values: Sequence[float]) -> str:
    """Values as a command line takes them."""
    return ",".join(f"{value:.12g}" for value in values)


@dataclasses.dataclass(frozen=True)
class CrfSearch:
    """What a search found.

    Attributes:
        model, data, split: what was searched with.
        pictures: how many.
        parameters: the best.
        mean_iou: with them, by the official rule.
        without_crf: mean IoU of the model alone.
        grids: of each round.
        scores: mean IoU of each candidate, in the order of the rounds.
        notes: how classes were matched.
        seconds: it took, interruptions left out.
    """

    model: str
    data: str
    split: str
    pictures: int
    parameters: CrfParameters
    mean_iou: float
    without_crf: float
    grids: tuple[CrfGrid, ...]
    scores: Mapping[Candidate, float]
    notes: tuple[str, ...]
    seconds: float

    def ranking(self) -> list[tuple[Candidate, float]]:
        """Candidates and their scores, the best first; of equals, the one that was tried first."""
        return sorted(self.scores.items(), key=lambda item: -item[1])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user of the parameters should know."""
        found = []
        if self.mean_iou <= self.without_crf:
            found.append("no candidate is better than the model without a CRF.")
        for name, value in zip(NAMES, self.ranking()[0][0], strict=True):
            tried = sorted({number for grid in self.grids for number in getattr(grid, name)})
            if len(tried) > 1 and value in (tried[0], tried[-1]):
                end = "smallest" if value == tried[0] else "largest"
                found.append(
                    f"{name} = {value:g} is the {end} that was tried, so a better one may lie "
                    f"beyond: search again with other values of {name}."
                )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Everything; `CrfParameters.from_dict` reads "parameters"."""
        value = dataclasses.asdict(self)
        value["parameters"] = self.parameters.to_dict()
        value["warnings"] = list(self.warnings)
        value["rounds"] = value.pop("grids")
        del value["scores"]
        value["candidates"] = [
            {**dict(zip(NAMES, candidate, strict=True)), "mean_iou": score}
            for candidate, score in self.scores.items()
        ]
        return value


def write_search(found: CrfSearch, out: Path) -> Path:
    """Writes the search as JSON, and a picture of it beside: the picture's path.

    Raises:
        InputError: nothing can be written there.
    """
    write_json(out, found.to_json())
    picture = out.with_suffix(".png")
    with atomic_file(picture, suffix=".png") as temporary:
        temporary.write_bytes(png(_figure(found)))
    return picture


def _figure(found: CrfSearch):
    """A heat map for each round: mean IoU by the two widths, at the round's best w1."""
    columns = [len(grid.sigma_beta) for grid in found.grids]
    rows = max(len(grid.sigma_alpha) for grid in found.grids)
    size = (max(6.0, 0.75 * sum(columns) + 1.5 * len(columns)), max(2.5, 0.5 * rows + 1.5))
    figure = new_figure(*size)
    panels = figure.subplots(1, len(columns), width_ratios=columns, squeeze=False)[0]
    shown = [_best_map(found, grid) for grid in found.grids]
    limits = min(values.min() for _, values in shown), max(values.max() for _, values in shown)
    for index, (axes, grid, (w1, values)) in enumerate(
        zip(panels, found.grids, shown, strict=True), 1
    ):
        _heat_map(axes, grid, values, limits)
        axes.set_title(f"round {index}: w1 = {w1:g}")
    figure.suptitle(f"mean IoU, %; {100 * found.without_crf:.2f} without a CRF")
    return figure


def _best_map(found: CrfSearch, grid: CrfGrid) -> tuple[float, np.ndarray]:
    """The best w1 of a grid and scores in percent with it, [sigma_alpha, sigma_beta]."""
    w1 = max(grid.candidates(), key=lambda candidate: found.scores[candidate])[0]
    rows = [[found.scores[w1, a, b] for b in grid.sigma_beta] for a in grid.sigma_alpha]
    return w1, 100 * np.array(rows)


def _heat_map(axes, grid: CrfGrid, values: np.ndarray, limits: tuple[float, float]) -> None:
    axes.imshow(values, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto")
    middle = sum(limits) / 2
    for (row, column), value in np.ndenumerate(values):
        style = dict(weight="bold") if value == values.max() else {}
        color = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, **style)
    axes.set_xticks(range(values.shape[1]), [f"{value:g}" for value in grid.sigma_beta])
    axes.set_yticks(range(values.shape[0]), [f"{value:g}" for value in grid.sigma_alpha])
    axes.set_xlabel("sigma_beta")
    axes.set_ylabel("sigma_alpha")
