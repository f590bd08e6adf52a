"""EXIF rotation in a graph is what Pillow makes of it."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from deeplab_tf.export.orientation import read_orientation, upright

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def photo(orientation: int | None, endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "A maker"
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_equals_pillow(orientation, endian):
    content = photo(orientation, endian)
    opened = Image.open(io.BytesIO(content))
    decoded = np.asarray(opened)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def turn(content):
        return upright(tf.constant(decoded), content)

    assert int(read_orientation(tf.constant(content))) == orientation
    np.testing.assert_array_equal(
        turn(tf.constant(content)), np.asarray(ImageOps.exif_transpose(opened))
    )


@pytest.mark.parametrize(
    "content",
    [
        photo(None),
        photo(9),
        b"\xff\xd8",
        b"",
        b"\x89PNG" + photo(6)[4:],
        b"\xff\xd8" + b"\x12\x01\x03\x00\x01\x00\x00\x00",
    ],
    ids=["no tag", "an unknown value", "two bytes", "nothing", "no JPEG", "a tag without value"],
)
def test_anything_else_is_upright(content):
    assert int(read_orientation(tf.constant(content))) == 1
