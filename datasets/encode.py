"""A picture and its label -> one record, checked."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.masks import describe_values, value_counts, wrong_values
from deeplab_tf.datasets.source import Item
from deeplab_tf.datasets.tfrecord import encode_example, encode_label_map, encode_raw_map
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import open_image, read_image

_ORIENTATION = 0x0112
SIZES_FIX = "make them the same size (masks: nearest neighbour)."
_PNG_END = b"IEND\xaeB`\x82"


def encode_item(item: Item, classes: Classes) -> tuple[bytes, np.ndarray]:
    """The record of one picture, and its label values, int64 [65536].

    A picture's bytes are kept where TensorFlow decodes them to what people see, whatever the
    suffix of its name says. Anything else is brought to upright 8-bit RGB and kept without loss.

    Raises:
        InputError: the picture or mask is broken, sizes differ, or a value is no class's.
    """
    image = open_item_picture(item)
    data = item.picture if isinstance(item.picture, bytes) else item.picture.read_bytes()
    if _is_plain(image, data):
        image_format = "png" if image.format == "PNG" else "jpeg"
        height, width = image.height, image.width
    else:
        pixels = read_image(image)
        data, image_format = tf.io.encode_png(pixels).numpy(), "png"
        height, width = pixels.shape[:2]
    label = item.read_label()
    semantic = label if item.label_divisor is None else label // item.label_divisor
    message = describe_sizes(item, image, label.shape)
    if message:
        raise InputError(message)
    counts = value_counts(semantic)
    wrong = wrong_values(counts, classes)
    if wrong:
        raise InputError(describe_values(item.label_name, wrong, classes))
    record = encode_example(
        image=data,
        image_format=image_format,
        label=encode_label_map(label) if label is semantic else encode_raw_map(label),
        label_format="png" if label is semantic else "raw",
        height=height,
        width=width,
        name=item.name,
    )
    return record, counts


def open_item_picture(item: Item) -> Image.Image:
    """Opens and decodes the picture.

    Raises:
        InputError: it is broken, or no picture.
    """
    if not isinstance(item.picture, bytes):
        return open_image(item.picture)
    try:
        return open_image(item.picture)
    except InputError as error:
        raise InputError(str(error).replace("the picture", item.name, 1)) from None


def look_at_picture(
    item: Item, problems: list[tuple[str, str]]
) -> tuple[Image.Image | None, bytes]:
    """The picture of a file, None if it is broken, which `problems` then say; and its digest."""
    assert isinstance(item.picture, Path)
    try:
        return open_item_picture(item), hashlib.sha1(item.picture.read_bytes()).digest()
    except (InputError, OSError) as error:
        problems.append(("picture", str(error)))
        return None, b""


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether TensorFlow decodes these bytes to upright RGB, and to the same as Pillow."""
    if image.getexif().get(_ORIENTATION, 1) != 1 or "transparency" in image.info:
        return False
    if image.format in ("JPEG", "MPO"):
        return image.mode in ("RGB", "L")
    # Pillow forgives a PNG without its end, TensorFlow doesn't.
    return image.format == "PNG" and image.mode == "RGB" and _PNG_END in data[-4096:]


def describe_sizes(item: Item, image: Image.Image, label_size: Sequence[int]) -> str:
    """The message for a label of another size than its picture; empty if they agree."""
    height, width = image.height, image.width
    turned = image.getexif().get(_ORIENTATION, 1) >= 5
    if turned:
        height, width = width, height
    if tuple(label_size) == (height, width):
        return ""
    fix = SIZES_FIX
    if turned and tuple(label_size) == (width, height):
        fix = "the picture is stored lying and shown upright (EXIF): turn the mask likewise."
    return (
        f"{item.label_name} is {label_size[1]} x {label_size[0]} but {item.name} is "
        f"{width} x {height}; {fix}"
    )
