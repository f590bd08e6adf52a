"""What the settings of every merge into panoptic maps share, without Keras."""

import dataclasses
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Self

from deeplab_tf.errors import InputError

# Classes are below this; a label beyond is void.
MAX_CLASSES = 4096


@dataclasses.dataclass(frozen=True)
class PanopticSettings:
    """What a panoptic label means.

    Attributes:
        thing_classes: the classes that have instances.
        label_divisor: a panoptic label is class * label_divisor + instance.
        void_label: class of what belongs to nothing.

    Raises:
        InputError: a value of another type or range.
    """

    thing_classes: tuple[int, ...]
    label_divisor: int
    void_label: int

    def __post_init__(self):
        object.__setattr__(self, "thing_classes", _classes(self.thing_classes))
        self._check_whole_numbers(label_divisor=1, void_label=0)
        largest = max(self.void_label, *self.thing_classes, 0)
        if largest >= MAX_CLASSES or (largest + 1) * self.label_divisor > 2**31:
            raise InputError(
                f"Class {largest} with label_divisor {self.label_divisor} makes labels that don't "
                f"fit into 32 bits, or isn't below {MAX_CLASSES}."
            )

    def _check_whole_numbers(self, **least: int | None) -> None:
        """Fields by name, each with the least value it may have, if there is one."""
        for name, value in least.items():
            object.__setattr__(self, name, _whole_number(getattr(self, name), name, value))

    def _check_numbers(self, *names: str, least: float = -math.inf, most: float = math.inf) -> None:
        """Fields that are numbers between two values."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
                raise InputError(f"{name} is a number; got {value!r}.")
            if not least <= float(value) <= most:
                limits = (
                    f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                )
                raise InputError(f"{name} is {limits}; got {value!r}.")
            object.__setattr__(self, name, float(value))

    @property
    def void_value(self) -> int:
        """The panoptic label of what belongs to nothing."""
        return self.void_label * self.label_divisor

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what `to_json` gave.

        Raises:
            InputError: no JSON, a name that no setting has, or one is missing.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"The settings of the merge aren't JSON: {error}.") from None
        if not isinstance(values, Mapping):
            raise InputError(f"The settings of the merge are a JSON object; got {values!r}.")
        fields = dataclasses.fields(cls)
        unknown = [name for name in values if name not in [field.name for field in fields]]
        if unknown:
            raise InputError(f"The merge has no setting {unknown[0]!r}.")
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in values:
                raise InputError(f"The settings of the merge lack {field.name!r}.")
        return cls(**values)


def _whole_number(value: Any, name: str, least: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} is a whole number; got {value!r}.")
    if least is not None and value < least:
        raise InputError(f"{name} is at least {least}; got {value}.")
    return int(value)


def _classes(values: Any) -> tuple[int, ...]:
    """Sorted: a tie between classes goes to the smaller."""
    if isinstance(values, str | bytes):
        raise InputError(f"thing_classes are whole numbers; got {values!r}.")
    try:
        classes = [_whole_number(value, "a thing class", 0) for value in values]
    except TypeError:
        raise InputError(f"thing_classes are whole numbers; got {values!r}.") from None
    return tuple(sorted(set(classes)))
