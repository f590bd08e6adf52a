"""Every kind of mask file gives the labels its painter meant, or an error that says why not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from deeplab_tf.datasets.classes import TWO_CLASSES, Classes
from deeplab_tf.datasets.masks import (
    MaskError,
    one_class_text,
    read_mask,
    value_counts,
    values_fix,
    wrong_values,
)
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import colorize, save_image

COLORS = ((0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200))
PLAIN = Classes(("ground", "red", "green", "blue"), COLORS)
COLORED = dataclasses.replace(PLAIN, colored=True, ignore_label=255, ignore_color=(255, 255, 255))
LABELS = np.array([[0, 1, 2], [3, 2, 255]], np.uint8)


def save(tmp_path, image: Image.Image | np.ndarray, name: str = "m.png", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / name, **options)
    return tmp_path / name


@settings(deadline=None, max_examples=40)
@given(
    labels=arrays.arrays(
        st.sampled_from((np.uint8, np.uint16)), arrays.array_shapes(min_dims=2, max_dims=2)
    )
)
def test_one_channel_comes_back_as_it_is(tmp_path_factory, labels):
    path = save(tmp_path_factory.mktemp("m"), labels)
    np.testing.assert_array_equal(read_mask(path, PLAIN), labels)


@settings(deadline=None, max_examples=40)
@given(
    labels=arrays.arrays(
        np.uint8, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.sampled_from(range(4))
    )
)
def test_values_palette_and_colours_say_the_same(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("m")
    save_image(folder / "palette.png", labels, palette=COLORS)
    for path in (
        save(folder, labels),
        folder / "palette.png",
        save(folder, colorize(labels, COLORS), "colours.png"),
        save(folder, colorize(labels, COLORS), "colours.bmp"),
    ):
        np.testing.assert_array_equal(read_mask(path, COLORED), labels)


def test_the_colour_to_ignore_gives_the_value_to_ignore(tmp_path):
    path = save(tmp_path, colorize(LABELS, COLORS))
    np.testing.assert_array_equal(read_mask(path, COLORED), LABELS)


def test_a_palette_of_other_colours_is_for_display_only(tmp_path):
    save_image(tmp_path / "m.png", LABELS, palette=[(9, 9, 9), (1, 2, 3), (4, 5, 6), (7, 8, 9)])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", COLORED), LABELS)


def test_a_palette_in_another_order_than_the_classes_is_refused(tmp_path):
    """What image editors make of a colour mask when they reduce its colours."""
    swapped = [COLORS[0], COLORS[2], COLORS[1], COLORS[3]]
    save_image(tmp_path / "m.png", np.array([[0, 1], [2, 3]], np.uint8), palette=swapped)
    with pytest.raises(MaskError, match="index 1 of its palette has the colour of class 2") as e:
        read_mask(tmp_path / "m.png", COLORED)
    assert e.value.kind == "palette" and "Save the mask as RGB" in str(e.value)
    # Without colours in the class file, indices are all there is.
    assert read_mask(tmp_path / "m.png", PLAIN).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_values(tmp_path, bits):
    import struct
    import zlib

    labels = np.arange(8, dtype=np.uint8).reshape(1, 8) % 2**bits
    row = np.zeros(8 * bits, np.uint8)
    for place, value in enumerate(labels[0]):
        row[place * bits : (place + 1) * bits] = [int(c) for c in f"{value:0{bits}b}"]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + np.packbits(row).tobytes())),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks
    )
    (tmp_path / "m.png").write_bytes(data)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", PLAIN), labels)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA"])
def test_black_and_white_is_two_classes_in_any_mode(tmp_path, mode):
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    path = save(tmp_path, Image.fromarray(mask).convert(mode))
    assert read_mask(path, TWO_CLASSES).tolist() == [[0, 1], [1, 0]]


def test_zero_and_one_are_two_classes_as_well(tmp_path):
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    assert read_mask(save(tmp_path, mask), TWO_CLASSES).tolist() == mask.tolist()


def test_white_stays_255_where_classes_are_listed(tmp_path):
    mask = np.array([[0, 255]], np.uint8)
    assert read_mask(save(tmp_path, mask), PLAIN).tolist() == [[0, 255]]


def test_grey_stored_as_rgb_is_read_as_grey(tmp_path):
    path = save(tmp_path, np.repeat(LABELS[..., None], 3, -1))
    np.testing.assert_array_equal(read_mask(path, COLORED), LABELS)


def test_colours_of_no_class_are_counted_and_the_first_is_shown(tmp_path):
    pixels = colorize(LABELS, COLORS)
    pixels[1, 0] = (1, 2, 3)
    with pytest.raises(MaskError) as error:
        read_mask(save(tmp_path, pixels), COLORED)
    assert error.value.kind == "colors"
    assert "m.png: the colour (1, 2, 3) at row 1, column 0 is no class's" in str(error.value)
    assert "1 such colours, 16.67% of the pixels" in str(error.value)


def test_colours_need_a_class_file_that_lists_them(tmp_path):
    with pytest.raises(MaskError, match="the class file has none; add columns red,green,blue"):
        read_mask(save(tmp_path, colorize(LABELS, COLORS)), PLAIN)


def test_labels_are_whole_numbers_in_range(tmp_path):
    for name, values in (("a.tiff", np.float32([[0, 0.5]])), ("b.tiff", np.int32([[0, -1]]))):
        with pytest.raises(MaskError, match=f"{name}: label"):
            read_mask(save(tmp_path, values, name), PLAIN)
    path = save(tmp_path, np.float32([[0, 3]]), "c.tiff")
    assert read_mask(path, PLAIN).tolist() == [[0, 3]]


def test_a_cut_mask_names_the_file(tmp_path):
    path = save(tmp_path, np.random.default_rng(0).integers(0, 4, (40, 40)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"m\.png is damaged or cut short"):
        read_mask(path, PLAIN)


@settings(deadline=None, max_examples=40)
@given(
    labels=arrays.arrays(np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20)),
    count=st.integers(2, 400),
)
def test_counts_and_wrong_values_are_those_of_a_plain_count(labels, count):
    counts = value_counts(labels)
    assert counts.sum() == labels.size
    assert all(counts[value] == (labels == value).sum() for value in np.unique(labels))
    classes = Classes(("c",) * count, ((0, 0, 0),) * count)
    allowed = {*range(count), classes.ignored}
    assert wrong_values(counts, classes) == sorted({*labels.ravel().tolist()} - allowed)


@pytest.mark.parametrize(
    ("values", "classes", "fix"),
    [
        ([4], PLAIN, "start at 1: subtract 1"),
        ([*range(4, 60)], PLAIN, "grey levels, not classes"),
        ([128], TWO_CLASSES, "0 and 1, or 0 and 255"),
        ([40, 80], PLAIN, "use 255 for what to ignore"),
        ([40, 80], dataclasses.replace(PLAIN, ignore_label=4), "or repaint them with a class."),
    ],
)
def test_the_fix_follows_from_what_the_values_look_like(values, classes, fix):
    assert fix in values_fix(values, classes)


def test_training_masks_of_one_class_are_seen():
    two = Classes(("ground", "plant"), COLORS[:2])
    assert one_class_text({0: 5, 1: 5}, two) is None
    assert "nothing but 'ground'" in one_class_text({0: 9}, two)[0]
    assert "no class at all" in one_class_text({255: 9}, two)[0]
    # The trap of black and white masks beside a class file: all white would be ignored.
    assert "write 255 as its index" in one_class_text({0: 5, 255: 5}, two)[1]
