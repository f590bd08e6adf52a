"""The slots of a mask transformer become one panoptic map, at a picture's own size."""

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from deeplab_tf import keys
from deeplab_tf.inference.base import Prepared, label_dtype, softmax
from deeplab_tf.inference.panoptic import PanopticScoreMap, mask_settings
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.mask_classes import order_of_channels
from deeplab_tf.postprocess.mask_settings import MaskSettings


@dataclasses.dataclass(frozen=True)
class MaskScoreMap(PanopticScoreMap):
    """A panoptic answer made of masks.

    Attributes:
        values: what slots and their classes say together, float32 [h, w, classes].
        settings: of the merge.
        mask_logits: float32 [h, w, slots].
        class_logits: float32 [slots, classes and void].
        reach: (height, width) of what the mask logits cover, in the picture's pixels: a little
            more than the picture where that ends between two of their cells.
        area_scale: pixels of the picture for one of the model's input.
    """

    settings: MaskSettings
    mask_logits: np.ndarray
    class_logits: np.ndarray
    reach: tuple[int, int]
    area_scale: float

    @functools.cached_property
    def merged(self) -> dict[str, np.ndarray]:
        """What `merge_masks` finds, [H, W] each."""
        import keras

        from deeplab_tf.postprocess.masks import merge_masks

        found = merge_masks(
            self.mask_logits[None],
            self.class_logits[None],
            self.settings,
            self.reach,
            area_scale=self.area_scale,
        )
        height, width = self.size
        arrays = {name: keras.ops.convert_to_numpy(x)[0] for name, x in found.items()}
        return {name: x[:height, :width] for name, x in arrays.items()}

    def labels(self) -> np.ndarray:
        """The class of the slot that each pixel belongs to; nothing is void."""
        return self.merged[keys.SEMANTIC_LABEL].astype(label_dtype(self.num_classes))


def mask_scores(
    maps: Mapping[str, np.ndarray], prepared: Prepared, size: tuple[int, int], info: ModelInfo
) -> MaskScoreMap:
    """What a mask transformer says of one picture.

    Args:
        maps: its mask logits [h, w, slots] and class logits [slots, classes and void].
        prepared: what it saw.
        size: (height, width) of the picture.
        info: of the model.
    """
    mask_logits, class_logits = maps[keys.MASK_LOGITS], maps[keys.MASK_CLASS_LOGITS]
    sides, reach = [], []
    for cells, whole, filled, side in zip(
        mask_logits.shape, prepared.image.shape, prepared.filled, size, strict=False
    ):
        # Corner on corner: cells lie so many pixels of the model's input apart.
        stride = (whole - 1) / max(cells - 1, 1)
        sides.append(min(cells, math.ceil((filled - 1) / stride) + 1) if stride else 1)
        covered = stride * (sides[-1] - 1) + 1
        reach.append(max(side, round(side * covered / filled)))
    mask_logits = mask_logits[: sides[0], : sides[1]]
    settings = mask_settings(info)
    area = size[0] * size[1] / (prepared.filled[0] * prepared.filled[1])
    return MaskScoreMap(
        _class_probabilities(mask_logits, class_logits, settings),
        size,
        settings,
        mask_logits,
        class_logits,
        (reach[0], reach[1]),
        area,
    )


def _class_probabilities(mask_logits, class_logits, settings: MaskSettings) -> np.ndarray:
    """Of each cell, by the data set's order of classes: float32 [h, w, classes]."""
    order = order_of_channels(class_logits.shape[-1], settings.thing_classes, settings.void_label)
    count = len(order) + (settings.void_label <= len(order))  # where void is one of the classes
    of_slots = np.zeros((len(class_logits), count), np.float32)
    of_slots[:, order] = softmax(class_logits)[:, :-1]
    found = softmax(mask_logits) @ of_slots
    total = np.maximum(found.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    return found / total
