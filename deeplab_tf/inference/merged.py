"""Panoptic answers of models that merge by themselves. NumPy and Pillow only."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from PIL import Image

from deeplab_tf import keys
from deeplab_tf.inference.panoptic import PanopticScoreMap, merge_settings
from deeplab_tf.models.info import ModelInfo


@dataclasses.dataclass(frozen=True)
class MergedScoreMap(PanopticScoreMap):
    """A panoptic answer that came merged.

    Attributes:
        label: the panoptic map as it came, int32 [h, w].
        score: the heatmap at each pixel's centre, float32 [h, w].
    """

    label: np.ndarray
    score: np.ndarray

    @functools.cached_property
    def merged(self) -> dict[str, np.ndarray]:
        """panoptic_label and instance_score, [H, W]; of the nearest pixel in a larger picture."""
        return {
            keys.PANOPTIC_LABEL: self._nearest(self.label.astype(np.int32)),
            keys.INSTANCE_SCORE: self._nearest(self.score.astype(np.float32)),
        }

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        if values.shape == self.size:
            return values
        image = Image.fromarray(values)
        return np.asarray(image.resize(self.size[::-1], Image.Resampling.NEAREST))


def merged_scores(
    maps: Mapping[str, np.ndarray], size: tuple[int, int], info: ModelInfo
) -> MergedScoreMap:
    """What a SavedModel with the merge inside says of one picture.

    Args:
        maps: "panoptic_label" [h, w], "instance_score" [h, w] and "probabilities" [h, w, classes].
        size: (height, width) of the picture.
        info: of the model.
    """
    return MergedScoreMap(
        maps[keys.PROBABILITIES],
        size,
        merge_settings(info),
        maps[keys.PANOPTIC_LABEL],
        maps[keys.INSTANCE_SCORE],
    )
