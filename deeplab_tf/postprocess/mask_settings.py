"""How a mask transformer's slots become one panoptic map: settings, without Keras.

A slot is a mask and a class. `RULES` are deeplab2's two ways to make one map of all slots:

- "pixelwise" (MaX-DeepLab, https://arxiv.org/abs/2012.00759, Sec. 3.1): slots that aren't sure of
  their class are dropped. Each pixel belongs to the slot with its largest mask logit, unless that
  one is dropped or the pixel isn't sure of it.
- "maskwise" (kMaX-DeepLab, https://arxiv.org/abs/2207.04044): the pixels of each mask are those
  that are sure of it. Masks are pasted one after another, the surest first, where nothing is yet;
  one of which others cover too much is left out.
"""

import dataclasses

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess.panoptic_settings import PanopticSettings

RULES = ("pixelwise", "maskwise")
_SHARES = (
    *("pixel_confidence_threshold", "class_confidence_threshold"),
    *("class_confidence_threshold_thing", "class_confidence_threshold_stuff"),
    "overlap_threshold",
)


@dataclasses.dataclass(frozen=True)
class MaskSettings(PanopticSettings):
    """Settings of the merge; the defaults are deeplab2's for MaX-DeepLab on COCO at 641x641.

    A model's record names its rule always: no rule is one of `MergeSettings` too, so it tells
    which of the two settings a record holds.

    Attributes:
        thing_classes: the classes that have instances.
        label_divisor: a panoptic label is class * label_divisor + instance, and the instance is the
            slot's number from 1; so it is above the number of slots.
        void_label: class of what belongs to nothing; no slot's.
        rule: one of `RULES`.
        thing_area_limit: pixels that an instance needs to stay. Pixels of this and the next are
            those of the model's input.
        stuff_area_limit: pixels that a stuff class needs in a picture to stay.
        pixel_confidence_threshold: a pixel's probability of a slot is above this.
        class_confidence_threshold: a slot's probability of its class is at least this; "pixelwise".
        class_confidence_threshold_thing, class_confidence_threshold_stuff: the same of slots of
            things and of stuff; "maskwise".
        overlap_threshold: of a mask's pixels more than this share are still free; "maskwise".
        class_weight, mask_weight: masks are pasted by the product of their probability of the class
            and the mean probability of their pixels, each to the power of its weight; "maskwise".

    Raises:
        InputError: a value of another type or range, or void is a thing.
    """

    rule: str = "pixelwise"
    thing_area_limit: int = 100
    stuff_area_limit: int = 1600
    pixel_confidence_threshold: float = 0.4
    class_confidence_threshold: float = 0.7
    class_confidence_threshold_thing: float = 0.7
    class_confidence_threshold_stuff: float = 0.5
    overlap_threshold: float = 0.8
    class_weight: float = 1.0
    mask_weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.rule not in RULES:
            raise InputError(f"rule is one of {[*RULES]}; got {self.rule!r}.")
        if self.void_label in self.thing_classes:
            raise InputError(
                f"void_label is none of the thing_classes {[*self.thing_classes]}; got "
                f"{self.void_label}."
            )
        self._check_whole_numbers(thing_area_limit=0, stuff_area_limit=0)
        self._check_numbers(*_SHARES, least=0.0, most=1.0)
        self._check_numbers("class_weight", "mask_weight", least=0.0)
