"""The masks of a picture, read from its labels at the size of a model's outputs."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.models.mask_classes import class_order

# Of the outputs of any model: powers of two.
_STRIDES = tuple(2**i for i in range(11))


class Masks(NamedTuple):
    """The masks of a batch: its things by number, then every stuff class. P pixels, M masks.

    A pixel belongs to one mask or to none: to none if it isn't labelled, or labelled as a crowd.

    Attributes:
        labelled: whether a pixel has a class, bool [B, P].
        thing: whether a pixel belongs to a thing, bool [B, P].
        number: the mask of each pixel, int32 [B, P], -1: none.
        of_pixel: the same as 0 and 1, float32 [B, P, M].
        area: pixels of each mask, float32 [B, M].
        channel: class channel of each mask, int32 [B, M], -1 where it has no pixel.
    """

    labelled: Any
    thing: Any
    number: Any
    of_pixel: Any
    area: Any
    channel: Any

    @property
    def present(self):
        """Which masks there are, bool [B, M]."""
        return self.channel >= 0


def read_masks(
    targets: dict,
    size,
    *,
    num_classes: int,
    thing_classes: Collection[int],
    ignore_label: int,
) -> Masks:
    """The masks of labels, strided to an output's size.

    Args:
        targets: "semantic_label" int32 [B, H, W], "thing_id_mask" int32 [B, H, W] (-1 outside
            things) and "thing_id_class" [B, T] (-1 after the last thing). T is static.
        size: (height, width) of the output.
        num_classes, thing_classes, ignore_label: see `mask_classes.class_order`.
    """
    order = class_order(num_classes, thing_classes, ignore_label)
    # The last place is that of every value that is no class.
    channels = np.full(num_classes + 1, -1, np.int32)
    channels[list(order)] = np.arange(len(order))
    first_stuff = len(set(thing_classes))
    stuff = np.arange(first_stuff, len(order), dtype=np.int32)

    def channel_of(classes):
        known = (classes >= 0) & (classes < num_classes)
        return ops.take(channels, ops.where(known, classes, num_classes), axis=0)

    of_thing = channel_of(ops.cast(targets[keys.THING_ID_CLASS], "int32"))
    batch, things = ops.shape(of_thing)[0], of_thing.shape[1]
    of_stuff = ops.broadcast_to(stuff[None], (batch, len(stuff)))
    of_pixel = channel_of(_pixels(targets[keys.SEMANTIC_LABEL], size))
    thing_id = _pixels(targets[keys.THING_ID_MASK], size)

    thing = (thing_id >= 0) & (thing_id < things)
    number = ops.where(of_pixel >= first_stuff, of_pixel - first_stuff + things, -1)
    number = ops.where(thing, thing_id, number)
    masks = ops.arange(things + len(stuff), dtype="int32")
    one_hot = ops.cast(number[..., None] == masks, "float32")
    area = ops.sum(one_hot, axis=1)
    channel = ops.concatenate([of_thing, of_stuff], axis=1)
    return Masks(
        labelled=of_pixel >= 0,
        thing=thing,
        number=number,
        of_pixel=one_hot,
        area=area,
        channel=ops.where(area > 0, channel, -1),
    )


def _pixels(labels, size):
    """Labels [B, H, W] at the size of an output: int32 [B, h * w]."""
    return ops.reshape(strided(ops.cast(labels, "int32"), size), (-1, size[0] * size[1]))


def strided(labels, size):
    """Every how-many-th label an output has a pixel of: [B, H, W] -> [B, *size].

    A stride s, a power of two, makes ceil(H / s) rows of H. That tells s from both, also where H
    isn't one of the sizes 4k + 1 that the official code demands.

    Raises:
        InputError: there is no such stride.
    """
    rows, columns = (_stride(*ends) for ends in zip(ops.shape(labels)[1:3], size, strict=True))
    # TensorFlow forgets how many axes there are where a stride is a tensor.
    return ops.reshape(labels[:, ::rows, ::columns], (-1, *size))


def _stride(labels, pixels):
    """The stride that makes so many pixels of so many labels."""
    if not (isinstance(labels, int) and isinstance(pixels, int)):
        strides = ops.convert_to_tensor(_STRIDES, "int32")
        fitting = ops.where(strides * (pixels - 1) < labels, strides, 1)
        return ops.where(pixels > 1, ops.max(fitting), ops.maximum(labels, 1))
    fitting = (s for s in _STRIDES if s * (pixels - 1) < labels)
    stride = max(fitting, default=1) if pixels > 1 else labels
    if -(-labels // stride) != pixels:
        raise InputError(
            f"Outputs are labels at a stride of 2, 4, 8, …; got {pixels} of {labels} pixels."
        )
    return stride
