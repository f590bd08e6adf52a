"""What panoptic labels hold, and whether they contradict what is said of classes and divisor."""

import dataclasses
from collections import Counter

import numpy as np

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.findings import Report, listed
from deeplab_tf.datasets.masks import VALUES
from deeplab_tf.panoptic_format import values_of

# Divisors in use: one of them may fit where the one given doesn't.
_DIVISORS = (256, 1000, 10_000, 65_536)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one panoptic label holds.

    Attributes:
        counts: pixels by class, int64 [65536]; None if values lie outside.
        instances: thing -> instances.
        crowds: things that have pixels without an instance.
        problems: (kind, message) of each.
        fitting: divisors that the label doesn't contradict.
    """

    counts: np.ndarray | None
    instances: dict[int, int]
    crowds: tuple[int, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    fitting: frozenset[int] = frozenset()


def see(panoptic: np.ndarray, classes: Classes, name: str) -> Seen:
    """Looks at one panoptic label.

    Args:
        panoptic: integer [H, W].
        classes: with things and label_divisor.
        name: what messages call the label.
    """
    divisor = classes.label_divisor
    assert divisor is not None
    values, areas = values_of(panoptic)
    labels, instances = np.divmod(values, divisor)
    if len(values) and (values[0] < 0 or labels[-1] >= VALUES):
        text = f"{name}: from {values[0]} to {values[-1]}, which is no class * {divisor} + instance"
        return Seen(None, {}, (), (("divisor", text),), _fitting(values, classes))
    problems = []
    wrong = _of_no_class(labels, classes)
    if wrong.any():
        found = listed(sorted({*labels[wrong].tolist()}))
        problems.append(("divisor", f"{name}: classes {found} with the divisor {divisor}"))
    things = np.isin(labels, classes.things)
    stray = ~things & ~wrong & (labels != classes.ignored) & (instances > 0)
    for label in np.unique(labels[stray]).tolist():
        count = int((stray & (labels == label)).sum())
        plural = "instances" if count > 1 else "instance"
        problems.append(("stuff", f"{name}: {classes.names[label]} has {count} {plural}"))
    counts = np.zeros(VALUES, np.int64)
    np.add.at(counts, labels, areas)
    return Seen(
        counts=counts,
        instances=dict(Counter(labels[things & (instances > 0)].tolist())),
        crowds=tuple(np.unique(labels[things & (instances == 0)]).tolist()),
        problems=tuple(problems),
        fitting=_fitting(values, classes) if problems else frozenset({divisor}),
    )


def _of_no_class(labels: np.ndarray, classes: Classes) -> np.ndarray:
    wrong = (labels < 0) | (labels >= len(classes.names))
    return wrong & (labels != classes.ignored)


def _fitting(values: np.ndarray, classes: Classes) -> frozenset[int]:
    """Divisors in use with which all values are of classes, and no stuff has instances."""
    found = []
    for divisor in _DIVISORS:
        labels, instances = np.divmod(values, divisor)
        stuff = ~np.isin(labels, classes.things) & (labels != classes.ignored)
        if not (_of_no_class(labels, classes) | (stuff & (instances > 0))).any():
            found.append(divisor)
    return frozenset(found)


class Tally:
    """Adds up what the labels of a set hold, and says at the end what only all together show.

    Args:
        report: problems and notes go there.
        classes: with things and label_divisor.
    """

    def __init__(self, report: Report, classes: Classes):
        self._report, self._classes = report, classes
        self._pictures: Counter[int] = Counter()
        self._instances: Counter[int] = Counter()
        self._crowds: Counter[int] = Counter()
        self._total, self._empty, self._most = 0, 0, 0
        self._fitting: frozenset[int] | None = None

    def add(self, split: str, seen: Seen, place: str = "") -> None:
        """Adds one label; `place` goes before its messages."""
        for kind, message in seen.problems:
            self._report.add(kind, f"{place}{message}")
        if seen.problems:
            self._fitting = seen.fitting if self._fitting is None else self._fitting & seen.fitting
        if seen.counts is None:
            return
        self._report.count(split, seen.counts)
        count = sum(seen.instances.values())
        self._total += 1
        self._empty += count == 0
        self._most = max(self._most, count)
        self._instances.update(seen.instances)
        self._crowds.update(seen.crowds)
        self._pictures.update({*seen.instances, *seen.crowds})

    def conclude(self) -> None:
        """Adds the notes, and the problems that no single label shows."""
        report, classes = self._report, self._classes
        count = sum(self._instances.values())
        report.notes.append(
            f"{count} instances in {self._total - self._empty} of {self._total} pictures, at most "
            f"{self._most} in one; label_divisor {classes.label_divisor}"
        )
        if self._empty:
            report.notes.append(f"{self._empty} pictures have no instance, which is allowed")
        if self._crowds:
            names = [f"{classes.names[v]} in {n}" for v, n in self._crowds.most_common()]
            report.notes.append(
                f"crowds (things without an instance) teach their class alone: {listed(names, 5)} "
                "pictures"
            )
        for label in classes.things:
            if self._pictures[label] and not self._instances[label]:
                text = f"{label} {classes.names[label]}, in {self._pictures[label]} pictures"
                report.add("no instance", text)
        report.advise("divisor", self._divisor_fix())
        report.advise("stuff", self._stuff_fix() if self._fitting else "")

    def _divisor_fix(self) -> str:
        others = sorted((self._fitting or frozenset()) - {self._classes.label_divisor})
        if not others:
            return "Give the divisor and the classes that the labels were made with."
        which = " or ".join(map(str, others))
        return f"All labels fit the divisor {which}: use --label-divisor {others[0]}."

    def _stuff_fix(self) -> str:
        others = sorted((self._fitting or frozenset()) - {self._classes.label_divisor})
        if not others:
            return ""
        return (
            f"If the divisor is wrong: all labels fit {others[0]}, --label-divisor {others[0]}. "
            "Else mark the classes as things (column thing), or number their pixels 0."
        )
