"""A mask file -> label values, and what is wrong with them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import open_image, strips

# Values that a label map can hold, by the largest type that a PNG stores.
VALUES = 65536


class MaskError(InputError):
    """What a mask file holds can't be taken for labels; `kind` is a key of `findings.KINDS`."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_mask(
    path: str | os.PathLike, classes: Classes, *, binary: bool | None = None
) -> np.ndarray:
    """A mask file -> label values, uint8 or uint16 [H, W].

    Palette masks give their indices, grey ones their values, colour ones the class whose colour
    it is. Grey stored as RGB counts as grey unless its colours are the classes'.

    Args:
        path: of the mask.
        classes: what values and colours mean.
        binary: 255 counts as 1 where a mask holds nothing else beside 0; None asks `classes`.

    Raises:
        InputError: unreadable, or a colour that no class has.
    """
    image = open_image(path)
    binary = classes.binary if binary is None else binary
    if image.mode == "P":
        values = np.asarray(image)
        _check_palette(path, image, values, classes)
    elif image.mode in ("L", "LA", "1") or image.mode.startswith("I") or image.mode == "F":
        values = _grey(path, image)
    else:
        values = _from_colors(path, np.asarray(image.convert("RGB")), classes)
    if binary and set(np.unique(values)) <= {0, 255}:
        values = (values > 0).astype(np.uint8)
    return values


def _grey(path, image: Image.Image) -> np.ndarray:
    """Values of one channel of any depth."""
    values = np.asarray(image)
    if values.ndim == 3:  # with transparency, which says nothing here
        values = values[..., 0]
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype == np.uint8:
        # Pillow spreads 2 and 4 bits over 0..255; the file's own values are the labels.
        return values // {2: 85, 4: 17}.get(_png_depth(path, image), 1)
    if values.min(initial=0) < 0 or values.max(initial=0) >= VALUES:
        raise MaskError("values", f"{path}: label values must lie in 0..65535.")
    if not np.array_equal(values, np.rint(values)):
        raise MaskError("values", f"{path}: labels are whole numbers; save the mask as 8-bit PNG.")
    return values.astype(np.uint16)


def _png_depth(path, image: Image.Image) -> int:
    """Bits per channel of a PNG file, 8 for any other."""
    if image.format != "PNG":
        return 8
    with open(path, "rb") as file:
        return file.read(25)[24]


def _pack(pixels) -> np.ndarray:
    """RGB [..., 3] -> one number each."""
    return np.asarray(pixels, np.int32) @ np.array([65536, 256, 1], np.int32)


def _known_colors(classes: Classes) -> dict[int, int]:
    """Packed colour -> label value."""
    known = {int(_pack(color)): value for value, color in enumerate(classes.colors)}
    if classes.ignored is not None and classes.ignore_color is not None:
        known[int(_pack(classes.ignore_color))] = classes.ignored
    return known


def _check_palette(path, image: Image.Image, values: np.ndarray, classes: Classes) -> None:
    """Refuses a palette whose colours are all classes', but not those of their indices.

    Image editors make such palettes when they reduce colours, in an order of their own.
    """
    palette = image.getpalette("RGB")
    if not classes.colored or palette is None:
        return
    known, table = _known_colors(classes), _pack(np.reshape(palette, (-1, 3)))
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    meant = [known.get(int(table[index])) if index < len(table) else None for index in used]
    if None in meant or all(a == b for a, b in zip(used, meant, strict=True)):
        return
    index, value = next((a, b) for a, b in zip(used, meant, strict=True) if a != b)
    raise MaskError(
        "palette",
        f"{path}: index {index} of its palette has the colour of class {value}. Save the mask as "
        "RGB to go by colours, or as grey to go by indices.",
    )


def _from_colors(path, pixels: np.ndarray, classes: Classes) -> np.ndarray:
    """[H, W, 3] -> label values by colour, or by the value of grey."""
    packed = _pack(pixels)
    labels = np.full(packed.shape, -1, np.int32)
    if classes.colored:
        for color, value in _known_colors(classes).items():
            labels[packed == color] = value
        if (labels >= 0).all():
            return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0].copy()
    if not classes.colored:
        raise MaskError(
            "colors",
            f"{path} is painted in colours, but the class file has none; add columns "
            "red,green,blue to it, or save the mask as one grey channel of class values.",
        )
    y, x = np.argwhere(labels < 0)[0]
    strange, counts = np.unique(packed[labels < 0], return_counts=True)
    share = counts.sum() / packed.size
    raise MaskError(
        "colors",
        f"{path}: the colour {tuple(int(c) for c in pixels[y, x])} at row {y}, column {x} is no "
        f"class's ({strange.size} such colours, {share:.2%} of the pixels). Add it to the class "
        "file, or save the mask as PNG and without smoothing.",
    )


def value_counts(labels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Pixels by label value, int64 [65536]."""
    labels = np.atleast_2d(np.asarray(labels))
    counts = np.zeros(VALUES, np.int64)
    for rows in strips(*labels.shape[:2]):
        # Without a minimum length this is short for the usual few classes.
        part = np.bincount(labels[rows].ravel())
        counts[: len(part)] += part
    return counts


def wrong_values(counts: np.ndarray, classes: Classes) -> list[int]:
    """Values that occur and are neither a class nor ignored."""
    allowed = np.zeros(len(counts), bool)
    allowed[: len(classes.names)] = True
    if classes.ignored is not None:
        allowed[classes.ignored] = True
    return [int(value) for value in np.flatnonzero((counts > 0) & ~allowed)]


def values_fix(values: Sequence[int], classes: Classes) -> str:
    """How to mend label values that no class has, by what they look like."""
    count = len(classes.names)
    if len(values) > 20:
        return "So many values are grey levels, not classes: save masks as PNG without smoothing."
    if classes.binary:
        return (
            "Two-class masks hold 0 and 1, or 0 and 255. Save them so; for more classes, list "
            "them in classes.csv."
        )
    if list(values) == [count]:
        return (
            f"Values seem to start at 1: subtract 1. If {count} is a class or to be ignored, add "
            f"it to the class file ({count},void is ignored)."
        )
    return (
        "Add them to the class file, repaint them with a class, or use 255 for what to ignore."
        if classes.ignored == 255
        else "Add them to the class file, or repaint them with a class."
    )


def describe_values(path: str | os.PathLike | Path, wrong: list[int], classes: Classes) -> str:
    """The message for a mask with values that no class has."""
    shown = ", ".join(map(str, wrong[:8])) + (", …" if len(wrong) > 8 else "")
    names = ", ".join(classes.names[:6]) + (", …" if len(classes.names) > 6 else "")
    return (
        f"{path}: label values {shown} are outside 0..{len(classes.names) - 1} ({names}). "
        f"{values_fix(wrong, classes)}"
    )


def one_class_text(counts: Mapping[int, int], classes: Classes) -> tuple[str, str] | None:
    """What is wrong with training labels that hold no two classes, and how to mend it.

    Args:
        counts: pixels by value in the training labels.
        classes: what values mean.
    """
    present = [value for value in counts if value < len(classes.names) and value != classes.ignored]
    if len(present) > 1:
        return None
    held = f"nothing but {classes.names[present[0]]!r}" if present else "no class at all"
    fix = "Check the masks and the class file."
    if counts.get(255) and classes.ignored == 255 and len(classes.names) == 2:
        fix = f"If 255 stands for {classes.names[1]!r}, write 255 as its index in the class file."
    return f"the training masks hold {held}", fix
