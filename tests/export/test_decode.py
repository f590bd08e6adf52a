"""A graph decodes files to the pixels that Pillow gives: a server says what `predict` says."""

import io

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.cbook import get_sample_data
from PIL import Image

from deeplab_tf.export.decode import decode
from deeplab_tf.pictures import read_image


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).resize((61, 43))


@pytest.fixture(scope="module")
def in_graph():
    return tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


def content(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (43, 61)).astype(np.uint8)
    image = image.copy()
    image.putalpha(Image.fromarray(values))
    return image


FILES = {
    "JPEG": lambda p: content(p, "JPEG", quality=60, subsampling=2),
    "progressive JPEG": lambda p: content(p, "JPEG", progressive=True),
    "grey JPEG": lambda p: content(p.convert("L"), "JPEG"),
    "CMYK JPEG": lambda p: content(p.convert("CMYK"), "JPEG"),
    "PNG": lambda p: content(p, "PNG"),
    "grey": lambda p: content(p.convert("L"), "PNG"),
    "black and white": lambda p: content(p.convert("1"), "PNG"),
    "16 bits": lambda p: content(
        Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 257), "PNG"
    ),
    "RGBA": lambda p: content(with_alpha(p), "PNG"),
    "grey with alpha": lambda p: content(with_alpha(p.convert("L")), "PNG"),
    "transparent colour": lambda p: content(p, "PNG", transparency=p.getpixel((3, 3))),
    "transparent grey": lambda p: content(p.convert("L"), "PNG", transparency=100),
    **{
        f"palette of {bits} bits": lambda p, bits=bits: content(
            p.quantize(2**bits), "PNG", bits=bits
        )
        for bits in (1, 2, 4, 8)
    },
    **{
        f"palette of {bits} bits with transparency": lambda p, bits=bits: content(
            p.quantize(2**bits), "PNG", bits=bits, transparency=bytes([0, 128])
        )
        for bits in (1, 4, 8)
    },
    "BMP": lambda p: content(p, "BMP"),
    "GIF": lambda p: content(p.quantize(64), "GIF"),
}


@pytest.mark.parametrize("kind", FILES)
def test_pixels_are_those_of_pillow(in_graph, photo, kind):
    file = FILES[kind](photo)
    np.testing.assert_array_equal(in_graph(tf.constant(file)).numpy(), read_image(file))


@pytest.mark.parametrize("file", [b"", b"hello", b"\x89PNG", b"\xff\xd8"])
def test_what_is_no_picture_is_an_error(in_graph, file):
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_graph(tf.constant(file))
