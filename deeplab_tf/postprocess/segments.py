"""What a panoptic map holds, as a list: for results, JSON and drawing. NumPy only."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from deeplab_tf.panoptic_format import boxes_of, recode, values_of


@dataclasses.dataclass(frozen=True)
class FoundSegment:
    """One segment.

    Attributes:
        id: its value in the panoptic map.
        class_id: its class.
        instance: number within the class, from 1; None for stuff, 0 for a crowd.
        area: pixels.
        box: (x, y, width, height), as in COCO's files.
        score: mean of the instance scores over its pixels; None without them, and for stuff.
    """

    id: int
    class_id: int
    instance: int | None
    area: int
    box: tuple[int, int, int, int]
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: id, class, instance, area, box, score."""
        values = dataclasses.asdict(self)
        values["box"] = list(self.box)
        return {"class" if name == "class_id" else name: value for name, value in values.items()}


def segments(
    panoptic_label: np.ndarray,
    instance_score: np.ndarray | None = None,
    *,
    label_divisor: int,
    thing_classes: Collection[int],
    void_label: int | None = None,
) -> list[FoundSegment]:
    """The segments of a panoptic map, by class and instance; void is left out.

    Args:
        panoptic_label: integer [H, W], class * label_divisor + instance.
        instance_score: float [H, W].
        label_divisor: as above.
        thing_classes: the classes that have instances.
        void_label: the class that isn't a segment.

    Raises:
        ValueError: scores of another size.
    """
    labels = np.asarray(panoptic_label)
    values, areas = values_of(labels)
    boxes = boxes_of(labels, values) if len(values) else np.zeros((0, 4), int)
    scores = None
    if instance_score is not None:
        weights = np.asarray(instance_score, np.float64)
        if weights.shape != labels.shape:
            raise ValueError(f"instance_score is {weights.shape}, the map {labels.shape}.")
        places = recode(labels, values, np.arange(len(values)))
        scores = np.bincount(places.ravel(), weights.ravel(), len(values)) / areas
    found = []
    for i, value in enumerate(values.tolist()):
        class_id, instance = divmod(value, label_divisor)
        if class_id == void_label:
            continue
        thing = class_id in thing_classes
        x, y, width, height = (int(side) for side in boxes[i])
        found.append(
            FoundSegment(
                id=value,
                class_id=class_id,
                instance=instance if thing else None,
                area=int(areas[i]),
                box=(x, y, width, height),
                score=float(scores[i]) if thing and scores is not None else None,
            )
        )
    return found
