"""The maps of a panoptic model become one panoptic map, at a picture's own size.

NumPy and Pillow only.
"""

import abc
import dataclasses
import functools
from typing import Any

import numpy as np

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import ScoreMap
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.mask_settings import RULES as MASK_RULES
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.panoptic_numpy import OPS, merge
from deeplab_tf.postprocess.panoptic_rules import find_centers


def merge_settings(info: ModelInfo) -> MergeSettings | MaskSettings:
    """How a model's answers are merged, by its record.

    Raises:
        InputError: the record doesn't say which classes have instances, or has a setting that
            makes no sense.
    """
    return mask_settings(info) if info.merge.get("rule") in MASK_RULES else center_settings(info)


def center_settings(info: ModelInfo) -> MergeSettings:
    """`merge_settings` of a model that finds centres."""
    return MergeSettings(**_known(info), **info.merge)


def mask_settings(info: ModelInfo) -> MaskSettings:
    """`merge_settings` of a mask transformer."""
    return MaskSettings(**_known(info), **info.merge)


def _known(info: ModelInfo) -> dict[str, Any]:
    """What both kinds of settings take from a model's record."""
    if info.label_divisor is None or not info.thing_classes or info.ignore_label is None:
        raise InputError(
            "the model's record doesn't say which of its classes have instances: thing_classes, "
            "label_divisor and ignore_label of its ModelInfo. Training and the presets write them."
        )
    return dict(
        thing_classes=info.thing_classes,
        label_divisor=info.label_divisor,
        void_label=info.ignore_label,
    )


@dataclasses.dataclass(frozen=True)
class PanopticScoreMap(ScoreMap):
    """A `ScoreMap` whose pixels are grouped into instances.

    Attributes:
        settings: of the merge.
    """

    settings: MergeSettings | MaskSettings

    @property
    @abc.abstractmethod
    def merged(self) -> dict[str, np.ndarray]:
        """panoptic_label int32 and instance_score float32, [H, W]: see `panoptic_numpy.merge`."""

    @property
    def panoptic_label(self) -> np.ndarray:
        """class * label_divisor + instance, int32 [H, W]; void is void_label * label_divisor."""
        return self.merged[keys.PANOPTIC_LABEL]

    def probability_of(self, labels: np.ndarray) -> np.ndarray:
        """The probability of each pixel's class in a map of classes [H, W]: float32 [H, W]."""
        result = np.zeros(self.size, np.float32)
        for index in np.unique(labels):
            mask = labels == index
            result[mask] = self._enlarge(self.values[..., index], slice(0, self.size[0]))[mask]
        return result


@dataclasses.dataclass(frozen=True)
class HeadScoreMap(PanopticScoreMap):
    """A panoptic answer that is still to be merged.

    Attributes:
        settings: of the merge.
        center_heatmap: float32 [h, w].
        offset_map: float32 [h, w, 2], (y, x) in pixels of this map.
    """

    settings: MergeSettings
    center_heatmap: np.ndarray
    offset_map: np.ndarray

    @functools.cached_property
    def merged(self) -> dict[str, np.ndarray]:
        """panoptic_label, instance_score and instance_map: see `panoptic_numpy.merge`; [H, W].

        Centres are sought where the model saw them, in its own resolution: enlarged first, a peak
        would become a plateau, and each of its pixels a centre. Classes and offsets are enlarged,
        and pixels grouped in the picture's resolution, so that edges are as fine as its.
        """
        settings, heatmap = self.settings, self.center_heatmap
        if heatmap.shape == self.size:
            return merge(self.labels(), heatmap, self.offset_map, settings)
        scales = [large / small for large, small in zip(self.size, heatmap.shape, strict=True)]
        rows, whole = slice(0, self.size[0]), np.zeros(self.size, np.float32)
        positions, scores, count = find_centers(OPS, heatmap, settings)
        places = np.divmod(positions[:count], heatmap.shape[1])
        inside = [
            np.clip(np.rint((place + 0.5) * scale - 0.5), 0, side - 1).astype(np.int64)
            for place, scale, side in zip(places, scales, self.size, strict=True)
        ]
        # Where a picture is smaller than the map, two peaks may meet: the higher one stays.
        np.maximum.at(whole, tuple(inside), scores[:count])
        offsets = np.empty((*self.size, 2), np.float32)
        for axis, scale in enumerate(scales):
            self._enlarge(self.offset_map[..., axis] * np.float32(scale), rows, offsets[..., axis])
        settings = dataclasses.replace(
            settings,
            nms_kernel=1,
            stuff_area_limit=round(settings.stuff_area_limit * scales[0] * scales[1]),
        )
        return merge(self.labels(), whole, offsets, settings)
