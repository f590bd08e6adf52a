"""Filling a model from named arrays so that nothing goes by unsaid."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Mapping
from typing import Protocol

import keras
import numpy as np

from deeplab_tf.checkpoints import tf1
from deeplab_tf.checkpoints.backbone import (
    beside_the_backbone,
    classifier_variables,
    is_backbone_alone,
    kind_of_backbone,
    refused_backbone,
)
from deeplab_tf.errors import InputError
from deeplab_tf.models.mask_transformer import MaskTransformer

_LOG = logging.getLogger(__name__)


class Names(Protocol):
    """The rule between a file's names and a model's variable paths: `tf1`, for example."""

    def variable_path(self, name: str, model: keras.Model) -> str:
        """Our path of a variable in the file."""

    def source_name(self, path: str, model: keras.Model) -> str:
        """The file's name of one of our variables."""

    def is_weight(self, name: str, model: keras.Model) -> bool:
        """False for what is in the file but no weight of the model, by rule."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What a file holds.

    Attributes:
        path: the file, or the prefix of a checkpoint's files.
        format: of the file, in words.
        arrays: variable name -> array in TensorFlow's layout.
        origins: variable name -> where the array comes from, if not from a variable of that name.
        names: the rule of these names; that of TF1 unless said.
    """

    path: str
    format: str
    arrays: Mapping[str, np.ndarray]
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    names: Names = tf1


