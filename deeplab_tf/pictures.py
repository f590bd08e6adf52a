"""Reading, drawing and writing pictures: Pillow and NumPy only.

Whatever needs more than a few bytes per pixel goes in strips, so that a picture of a hundred
megapixels fits into memory.
"""

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFilter, ImageFont, ImageOps, UnidentifiedImageError

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
JPEG_SUFFIXES = (".jpg", ".jpeg")
# Four times what Pillow accepts: 400 megapixels, 1.2 GB as RGB. Beyond, a file is rather a trap.
LARGEST = 400_000_000
_STRIP = 4_000_000
# Radius in pixels down to which a picture is shrunk before it is blurred.
_BLUR_AT_LEAST = 20
_LIMIT = threading.Lock()

Colors = Sequence[tuple[int, int, int]]


def open_image(source: str | os.PathLike | bytes) -> Image.Image:
    """Opens and decodes a picture as it is stored; the suffix of its name doesn't matter.

    Raises:
        InputError: the file is missing, cut short, no picture, or absurdly large.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        image = _open(io.BytesIO(source) if isinstance(source, bytes) else source, name)
        image.load()
        return image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, not a picture.") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it; change that, or copy it.") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} {_what_else(source)}.") from None
    except MemoryError:
        raise InputError(f"{name}: too large for this machine's memory; shrink it.") from None
    except Exception as error:  # decoders raise nearly anything on broken bytes
        raise InputError(
            f"{name} is damaged or cut short ({error}); copy or download it again."
        ) from None


def _open(file, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(file)
        except Image.DecompressionBombError:
            pass
        # Pillow's limit is global: lift it for as long as one header takes.
        with _LIMIT:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > LARGEST:
        raise InputError(
            f"{name}: {image.width} x {image.height} pixels are too many (at most "
            f"{LARGEST // 10**6} million); shrink the picture or cut it into parts."
        )
    return image


def _what_else(source: str | os.PathLike | bytes) -> str:
    """What a file is that Pillow doesn't know, and what to do, in words."""
    if isinstance(source, bytes):
        head = source[:12]
    else:
        with open(source, "rb") as file:
            head = file.read(12)
    if not head:
        return "is empty; copy or download it again"
    if head[4:8] == b"ftyp":
        return "is a HEIC picture or a video; save it as JPEG or PNG"
    return "isn't a picture, whatever its name says; save it as JPEG or PNG"


def read_image(source: str | os.PathLike | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """Any picture as upright RGB: uint8 [H, W, 3].

    EXIF rotation is applied; grey, palette, CMYK and 16-bit pictures are converted; transparent
    pixels lie over white; of an animation, the first frame is taken.

    Raises:
        InputError: see `open_image`; or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    image = source if isinstance(source, Image.Image) else open_image(source)
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
            image = ImageOps.exif_transpose(image)
    except Exception:  # EXIF that can't be read says nothing on the rotation
        pass
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(np.asarray(image), sixteen_bits=image.mode.startswith("I;16"))
    if {"A", "a"} & {*image.getbands()} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = image if image.mode == "RGB" else image.convert("RGB")
    result = np.empty((image.height, image.width, 3), np.uint8)
    for rows in strips(image.height, image.width):  # at once it would take twice as much
        result[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return result


def _from_wide(values: np.ndarray, *, sixteen_bits: bool) -> np.ndarray:
    """Grey of more than 8 bits -> uint8 RGB. Where the type doesn't say the range, the values do:
    floats up to 1, then 8 bits, then 16."""
    values = np.nan_to_num(values.astype(np.float32), nan=0.0).clip(0)
    highest = values.max(initial=0)
    if highest > 65535:
        raise InputError(
            f"a grey picture with values up to {highest:g} has no known range; save it as 8 bit."
        )
    if sixteen_bits or highest > 255:
        values /= 257
    elif highest <= 1:
        values *= 255
    return _grey_to_rgb(np.rint(values).astype(np.uint8))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise InputError(f"a picture array is uint8 RGB 0..255; got {array.dtype}.")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size and array.ndim == 2:
        return _grey_to_rgb(array)
    if not array.size or array.ndim != 3 or array.shape[-1] not in (3, 4):
        raise InputError(f"a picture array is [H, W, 3], H and W at least 1; got {array.shape}.")
    return array if array.shape[-1] == 3 else read_image(Image.fromarray(array))


def is_image(path: str | os.PathLike) -> bool:
    """Whether the name is that of a picture."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def save_image(
    path: str | os.PathLike, array: np.ndarray, *, palette: Colors | None = None
) -> None:
    """Writes uint8 [H, W], [H, W, 3] or [H, W, 4] by the path's suffix, atomically.

    Args:
        path: .png, .jpg or another of `IMAGE_SUFFIXES`.
        array: the picture.
        palette: colours by value for a [H, W] PNG, so that a label map can be looked at.

    Raises:
        InputError: an unknown suffix, transparency or more than 65500 pixels in a row for JPEG,
            or the place can't be written.
    """
    path = Path(path)
    if not is_image(path):
        raise InputError(f"{path}: name a picture to write, ending in .png or .jpg.")
    image = Image.fromarray(array)
    options: dict[str, Any] = {}
    if path.suffix.lower() in JPEG_SUFFIXES:
        options = {"quality": 92}
        if image.mode == "RGBA":
            raise InputError(f"{path}: JPEG has no transparency; write a .png.")
        if max(image.size) > 65500:
            raise InputError(f"{path}: JPEG ends at 65500 pixels a side; write a .png.")
    if palette is not None:
        # All 256 entries: Pillow stores as few bits as the palette needs, and cuts values off.
        table = colorize(np.arange(256), palette)
        image.putpalette(table.tobytes())
    with atomic_file(path, suffix=path.suffix) as temporary:
        image.save(temporary, **options)


