"""A page of samples to look at: picture, coloured label, one over the other."""

import dataclasses
import os
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_tf import keys
from deeplab_tf.datasets.audit_records import classes_of
from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.loading import check_split, is_records, read_item
from deeplab_tf.datasets.masks import value_counts, wrong_values
from deeplab_tf.datasets.named import open_source
from deeplab_tf.datasets.tfrecord import decode_example, find_shards, read_records
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import values_of
from deeplab_tf.panoptic_pictures import panoptic_colors, panoptic_overlay
from deeplab_tf.pictures import Colors, colorize, contact_sheet, overlay

_TILE = 240
_PAGE, _INK = (250, 250, 248), (28, 32, 38)
# Not white, which is the colour of ignored pixels.
_WRONG = (255, 0, 255)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A page, and what couldn't be shown on it.

    Attributes:
        page: uint8 [H, W, 3].
        shown: names of the pictures.
        mistakes: messages for those that can't be read.
    """

    page: np.ndarray
    shown: tuple[str, ...]
    mistakes: tuple[str, ...]


def draw_samples(
    target: str | os.PathLike,
    split: str = "train",
    *,
    count: int = 12,
    seed: int = 0,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
) -> Sheet:
    """Draws pictures chosen at random, the same ones for the same seed.

    Pixels to ignore are white, values that no class has are magenta. Instances have shades of their
    class's colour and an outline.

    Args:
        target: a folder of records or of pictures and masks, or a named source.
        split: of it.
        count: how many at most.
        seed: of the choice.
        classes: a class file or known list for a plain folder.
        annotations: a panoptic JSON file elsewhere.
        label_divisor: of panoptic labels of a folder; None takes one that fits.

    Raises:
        InputError: no such folder or split, or not one of the chosen pictures can be read.
    """
    if is_records(target):
        descriptor = DatasetDescriptor.load(target)
        check_split(target, split, descriptor.splits)
        name, meaning, total = descriptor.name, classes_of(descriptor), descriptor.splits[split]
        chosen = _choose(total, count, seed)
        examples, mistakes = _from_records(target, split, chosen, descriptor.label_divisor)
    else:
        source = open_source(
            target, classes=classes, annotations=annotations, label_divisor=label_divisor
        )
        check_split(target, split, source.counts)
        name, meaning, total = source.name, source.classes, source.counts[split]
        chosen = _choose(total, count, seed)
        examples, mistakes = _from_source(source, split, chosen)
    if not examples:
        raise InputError(mistakes[0] if mistakes else f"{target}: {split!r} has no pictures.")
    tiles = [tile for example in examples for tile in _tiles(example, meaning)]
    subtitle = f"{len(examples)} of {total} pictures; white is ignored, magenta is no class's"
    page = contact_sheet(
        tiles,
        6 if len(examples) > 1 else 3,
        title=f"{name}, {split}",
        subtitle=subtitle,
        width=_TILE,
    )
    page = np.concatenate([page, _legend(meaning.names, meaning.colors, page.shape[1])])
    shown = tuple(example[keys.NAME].decode("utf-8", "replace") for example in examples)
    return Sheet(page, shown, tuple(mistakes))


def _choose(total: int, count: int, seed: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(total), min(count, total)))


def _from_records(
    folder, split: str, chosen: Sequence[int], label_divisor: int | None
) -> tuple[list[dict], list[str]]:
    """The chosen examples; only they are decoded."""
    wanted, examples, mistakes, position = set(chosen), [], [], 0
    try:
        for shard in find_shards(folder, split):
            for record in read_records(shard):
                if position in wanted:
                    try:
                        decoded = decode_example(record, label_divisor)
                        examples.append({key: value.numpy() for key, value in decoded.items()})
                    except Exception as error:  # what is wrong, `data check` says better
                        mistakes.append(f"{shard}: {type(error).__name__} in record {position}")
                position += 1
    except InputError as error:
        mistakes.append(str(error))
    return examples, mistakes


def _from_source(source, split: str, chosen: Sequence[int]) -> tuple[list[dict], list[str]]:
    wanted, examples, mistakes = set(chosen), [], []
    for position, item in enumerate(source.items(split, 0, 1)):
        if position in wanted:
            try:
                examples.append(read_item(item))
            except InputError as error:
                mistakes.append(str(error))
    return examples, mistakes


def _tiles(example: dict, classes: Classes) -> list[tuple[str, np.ndarray]]:
    image, label = example[keys.IMAGE], example[keys.SEMANTIC_LABEL]
    counts = value_counts(label)
    wrong = wrong_values(counts, classes)
    present = [n for value, n in enumerate(classes.names) if counts[value]]
    name = example[keys.NAME].decode("utf-8", "replace")
    size = f"{image.shape[1]} x {image.shape[0]}"
    colored = colorize(label, classes.colors)
    if classes.ignored is not None:
        colored[label == classes.ignored] = 255
    colored[np.isin(label, wrong)] = _WRONG
    names = _cut(", ".join(present), 34)
    warning = f"no class's: {_cut(str(wrong), 22)}" if wrong else ""
    panoptic, divisor = example.get(keys.PANOPTIC_LABEL), classes.label_divisor
    if panoptic is not None and divisor is not None:
        shown = classes.colors, classes.things, divisor
        colored = panoptic_colors(panoptic, *shown, ignore_label=classes.ignored)
        count = len([v for v in values_of(panoptic)[0] if v % divisor])
        names = _cut(f"{count} instances; {', '.join(present)}", 34)
    over = colored
    if image.shape[:2] == label.shape and panoptic is not None and divisor is not None:
        over = panoptic_overlay(
            image, panoptic, *shown, ignore_label=classes.ignored, names=classes.names
        )
    elif image.shape[:2] == label.shape:
        table = [*classes.colors[:256], *[_WRONG] * (256 - len(classes.colors))]
        if classes.ignored is not None and classes.ignored < 256:
            table[classes.ignored] = (255, 255, 255)
        over = overlay(image, label, table)
    else:
        warning = f"label is {label.shape[1]} x {label.shape[0]}"
    return [
        (f"{_cut(name, 26)}\n{size}", image),
        (f"label\n{names}", colored),
        (f"both\n{warning}", over),
    ]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _legend(names: Sequence[str], colors: Colors, width: int) -> np.ndarray:
    """Each class with its colour, in as many rows as it takes: uint8 [h, width, 3]."""
    font, line, gap = ImageFont.load_default(14), 24, 13
    places, x, y = [], gap, 0
    for value, name in enumerate(names):
        text = f"{value} {name}"
        length = 22 + int(font.getlength(text)) + 18
        if x + length > width and x > gap:
            x, y = gap, y + line
        places.append((x, y, text))
        x += length
    legend = Image.new("RGB", (width, y + line + gap), _PAGE)
    draw = ImageDraw.Draw(legend)
    for (x, y, text), color in zip(places, colors, strict=True):
        draw.rectangle((x, y + 2, x + 15, y + 17), fill=tuple(color), outline=_INK)
        draw.text((x + 22, y), text, _INK, font)
    return np.asarray(legend)