@dataclasses.dataclass(frozen=True)
class Assigned:
    """One variable that was set: its name in the file, our path, its shape."""

    source: str
    path: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What `load` has done.

    Attributes:
        path, format: of the file.
        variables: those that were set, in the model's order.
        left_out: names in the file that are no weights of the model: counters, optimiser slots,
            averages, an auxiliary head, an image classifier's own layers.
        new: paths of the last layer that were not set, since the file has another number of
            classes; of everything but the backbone, if the file is an image classifier's.
        backbone_only: whether the file gave the backbone, and nothing else.
        is_classifier: whether that is because it is an image classifier's.
    """

    path: str
    format: str
    variables: tuple[Assigned, ...]
    left_out: tuple[str, ...]
    new: tuple[str, ...]
    backbone_only: bool = False
    is_classifier: bool = False

    def __str__(self) -> str:
        if self.backbone_only:
            return (
                f"{self.path} ({self.format}), {kind_of_backbone(self.is_classifier)}: the "
                f"{len(self.variables)} variables of its backbone are set, the other "
                f"{len(self.new)} of the model are as they were made."
            )
        text = f"{self.path} ({self.format}): {len(self.variables)} variables set"
        if self.left_out:
            text += f", {len(self.left_out)} left out (counters, optimiser slots, auxiliary heads)"
        if self.new:
            text += f", {len(self.new)} made anew ({', '.join(self.new)})"
        return text + "."


def assign(model: keras.Model, source: Source, *, new_last_layer: bool | None = None) -> Loaded:
    """Sets every weight of `model` from `source`, or none.

    Args:
        model: to fill.
        source: see `deeplab_tf.checkpoints.read`.
        new_last_layer: None leaves the last layer as it was made if the file's has another
            number of classes, and logs that; True always does; False never. Unless False, an
            image classifier gives its backbone.

    Raises:
        InputError: something is missing, extra or misshapen; the message has the names. Or the
            file is an image classifier's and the last layer may not be made anew.
    """
    names = source.names
    weights = {name: a for name, a in source.arrays.items() if names.is_weight(name, model)}
    by_path = {names.variable_path(name, model): name for name in weights}
    classifier = classifier_variables(by_path, model)
    backbone_only = bool(classifier) or is_backbone_alone(by_path, model)
    if backbone_only and new_last_layer is False:
        raise refused_backbone(source.path, model, is_classifier=bool(classifier))
    for path in classifier:
        del weights[by_path.pop(path)]
    wanted = {weight.path: weight for weight in model.weights}
    shapes = {path: tuple(weights[name].shape) for path, name in by_path.items()}
    new = (
        beside_the_backbone(model)
        if backbone_only
        else _new_variables(model, wanted, shapes, new_last_layer)
    )

    missing = [path for path in wanted if path not in by_path and path not in new]
    extra = [
        name
        for name in weights
        if (path := names.variable_path(name, model)) not in wanted or by_path[path] != name
    ]
    misshapen = [
        path
        for path, weight in wanted.items()
        if path in shapes and path not in new and shapes[path] != tuple(weight.shape)
    ]
    if missing or extra or misshapen:
        problems = [
            *_missing([names.source_name(path, model) for path in missing], extra),
            *_extra(extra),
            *_misshapen(misshapen, shapes, by_path, wanted),
        ]
        hint = _hint(model, wanted, shapes, len(missing) + len(misshapen))
        raise InputError(f"{source.path} doesn't fit {model.name}: {' '.join(problems)}{hint}")
    for path, weight in wanted.items():
        if path not in new:
            weight.assign(weights[by_path[path]])
    if new and new_last_layer is None and not backbone_only:
        counts = _class_counts(model, shapes) or (0, 0)
        _LOG.warning(
            f"{source.path} has {counts[0]} classes, {model.name} {counts[1]}: "
            f"the last layer is made anew ({', '.join(new)})."
        )
    return Loaded(
        path=source.path,
        format=source.format,
        variables=tuple(
            Assigned(source.origins.get(by_path[path], by_path[path]), path, shapes[path])
            for path in wanted
            if path not in new
        ),
        left_out=tuple(sorted(name for name in source.arrays if name not in weights)),
        new=tuple(new),
        backbone_only=backbone_only,
        is_classifier=bool(classifier),
    )


def _new_variables(model, wanted, shapes, new_last_layer: bool | None) -> list[str]:
    """Paths of the last layer if it can't be or shan't be taken from the file, else []."""
    last = [path for path in wanted if _is_last(path, model)]
    if new_last_layer or (new_last_layer is None and _class_counts(model, shapes)):
        return last
    return []


def _is_last(path: str, model) -> bool:
    pattern = getattr(model, "last_layers", None)
    return pattern is not None and re.match(pattern, path) is not None


def _class_counts(model, shapes) -> tuple[int, int] | None:
    """(the file's, the model's) number of classes if that is all that is wrong with its last layer.

    All variables of that layer must agree on it, and nothing else may differ: a transposed kernel
    is a mistake, not another number of classes. Slots of a mask transformer may have void too.
    """
    found: dict[str, tuple[int, int]] = {}
    for weight in model.weights:
        path, shape = weight.path, tuple(weight.shape)
        if not _is_last(path, model):
            continue
        there = shapes.get(path, ())
        if len(there) != len(shape) or there[:-1] != shape[:-1]:
            return None
        pair = (there[-1], shape[-1])
        if found.setdefault(path.rpartition("/")[0], pair) != pair:
            return None
    counts = [set(numbers) for numbers in zip(*found.values(), strict=True)]
    most = 1 if isinstance(model, MaskTransformer) else 0
    if not counts or any(max(numbers) - min(numbers) > most for numbers in counts):
        return None
    theirs, ours = map(min, counts)
    return (theirs, ours) if theirs != ours else None


def _missing(names: list[str], extra: list[str]) -> list[str]:
    lines = []
    for name in names:
        near = difflib.get_close_matches(name, extra, n=1, cutoff=0.8)
        lines.append(f"{name} (is it {near[0]}?)" if near else name)
    return _listed("missing", lines)


def _extra(names: list[str]) -> list[str]:
    return _listed("that the model doesn't have", sorted(names))


def _misshapen(paths: list[str], shapes, by_path, wanted) -> list[str]:
    lines = []
    for path in paths:
        theirs, ours = shapes[path], tuple(wanted[path].shape)
        how = " (transposed?)" if sorted(theirs) == sorted(ours) else ""
        lines.append(f"{by_path[path]} {theirs} instead of {ours}{how}")
    return _listed("of another shape", lines)


def _hint(model, wanted, shapes, wrong: int) -> str:
    """What to do about it, where that can be told."""
    counts = _class_counts(model, shapes)
    if counts:
        return (
            f" The file has {counts[0]} classes, the model {counts[1]}: build the model with as "
            f"many (num_classes={counts[0]}, or --num-classes {counts[0]})."
        )
    if wrong > len(wanted) // 2:
        return " It is of another architecture: name the model that it was made for."
    return ""


def _listed(what: str, names: list[str], most: int = 4) -> list[str]:
    """["3 missing: a, b, c."], or nothing."""
    if not names:
        return []
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{len(names)} {what}: {', '.join(names[:most])}{rest}."]
