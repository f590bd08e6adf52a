"""Panoptic maps as pictures: a colour per class, varied per instance, outlines between segments."""

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_tf.panoptic_format import recode, values_of
from deeplab_tf.pictures import Colors, strips

_WHITE = (255, 255, 255)
# Value of pixels that aren't any class's.
_WRONG = (255, 0, 255)
# Shares of white, or of black where negative, that are mixed into a class's colour, instance by
# instance; dark colours have no room for darker ones.
_SHADES = (0.0, -0.35, 0.4, -0.18, 0.2, -0.5, 0.6)
_SHADES_OF_DARK = (0.0, 0.45, 0.2, 0.65, 0.1, 0.55, 0.3)
_DARK = 160
# Segments smaller than this share of the picture get no caption.
_CAPTION_FROM = 1 / 400


def panoptic_colors(
    panoptic_label: np.ndarray,
    colors: Colors,
    thing_classes: Collection[int],
    label_divisor: int,
    *,
    ignore_label: int | None = None,
) -> np.ndarray:
    """A panoptic map in colours: uint8 [H, W, 3].

    Instances of a thing have shades of their class's colour; void is white, and what no class has
    is magenta.

    Args:
        panoptic_label: class * label_divisor + instance, [H, W].
        colors: RGB by class.
        thing_classes: classes with instances.
        label_divisor: see above.
        ignore_label: class of void.
    """
    values, _ = values_of(panoptic_label)
    table = _table(values, colors, thing_classes, label_divisor, ignore_label)
    return recode(panoptic_label, values, table)


def _table(values, colors: Colors, thing_classes, label_divisor: int, ignore_label) -> np.ndarray:
    """The colour of each value: uint8 [N, 3]."""
    table = np.empty((len(values), 3), np.uint8)
    seen: dict[int, int] = {}
    for place, value in enumerate(values.tolist()):
        label, instance = divmod(value, label_divisor)
        if label == ignore_label:
            table[place] = _WHITE
        elif not 0 <= label < len(colors):
            table[place] = _WRONG
        elif label in thing_classes and instance:
            # By order rather than by number, so that few instances differ most.
            number = seen[label] = seen.get(label, -1) + 1
            shades = _SHADES if max(colors[label]) > _DARK else _SHADES_OF_DARK
            table[place] = _shade(colors[label], shades[number % len(shades)])
        else:
            table[place] = colors[label]
    return table


def _shade(color: Sequence[int], share: float) -> np.ndarray:
    """A colour mixed with white, or with black for a negative share."""
    base, end = np.array(color, np.float32), 255.0 if share > 0 else 0.0
    return np.rint(base + (end - base) * abs(share)).astype(np.uint8)


def outlines(panoptic_label: np.ndarray, width: int = 1) -> np.ndarray:
    """Where another segment begins: bool [H, W].

    Args:
        panoptic_label: [H, W].
        width: of the lines in pixels.
    """
    edges = np.zeros(panoptic_label.shape, bool)
    edges[:, 1:] |= panoptic_label[:, 1:] != panoptic_label[:, :-1]
    edges[1:] |= panoptic_label[1:] != panoptic_label[:-1]
    for _ in range(width - 1):
        wider = edges.copy()
        wider[:-1] |= edges[1:]
        wider[:, :-1] |= edges[:, 1:]
        edges = wider
    return edges


def panoptic_overlay(
    image: np.ndarray,
    panoptic_label: np.ndarray,
    colors: Colors,
    thing_classes: Collection[int],
    label_divisor: int,
    *,
    alpha: float = 0.5,
    ignore_label: int | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """The picture with its segments over it, outlined: uint8 [H, W, 3].

    Void, and stuff whose colour is black (the background of most data sets), are left clear.

    Args:
        image: uint8 [H, W, 3].
        panoptic_label: class * label_divisor + instance, [H, W].
        colors: RGB by class.
        thing_classes: classes with instances.
        label_divisor: see above.
        alpha: opacity of the colours.
        ignore_label: class of void.
        names: of the classes; written on segments that are large enough. None writes nothing.
    """
    if image.shape[:2] != panoptic_label.shape:
        raise ValueError(f"picture {image.shape[:2]} and labels {panoptic_label.shape} differ.")
    values, areas = values_of(panoptic_label)
    table = _table(values, colors, thing_classes, label_divisor, ignore_label)
    opacity = np.full(len(values), round(255 * alpha), np.uint16)
    labels = values // label_divisor
    clear = [v for v, c in enumerate(colors) if not any(c) and v not in thing_classes]
    opacity[np.isin(labels, clear) | (labels == ignore_label)] = 0
    # Premultiplied by segment, so that a pixel takes one product and one sum.
    above = (table * opacity[:, None] + 127).astype(np.uint16)
    below = (255 - opacity).astype(np.uint16)
    result = np.empty_like(image)
    for rows in strips(*panoptic_label.shape):
        part = panoptic_label[rows]
        weight = recode(part, values, below)[..., None]
        result[rows] = ((image[rows] * weight + recode(part, values, above)) // 255).astype(
            np.uint8
        )
    result[outlines(panoptic_label, max(1, round(min(image.shape[:2]) / 400)))] = _WHITE
    if names is None:
        return result
    shown = (opacity > 0) & (areas >= panoptic_label.size * _CAPTION_FROM) & (labels < len(names))
    captions = {int(v): names[label] for v, label in zip(values[shown], labels[shown], strict=True)}
    return _with_captions(result, panoptic_label, captions)


def _with_captions(image: np.ndarray, panoptic_label: np.ndarray, captions: dict) -> np.ndarray:
    """Writes the caption of each value into its segment."""
    page = Image.fromarray(image)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(max(10, round(min(image.shape[:2]) / 28)))
    for value, text in captions.items():
        y, x = _inside(panoptic_label == value)
        draw.text((x, y), text, _WHITE, font, "mm", stroke_width=2, stroke_fill=(20, 24, 30))
    return np.asarray(page)


def _inside(mask: np.ndarray) -> tuple[int, int]:
    """A pixel (y, x) of a segment near its middle: in its middle row, the middle of a run."""
    rows = mask.sum(1).cumsum()
    y = int(np.searchsorted(rows, rows[-1] / 2))
    y = y if mask[y].any() else int(mask.any(1).argmax())
    steps = np.flatnonzero(np.diff(np.concatenate([[0], mask[y].astype(np.int8), [0]])))
    starts, ends = steps[::2], steps[1::2]
    longest = int((ends - starts).argmax())
    return y, int(starts[longest] + ends[longest] - 1) // 2