def voc_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """The PASCAL VOC colours: the bits of a label spread over the high bits of R, G and B."""
    colors = []
    for label in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for c in range(3):
                channels[c] |= ((label >> (3 * bit + c)) & 1) << (7 - bit)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


def colorize(labels: np.ndarray, colors: Colors) -> np.ndarray:
    """[H, W] -> uint8 [H, W, 3]; values without a colour, like the ignore label, become white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colors)] = np.array(colors, np.uint8).reshape(-1, 3)[:256]
    return table[np.clip(labels, 0, 255).astype(np.uint8)]


def strips(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cover a picture, each of a few million pixels at most."""
    rows = max(1, _STRIP // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _mix(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """weight 0..255 of `above` [..., 3] over `below` [..., 3], rounded."""
    weight = weight.astype(np.uint16)[..., None]
    return ((above * weight + below * (255 - weight) + 127) // 255).astype(np.uint8)


def _opacity(alpha: np.ndarray) -> np.ndarray:
    """Alpha as float or bool 0..1, or already as uint8 0..255 -> uint8."""
    if alpha.dtype == np.uint8:
        return alpha
    return np.rint(np.clip(alpha.astype(np.float32, copy=False), 0, 1) * 255).astype(np.uint8)


def overlay(
    image: np.ndarray, labels: np.ndarray, colors: Colors, alpha: float = 0.5
) -> np.ndarray:
    """The picture with each class's colour over it: uint8 [H, W, 3].

    A class whose colour is black (the background of most data sets) is left clear.

    Args:
        image: uint8 [H, W, 3].
        labels: class of each pixel, [H, W].
        colors: RGB by class.
        alpha: opacity of the colours.
    """
    opacity = np.full(256, round(255 * alpha), np.uint8)
    for label, color in enumerate(colors[:256]):
        opacity[label] = 0 if not any(color) else opacity[label]
    result = np.empty_like(image)
    for rows in strips(*labels.shape):
        values = np.clip(labels[rows], 0, 255)
        result[rows] = _mix(image[rows], colorize(values, colors), opacity[values])
    return result


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """[H, W, 3] and alpha 0..1 (or uint8 0..255) [H, W] -> RGBA uint8 [H, W, 4]."""
    result = np.empty((*alpha.shape, 4), np.uint8)
    result[..., :3] = image
    for rows in strips(*alpha.shape):
        result[rows, :, 3] = _opacity(alpha[rows])
    return result


def blur_background(
    image: np.ndarray, alpha: np.ndarray, radius: float | None = None
) -> np.ndarray:
    """Keeps what alpha covers sharp and blurs the rest: uint8 [H, W, 3].

    Only background enters the blur: blurring the whole picture would draw a halo in the colours
    of the foreground around it.

    Args:
        image: uint8 [H, W, 3].
        alpha: share of foreground in each pixel, 0..1 or uint8 0..255, [H, W].
        radius: of the blur in pixels; None takes 1/40 of the longer side.
    """
    radius = max(image.shape[:2]) / 40 if radius is None else radius
    opacity = np.empty(alpha.shape, np.uint8)
    masked = np.empty_like(image)
    for rows in strips(*alpha.shape):
        opacity[rows] = _opacity(alpha[rows])
        masked[rows] = _mix(image[rows], np.zeros_like(image[rows]), opacity[rows])
    blurred = _blurred(masked, radius)
    del masked  # three bytes a pixel
    share, plain = _blurred(255 - opacity, radius), _blurred(image, radius)
    result = np.empty_like(image)
    for rows in strips(*alpha.shape):
        known = share(rows).astype(np.float32)[..., None]
        background = np.minimum(blurred(rows) * (255 / np.maximum(known, 1)), 255).astype(np.uint8)
        # Deep inside the foreground no background is near, and 8 bits of it would be noise.
        background = np.where(known < 16, plain(rows), background)
        result[rows] = _mix(background, image[rows], opacity[rows])
    return result


def _blurred(array: np.ndarray, radius: float) -> Callable[[slice], np.ndarray]:
    """Blurs [H, W] or [H, W, 3]; gives the rows that it is asked for.

    A wide blur is done on the picture at a fraction of its size: nothing that is lost thereby
    would survive the blur, and a large picture takes a fraction of the memory and time.
    """
    height, width = array.shape[:2]
    factor = max(1, int(radius / _BLUR_AT_LEAST))
    small = Image.fromarray(array)
    small = small.reduce(factor) if factor > 1 else small
    small = small.filter(ImageFilter.GaussianBlur(radius / factor))

    def read(rows: slice) -> np.ndarray:
        # The filter reads beyond the box, so strips meet without a seam.
        box = (0, rows.start / factor, width / factor, rows.stop / factor)
        size = (width, rows.stop - rows.start)
        return np.asarray(small.resize(size, Image.Resampling.BILINEAR, box=box))

    return read


_PAGE, _INK, _FAINT = (250, 250, 248), (28, 32, 38), (104, 112, 122)


def contact_sheet(
    tiles: Sequence[tuple[str, np.ndarray]],
    columns: int,
    *,
    title: str = "",
    subtitle: str = "",
    width: int = 360,
) -> np.ndarray:
    """Pictures with captions on one page: uint8 [H, W, 3].

    Args:
        tiles: (caption, picture). Pictures are [H, W], [H, W, 3] or, drawn over a chequered
            ground, [H, W, 4], each brought to `width`.
        columns: tiles in a row.
        title: large, on top.
        subtitle: below it.
        width: of a tile.
    """
    if not tiles or columns < 1:
        raise ValueError("a contact sheet needs tiles and at least one column.")
    gap, line = max(8, width // 18), max(16, width // 15)
    pictures = [_tile(array, width) for _, array in tiles]
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    lines = [max(tiles[i][0].count("\n") + 1 for i in row) for row in rows]
    heights = [max(pictures[i].height for i in row) for row in rows]
    top = gap + (2 * line if title else 0) + (int(1.5 * line) if subtitle else 0)
    columns = min(columns, len(tiles))
    total = top + sum(heights) + sum(lines) * line + (line // 2 + gap) * len(rows)
    page = Image.new("RGB", (gap + columns * (width + gap), total), _PAGE)
    draw = ImageDraw.Draw(page)
    large, small = (ImageFont.load_default(int(line * scale)) for scale in (1.4, 0.72))
    draw.text((gap, gap), title, _INK, large)
    draw.text((gap, top - int(1.4 * line)), subtitle, _FAINT, small)
    y = top
    for row, height, count in zip(rows, heights, lines, strict=True):
        for column, i in enumerate(row):
            x = gap + column * (width + gap)
            page.paste(pictures[i], (x, y))
            for number, text in enumerate(tiles[i][0].split("\n")):
                place = (x, y + pictures[i].height + line // 3 + number * line)
                draw.text(place, text, _FAINT if number else _INK, small)
        y += height + count * line + line // 2 + gap
    return np.asarray(page)


def _tile(array: np.ndarray, width: int) -> Image.Image:
    image = Image.fromarray(array)
    size = (width, max(1, round(image.height * width / image.width)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    if image.mode == "RGBA":
        y, x = np.indices((size[1], size[0])) * 24 // width
        chequers = np.where((x + y) % 2, 255, 222).astype(np.uint8)
        ground = Image.fromarray(chequers).convert("RGBA")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")
