"""The classes of the mask transformers' slots: things first, then stuff, void last.

Data sets have an order of their own. Models, losses and post-processing all ask here.
"""

from collections.abc import Collection

from deeplab_tf.errors import InputError


def class_channels(num_classes: int, ignore_label: int | None) -> int:
    """How many classes a slot chooses from, void among them.

    Args:
        num_classes: of the data set; in some, void is one of them (COCO's is 0).
        ignore_label: the class of pixels that aren't labelled.
    """
    return len(class_order(num_classes, (), ignore_label)) + 1


def class_order(
    num_classes: int, thing_classes: Collection[int], ignore_label: int | None
) -> tuple[int, ...]:
    """The data set's class of each channel, but for the last, which is void.

    Args:
        num_classes, ignore_label: see `class_channels`.
        thing_classes: those that have instances.

    Raises:
        InputError: a thing that is no class, or is what isn't labelled.
    """
    classes = [n for n in range(num_classes) if n != ignore_label]
    strange = sorted(set(thing_classes) - set(classes))
    if strange:
        raise InputError(
            f"thing_classes are among 0..{num_classes - 1} and not ignore_label ({ignore_label}); "
            f"got {strange}."
        )
    things = sorted(set(thing_classes))
    return (*things, *(n for n in classes if n not in things))


def order_of_channels(
    channels: int, thing_classes: Collection[int], ignore_label: int | None
) -> tuple[int, ...]:
    """`class_order` of a model whose slots choose from so many channels, void among them."""
    known = channels - 1
    # Void is one of the data set's numbers: there is one more than slots know.
    is_class = ignore_label is not None and ignore_label <= known
    return class_order(known + is_class, thing_classes, ignore_label)
