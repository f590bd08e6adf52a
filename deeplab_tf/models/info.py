"""What a model is for: everything about it that isn't in its graph."""

import dataclasses
from typing import Any

RESIZE_RULES = ("stretch", "fit", "none")


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Travels with the weights, so that nobody has to know or repeat it.

    Attributes:
        classes: names by label value.
        colors: RGB 0..255 by label value.
        ignore_label: label value that gave no loss, if any.
        image_size: (height, width) that pictures are brought to for a prediction.
        resize: how: "stretch" to image_size, "fit" its longest side and pad, "none" leaves it.
        source: where the weights come from, in a sentence.
        license: of the weights.
        metrics: measured scores.
        training: the settings of the run that made the weights.
        thing_classes: label values of the classes whose instances are told apart.
        label_divisor: panoptic labels are class * label_divisor + instance; None of a model that
            tells no instances apart.
        merge: settings by which a panoptic model's answers are merged, where they aren't the
            defaults: of `MergeSettings`, or of `MaskSettings`, whose rules are others.
    """

    classes: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore_label: int | None = 255
    image_size: tuple[int, int] | None = None
    resize: str = "none"
    source: str = ""
    license: str = ""
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    thing_classes: tuple[int, ...] = ()
    label_divisor: int | None = None
    merge: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.resize not in RESIZE_RULES:
            raise ValueError(f"resize is one of {RESIZE_RULES}; got {self.resize!r}.")
        if self.resize != "none" and self.image_size is None:
            raise ValueError(f"resize={self.resize!r} needs an image_size.")

    def to_json(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict) -> "ModelInfo":
        """Builds the record from parsed JSON, whose lists become tuples again."""
        value = dict(value)
        for key in ("classes", "image_size", "thing_classes"):
            if value.get(key) is not None:
                value[key] = tuple(value[key])
        value["colors"] = tuple(tuple(color) for color in value.get("colors", ()))
        return cls(**value)


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
        class_name: a key of `presets.MODEL_CLASSES`.
        arguments: of its constructor.
        info: classes, colours, picture size.
        cost: parameters and multiply-adds at that size, as `macs.count` finds them: the graphs of
            a whole table of models take a minute to build.
        result: the published score, in words.
        published_cost: parameters or multiply-adds as they were published, where they were, and
            where that is more than 1 % off the count, how it was counted.
        weights: where they are published, "" if nowhere.
        convertible: whether `convert` reads what is there.
        task: what it predicts.
    """

    class_name: str
    arguments: dict[str, Any]
    info: ModelInfo
    cost: tuple[int, int]
    result: str = ""
    published_cost: str = ""
    weights: str = ""
    convertible: bool = True
    task: str = "semantic"
