"""Any picture comes in upright as RGB, or with a line that says what is wrong with the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from deeplab_tf import pictures
from deeplab_tf.errors import InputError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode: str, color) -> Image.Image:
    return Image.new(mode, (3, 2), color)


def first_pixel(source) -> tuple[int, ...]:
    picture = pictures.read_image(source)
    assert picture.dtype == np.uint8 and picture.shape[-1] == 3
    return tuple(int(c) for c in picture[0, 0])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (encoded(flat("RGB", (10, 20, 30))), (10, 20, 30)),
        (encoded(flat("L", 77)), (77, 77, 77)),
        (encoded(flat("1", 1)), (255, 255, 255)),
        (encoded(flat("1", 0)), (0, 0, 0)),
        (encoded(flat("I;16", 257 * 99)), (99, 99, 99)),
        # A dark picture of 16 bits isn't one of 8 bits.
        (encoded(flat("I;16", 200)), (1, 1, 1)),
        (encoded(flat("RGBA", (10, 20, 30, 255))), (10, 20, 30)),
        (encoded(flat("RGBA", (10, 20, 30, 0))), (255, 255, 255)),
        (encoded(flat("RGBA", (0, 0, 0, 128))), (127, 127, 127)),
        (encoded(flat("LA", (50, 0))), (255, 255, 255)),
        (encoded(flat("LA", (50, 255))), (50, 50, 50)),
        (encoded(flat("F", 0.4), "tiff"), (102, 102, 102)),
        (encoded(flat("F", 128.0), "tiff"), (128, 128, 128)),
        (encoded(flat("I", 257 * 40), "tiff"), (40, 40, 40)),
        (encoded(flat("RGB", RED), "bmp"), RED),
        (encoded(flat("RGB", BLUE), "tiff"), BLUE),
    ],
)
def test_every_mode_becomes_rgb(source, expected):
    assert first_pixel(source) == expected


def test_sixteen_bits_of_colour_keep_their_upper_eight():
    # Pillow can't write one, so by hand: 1 x 1, RGB of 16 bits.
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", 257 * 10, 257 * 20, 257 * 30)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row))
    assert first_pixel(png + chunk(b"IEND", b"")) == (10, 20, 30)


def test_a_palette_with_a_transparent_entry_lies_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    picture = pictures.read_image(encoded(image, transparency=0))
    assert picture.tolist() == [[[255, 255, 255], [*GREEN]]]
    assert pictures.read_image(encoded(image)).tolist() == [[[*RED], [*GREEN]]]


def test_a_transparent_colour_of_an_rgb_file_lies_over_white():
    assert first_pixel(encoded(flat("RGB", RED), transparency=RED)) == (255, 255, 255)


def test_cmyk_is_not_a_negative():
    # Pillow writes CMYK with Adobe's marker, that is inverted, as most such files are.
    red = first_pixel(encoded(flat("CMYK", (0, 255, 255, 0)), "jpeg", quality=95))
    assert red[0] > 240 and red[1] < 30 and red[2] < 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = Image.fromarray(NOISE)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pictures.read_image(encoded(stored, exif=exif)), NOISE)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_hide_a_good_picture():
    assert first_pixel(encoded(flat("RGB", BLUE), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")) == BLUE


def test_the_first_frame_of_an_animation_is_taken():
    frames = [flat("RGB", color) for color in (RED, GREEN)]
    assert first_pixel(encoded(frames[0], "gif", save_all=True, append_images=frames[1:])) == RED


def test_arrays_and_open_pictures_are_taken_too():
    assert pictures.read_image(NOISE) is NOISE
    assert pictures.read_image(NOISE[..., 0]).shape == (60, 90, 3)
    assert pictures.read_image(NOISE[..., :1]).shape == (60, 90, 3)
    assert first_pixel(flat("RGBA", (1, 2, 3, 255))) == (1, 2, 3)
    assert first_pixel(np.zeros((2, 2, 4), np.uint8)) == (255, 255, 255)


@pytest.mark.parametrize(
    "array", [NOISE / 255.0, NOISE[..., :2], NOISE[None], NOISE[:0], np.zeros(3, np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused(array):
    with pytest.raises(InputError, match="a picture array is"):
        pictures.read_image(array)


def test_a_png_named_jpg_is_read(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(NOISE)))
    np.testing.assert_array_equal(pictures.read_image(path), NOISE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"dear diary", "isn't a picture, whatever its name says"),
        (b"", "is empty; copy or download it again"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "is a HEIC picture"),
        (encoded(Image.fromarray(NOISE), "jpeg")[:2000], "is damaged or cut short"),
        (encoded(Image.fromarray(NOISE), "png")[:2000], "is damaged or cut short"),
        (encoded(Image.fromarray(NOISE), "tiff")[:3000], "is damaged or cut short"),
        (encoded(Image.fromarray(NOISE), "bmp")[:3000], "is damaged or cut short"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        pictures.read_image(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="the picture " + reason):
        pictures.read_image(content)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.jpg: no such file"):
        pictures.read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match="is a folder"):
        pictures.read_image(tmp_path)


@pytest.mark.filterwarnings("ignore:Truncated File")
@pytest.mark.parametrize("cut", range(0, 1500, 97))
def test_a_picture_cut_anywhere_never_fails_otherwise(cut):
    for kind in ("jpeg", "png", "gif", "webp", "tiff"):
        data = encoded(Image.fromarray(NOISE[:20, :20]), kind)[:cut]
        try:
            pictures.read_image(data)
        except InputError:
            pass


def test_large_photos_pass_and_absurd_sizes_are_refused(monkeypatch):
    data = encoded(Image.fromarray(NOISE))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert pictures.read_image(data).shape == NOISE.shape
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr(pictures, "LARGEST", 5000)
    with pytest.raises(InputError, match="90 x 60 pixels are too many"):
        pictures.read_image(data)


def test_saved_pictures_come_back(tmp_path):
    rgba = np.dstack([NOISE, NOISE[..., 0]])
    pictures.save_image(tmp_path / "deep" / "a.png", rgba)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "deep" / "a.png")), rgba)
    pictures.save_image(tmp_path / "a.jpg", NOISE)
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_a_label_map_keeps_its_values_under_a_palette(tmp_path):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    pictures.save_image(tmp_path / "m.png", labels, palette=[RED, GREEN, BLUE])
    stored = Image.open(tmp_path / "m.png")
    assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(stored), labels)
    assert stored.convert("RGB").getpixel((1, 0)) == GREEN


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("a.txt", (2, 2, 3), "ending in .png or .jpg"),
        ("a.jpg", (2, 2, 4), "no transparency"),
        ("a.jpg", (1, 65501, 3), "65500"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, shape, reason):
    with pytest.raises(InputError, match=reason):
        pictures.save_image(tmp_path / name, np.zeros(shape, np.uint8))
    assert not list(tmp_path.iterdir())


def test_voc_colours_are_the_published_ones():
    assert pictures.voc_colors(16)[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert pictures.voc_colors(16)[15] == (192, 128, 128)
    assert len(set(pictures.voc_colors(256))) == 256


def test_values_without_a_colour_are_white():
    shown = pictures.colorize(np.array([[1, 7, 255]]), [RED, GREEN])
    assert shown.tolist() == [[[*GREEN], [255, 255, 255], [255, 255, 255]]]


def test_an_overlay_colours_all_but_black_classes():
    image = np.full((1, 3, 3), 100, np.uint8)
    shown = pictures.overlay(image, np.array([[0, 1, 255]]), [(0, 0, 0), (200, 0, 100)])
    assert shown.tolist() == [[[100, 100, 100], [150, 50, 100], [178, 178, 178]]]
    coloured = pictures.overlay(image, np.zeros((1, 3), int), [(200, 0, 100)], alpha=1.0)
    assert coloured[0, 0].tolist() == [200, 0, 100]


def test_a_cut_out_holds_the_picture_and_its_alpha():
    alpha = np.tile(np.linspace(-0.5, 1.5, 90), (60, 1))
    cut = pictures.cut_out(NOISE, alpha)
    np.testing.assert_array_equal(cut[..., :3], NOISE)
    np.testing.assert_array_equal(cut[..., 3], np.rint(np.clip(alpha, 0, 1) * 255))
    np.testing.assert_array_equal(pictures.cut_out(NOISE, cut[..., 3]), cut)


def test_blur_keeps_the_foreground_and_smooths_the_rest():
    alpha = np.zeros((60, 90))
    alpha[:, :45] = 1
    blurred = pictures.blur_background(NOISE, alpha, radius=4)
    np.testing.assert_array_equal(blurred[:, :45], NOISE[:, :45])
    assert blurred[:, 50:].std() < 0.3 * NOISE[:, 50:].std()


@pytest.mark.parametrize("radius", [5, 45, 130.5])
def test_a_wide_blur_is_that_of_the_whole_picture(radius, monkeypatch):
    monkeypatch.setattr(pictures, "_STRIP", 451 * 100)
    small = np.random.default_rng(0).integers(0, 256, (13, 9, 3), np.uint8)
    image = np.asarray(Image.fromarray(small).resize((451, 607), Image.Resampling.BICUBIC))
    wanted = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    found = pictures.blur_background(image, np.zeros((607, 451)), radius).astype(int)
    assert np.abs(found - wanted).max() <= (0 if radius == 5 else 3)


def test_blur_draws_no_halo_of_the_foreground():
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, :45], image[:, 45:] = RED, BLUE
    alpha = np.zeros((60, 90))
    alpha[:, :45] = 1
    beside = pictures.blur_background(image, alpha, radius=6)[:, 45:]
    assert beside[..., 0].max() <= 3 and beside[..., 2].min() >= 250


def test_strips_change_nothing(monkeypatch):
    labels = (NOISE[..., 0] % 3).astype(np.uint8)
    alpha = NOISE[..., 1] / 255
    colors = [(0, 0, 0), RED, GREEN]

    def all_of_them():
        yield pictures.overlay(NOISE, labels, colors)
        yield pictures.cut_out(NOISE, alpha)
        yield pictures.blur_background(NOISE, alpha)

    whole = [*all_of_them()]
    monkeypatch.setattr(pictures, "_STRIP", 7 * 90)
    assert [s.stop - s.start for s in pictures.strips(60, 90)] == [7] * 8 + [4]
    for one, other in zip(whole, all_of_them(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_contact_sheet_holds_every_tile():
    tiles = [
        ("photo", np.full((40, 60, 3), RED, np.uint8)),
        ("cut-out\nover chequers", np.zeros((40, 60, 4), np.uint8)),
        ("grey", np.full((90, 60), 128, np.uint8)),
    ]
    sheet = pictures.contact_sheet(tiles, 2, title="Title", subtitle="and more", width=120)
    assert sheet.dtype == np.uint8
    reds = (sheet == RED).all(-1)
    assert reds.sum() == 120 * 80
    assert (sheet == 222).all(-1).sum() > 120 * 80 * 0.4
    assert (sheet == 128).all(-1).sum() >= 120 * 180
    # Two columns: the grey tile starts a new row under the red one.
    assert np.argwhere((sheet == 128).all(-1))[:, 0].min() > np.argwhere(reds)[:, 0].max()
    plain = pictures.contact_sheet(tiles, 2, width=120)
    assert len(plain) < len(sheet)
