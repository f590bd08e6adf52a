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

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess.panoptic_settings import MAX_CLASSES, PanopticSettings

__all__ = ["MAX_CENTERS", "MAX_CLASSES", "RULES", "MergeSettings"]

RULES = ("tensorflow", "compiled", "pytorch")
# Centres that "keep all" keeps at most: a flat heatmap has one in every pixel.
MAX_CENTERS = 4096


@dataclasses.dataclass(frozen=True)
class MergeSettings(PanopticSettings):
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

    center_threshold: float = 0.1
    nms_kernel: int = 13
    keep_k_centers: int = 200
    stuff_area_limit: int = 2048
    rule: str = "tensorflow"

    def __post_init__(self):
        super().__post_init__()
        self._check_whole_numbers(nms_kernel=1, keep_k_centers=None, stuff_area_limit=0)
        self._check_numbers("center_threshold")
        if self.rule not in RULES:
            raise InputError(f"rule is one of {[*RULES]}; got {self.rule!r}.")
        if self.rule == "pytorch" and self.nms_kernel % 2 == 0:
            raise InputError(f'nms_kernel is odd under the rule "pytorch"; got {self.nms_kernel}.')

    @property
    def max_centers(self) -> int:
        """The most centres that are kept, "all" resolved."""
        return min(self.keep_k_centers, MAX_CENTERS) if self.keep_k_centers > 0 else MAX_CENTERS
