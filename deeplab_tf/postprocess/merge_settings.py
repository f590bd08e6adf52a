"""How Panoptic-DeepLab's outputs become one panoptic map: settings, without Keras.

`RULES` are the published versions, which agree but for:

- "tensorflow": deeplab2 without its compiled operator. Stuff below `stuff_area_limit` is void.
  Instances of a class are numbered from 1 by their first pixel in raster order.
- "compiled": deeplab2's compiled operator. Stuff of the limit itself is void too, and where a
  picture has no centre, its thing pixels are one instance. The operator numbers instances at
  random; here they are numbered as above.
- "pytorch": the authors' PyTorch release. As the first, but instances are numbered in the raster
  order of their centres, and the window's width is odd.
"""

import dataclasses
import json
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from deeplab_tf.errors import InputError

RULES = ("tensorflow", "compiled", "pytorch")
# Centres that "keep all" keeps at most: a flat heatmap has one in every pixel.
MAX_CENTERS = 4096
# Classes are below this; a label beyond is void.
MAX_CLASSES = 4096


@dataclasses.dataclass(frozen=True)
class MergeSettings:
    """Settings of the merge; the defaults are deeplab2's for Cityscapes.

    Attributes:
        thing_classes: the classes that have instances.
        label_divisor: a panoptic label is class * label_divisor + instance. More instances of a
            class than fit below the divisor are void, the last ones by number.
        void_label: class of what belongs to nothing.
        center_threshold: a centre's heatmap value is above this.
        nms_kernel: width of the window in which a centre is the highest.
        keep_k_centers: how many centres are kept, the highest; of equal ones the first in raster
            order. 0 or less keeps all, up to `MAX_CENTERS`.
        stuff_area_limit: pixels a stuff class needs in a picture to stay.
        rule: one of `RULES`.

    Raises:
        InputError: a value of another type or range.
    """

    thing_classes: tuple[int, ...]
    label_divisor: int
    void_label: int
    center_threshold: float = 0.1
    nms_kernel: int = 13
    keep_k_centers: int = 200
    stuff_area_limit: int = 2048
    rule: str = "tensorflow"

    def __post_init__(self):
        object.__setattr__(self, "thing_classes", _classes(self.thing_classes))
        for name, least in (
            ("label_divisor", 1),
            ("void_label", 0),
            ("nms_kernel", 1),
            ("keep_k_centers", None),
            ("stuff_area_limit", 0),
        ):
            object.__setattr__(self, name, _whole_number(getattr(self, name), name, least))
        threshold = self.center_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise InputError(f"center_threshold is a number; got {threshold!r}.")
        object.__setattr__(self, "center_threshold", float(threshold))
        if self.rule not in RULES:
            raise InputError(f"rule is one of {[*RULES]}; got {self.rule!r}.")
        if self.rule == "pytorch" and self.nms_kernel % 2 == 0:
            raise InputError(f'nms_kernel is odd under the rule "pytorch"; got {self.nms_kernel}.')
        largest = max(self.void_label, *self.thing_classes, 0)
        if largest >= MAX_CLASSES or (largest + 1) * self.label_divisor > 2**31:
            raise InputError(
                f"Class {largest} with label_divisor {self.label_divisor} makes labels that don't "
                f"fit into 32 bits, or isn't below {MAX_CLASSES}."
            )

    @property
    def max_centers(self) -> int:
        """The most centres that are kept, "all" resolved."""
        return min(self.keep_k_centers, MAX_CENTERS) if self.keep_k_centers > 0 else MAX_CENTERS

    @property
    def void_value(self) -> int:
        """The panoptic label of what belongs to nothing."""
        return self.void_label * self.label_divisor

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "MergeSettings":
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
