"""Drawn shapes with exact labels, for tests and demos.

Discs, boxes and triangles on a noisy ground. A class shows in shape and in colour, both of which
vary, so that a small model learns it within minutes and none guesses it.
"""

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_tf.datasets.classes import Classes
from deeplab_tf.datasets.source import Item
from deeplab_tf.files import atomic_folder
from deeplab_tf.pictures import save_image

CLASSES = Classes(
    names=("background", "disc", "box", "triangle"),
    colors=((0, 0, 0), (220, 60, 50), (60, 160, 80), (60, 100, 220)),
    ignore_label=255,
    ignore_color=(255, 255, 255),
    colored=True,
)
_SHADE = 70


def draw(seed: int, size: tuple[int, int] = (96, 96)) -> tuple[np.ndarray, np.ndarray]:
    """One picture of up to three shapes, the same one for the same seed.

    Args:
        seed: not negative.
        size: (height, width), at least 8 each.

    Returns:
        uint8 [H, W, 3] and its labels, uint8 [H, W].
    """
    random = np.random.default_rng(seed)
    y, x = np.indices(size)
    label = np.zeros(size, np.uint8)
    # Every picture has one shape for sure; which class comes first goes around.
    for number in range(1 + random.integers(3)):
        value = 1 + (seed + number) % 3
        label[_shape(value, y, x, size, random)] = value
    base = random.integers(40, 110) + random.integers(-12, 13, (4, 3))
    base[1:] += np.array(CLASSES.colors[1:]) // 2 + random.integers(-15, 16, (3, 3))
    slope = random.uniform(-0.5, 0.5, 2) * _SHADE
    light = slope[0] * (y / size[0] - 0.5) + slope[1] * (x / size[1] - 0.5)
    image = base[label] + light[..., None] + random.normal(0, 8, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), label


def _shape(value: int, y, x, size: tuple[int, int], random) -> np.ndarray:
    """Where a shape is: bool [H, W]. Its centre lies inside the picture."""
    radius = random.uniform(0.12, 0.25) * min(size)
    top, left = y - random.uniform(0.2, 0.8) * size[0], x - random.uniform(0.2, 0.8) * size[1]
    if value == 1:
        return top**2 + left**2 <= radius**2
    if value == 2:
        return (abs(top) <= radius) & (abs(left) <= radius * random.uniform(0.6, 1.4))
    radius *= 1.2  # half of its box is empty
    return (abs(top) <= radius) & (2 * abs(left) <= top + radius)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Drawn pictures as a `Source`.

    Attributes:
        counts: split -> number of pictures.
        size: (height, width) of each.
        seed: of all of them.
    """

    counts: dict[str, int] = dataclasses.field(default_factory=lambda: {"train": 200, "val": 40})
    size: tuple[int, int] = (96, 96)
    seed: int = 0

    name = "synthetic"
    source = "drawn shapes"
    classes = CLASSES

    def stamp(self) -> list:
        """What the pictures depend on."""
        return [self.name, self.counts, self.size, self.seed]

    def pair(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A picture and its labels."""
        # Far apart, so that no two splits share a picture.
        return draw((self.seed * 1009 + [*self.counts].index(split)) * 10**6 + index, self.size)

    def items(self, split: str, part: int, parts: int) -> Iterator[Item]:
        """Every `parts`-th picture of a split, from `part` on."""
        for index in range(part, self.counts[split], parts):
            image, label = self.pair(split, index)
            data, name = io.BytesIO(), f"{split}_{index:05d}.png"
            Image.fromarray(image).save(data, "PNG")
            yield Item(name, data.getvalue(), f"the label of {name}", label.copy)


def write_shapes(folder: str | os.PathLike, shapes: Shapes | None = None) -> Path:
    """Writes drawn pictures as a folder of images/, masks/, classes.csv and index files.

    Args:
        folder: where to; what it held before is replaced.
        shapes: how many, how large; None takes the defaults.
    """
    shapes = shapes or Shapes()
    with atomic_folder(folder) as temporary:
        for split, count in shapes.counts.items():
            names = [f"{split}_{index:05d}" for index in range(count)]
            for index, name in enumerate(names):
                image, label = shapes.pair(split, index)
                save_image(temporary / "images" / f"{name}.png", image)
                save_image(temporary / "masks" / f"{name}.png", label, palette=CLASSES.colors)
            (temporary / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        rows = [f"{i},{name},{r},{g},{b}" for i, (name, (r, g, b)) in enumerate(_named_colors())]
        text = "\n".join(("index,name,red,green,blue", *rows, "255,void,255,255,255"))
        (temporary / "classes.csv").write_text(text + "\n")
    return Path(folder)


def _named_colors():
    return zip(CLASSES.names, CLASSES.colors, strict=True)
