"""What every way of running a model shares: pictures brought to its size, answers brought back.

NumPy and Pillow only.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import strips

# A model that takes pictures at their own size gets them no larger than this: 4 megapixels of
# activations are gigabytes.
MAX_PIXELS = 2048 * 2048
# Fills up a picture that doesn't fill the model's input; it normalises to zero.
PAD_PIXEL = 128


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A picture at the model's size.

    Attributes:
        image: uint8 [h, w, 3].
        filled: (height, width) of the part at the upper left that is picture; the rest is padding.
    """

    image: np.ndarray
    filled: tuple[int, int]


def prepare(
    image: np.ndarray,
    size: tuple[int, int] | None,
    resize: str,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Prepared:
    """Brings uint8 [H, W, 3] to a model's size: half-pixel centres, antialiased.

    Args:
        image: the picture.
        size: (height, width) of the model's input.
        resize: "stretch" to size; "fit" its longest side and pad below and at the right; "none"
            leaves the picture at its size.
        max_pixels: larger pictures are shrunk to so many pixels where `resize` is "none".
    """
    height, width = image.shape[:2]
    if resize == "none" or size is None:
        shrink = min(1.0, math.sqrt(max_pixels / (height * width)))
        filled = target = (max(1, int(height * shrink)), max(1, int(width * shrink)))
    elif resize == "stretch":
        filled = target = size
    else:
        scale = min(size[0] / height, size[1] / width)
        # A hair more, or a side that fits exactly might lose a pixel to rounding.
        filled = (max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6)))
        target = size
    if filled != (height, width):
        image = np.asarray(Image.fromarray(image).resize(filled[::-1], Image.Resampling.BILINEAR))
    if filled != target:
        canvas = np.full((*target, 3), PAD_PIXEL, np.uint8)
        canvas[: filled[0], : filled[1]] = image
        image = canvas
    return Prepared(image, filled)


class PixelScores(abc.ABC):
    """What a model says about every pixel of a picture.

    Attributes:
        size: (height, width) of the picture.
    """

    size: tuple[int, int]

    @property
    @abc.abstractmethod
    def num_classes(self) -> int:
        """Of the model."""

    @abc.abstractmethod
    def probabilities(self) -> np.ndarray:
        """float32 [H, W, classes]; large."""

    @abc.abstractmethod
    def labels(self) -> np.ndarray:
        """The most probable class of each pixel, the first of equals: uint8 or uint16 [H, W]."""

    @abc.abstractmethod
    def alpha(self, classes: Sequence[int]) -> np.ndarray:
        """How opaque these classes are drawn: float32 [H, W], 0..1.

        0 where they are less probable than a quarter, 1 from three quarters on, linear between.
        The probability itself would leave a haze of doubt over the background.
        """

    @abc.abstractmethod
    def opacity(self, classes: Sequence[int]) -> np.ndarray:
        """`alpha` in 8 bits: uint8 [H, W]; all that a picture file can hold."""


@dataclasses.dataclass(frozen=True)
class ScoreMap(PixelScores):
    """Class probabilities at the model's resolution, to be read at the picture's.

    Kept small because [H, W, classes] of a large photo doesn't fit into memory. What is asked for
    is enlarged strip by strip, always bilinearly with half-pixel centres, and only then decided:
    enlarging labels would draw stairs.

    Attributes:
        values: float32 [h, w, classes], without padding.
        size: (height, width) of the picture.
    """

    values: np.ndarray
    size: tuple[int, int]

    @property
    def num_classes(self) -> int:
        return self.values.shape[-1]

    def probabilities(self) -> np.ndarray:
        if self.values.shape[:2] == self.size:
            return self.values
        result = np.empty((*self.size, self.num_classes), np.float32)
        for index in range(self.num_classes):
            self._enlarge(self.values[..., index], slice(0, self.size[0]), result[..., index])
        return result

    def labels(self) -> np.ndarray:
        result: np.ndarray = np.zeros(self.size, label_dtype(self.num_classes))
        for rows in strips(*self.size):
            if self.num_classes == 2:  # one map instead of two, they add up to one
                margin = self.values[..., 1] - self.values[..., 0]
                result[rows] = self._enlarge(margin, rows) > 0
                continue
            best = self._enlarge(self.values[..., 0], rows)
            for index in range(1, self.num_classes):
                score = self._enlarge(self.values[..., index], rows)
                result[rows][score > best] = index
                best = np.maximum(best, score)
        return result

    def alpha(self, classes: Sequence[int]) -> np.ndarray:
        total = self.values[..., list(classes)].sum(-1)
        return contrast(self._enlarge(total, slice(0, self.size[0])))

    def opacity(self, classes: Sequence[int]) -> np.ndarray:
        total = self.values[..., list(classes)].sum(-1)
        result = np.empty(self.size, np.uint8)
        for rows in strips(*self.size):
            result[rows] = np.rint(contrast(self._enlarge(total, rows)) * 255)
        return result

    def _enlarge(
        self, values: np.ndarray, rows: slice, out: np.ndarray | None = None
    ) -> np.ndarray:
        """One map [h, w] at the picture's size, these rows of it: float32 [rows, W]."""
        height, width = self.size
        if values.shape == self.size:
            enlarged = values[rows].astype(np.float32)
        else:
            scale = values.shape[0] / height
            box = (0, rows.start * scale, values.shape[1], min(rows.stop * scale, len(values)))
            image = Image.fromarray(np.ascontiguousarray(values, np.float32))
            size = (width, rows.stop - rows.start)
            # The filter reads beyond the box, so strips meet without a seam.
            enlarged = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
        if out is not None:
            out[...] = enlarged
        return enlarged


def contrast(probability: np.ndarray) -> np.ndarray:
    """Probability -> opacity: see `PixelScores.alpha`."""
    return np.clip(probability * 2 - 0.5, 0, 1)


class Runner(abc.ABC):
    """A model that is ready to take pictures.

    Attributes:
        name: the preset, folder or file.
        info: classes, colours, and how pictures are brought to the model's size.
        size: (height, width) of its input, None if it takes any.
        max_pixels: see `prepare`.
    """

    name: str
    info: ModelInfo
    size: tuple[int, int] | None = None
    max_pixels: int = MAX_PIXELS

    @abc.abstractmethod
    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Pixels uint8 [B, h, w, 3] at the model's size -> probabilities float32 [B, ., ., C]."""

    def maps(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """All that the model says of a batch's pixels: "probabilities", which `forward` gives.

        A panoptic model has "center_heatmap" [B, ., ., 1] and "offset_map" [B, ., ., 2] too; a
        mask transformer has logits of masks and of their classes instead.
        """
        return {keys.PROBABILITIES: self.forward(batch)}

    @property
    def only_size(self) -> tuple[int, int] | None:
        """(height, width) to which every picture is brought, here or inside the model, if any."""
        return self.size

    def fused(self, scales: Sequence[float], flip: bool) -> "Runner":
        """This model, its probabilities averaged over scales of the picture and its mirror image.

        Raises:
            InputError: it can't be run at these scales.
        """
        if tuple(scales) != (1.0,):
            raise InputError(
                f"{self.name} takes pictures at one size, so scales are impossible; run the model "
                "that it was exported from, or leave scales out."
            )
        return FlippedRunner(self) if flip else self

    def scores(self, image: np.ndarray) -> PixelScores:
        """What the model says about uint8 RGB [H, W, 3]."""
        return self.batch_scores([image])[0]

    def batch_scores(self, images: Sequence[np.ndarray]) -> list[PixelScores]:
        """The same for several pictures, at once where the model has them at one size."""
        prepared = [self._prepare(image) for image in images]
        if len({p.image.shape for p in prepared}) == 1:
            found = self.maps(np.stack([p.image for p in prepared]))
            outputs = [{name: x[i] for name, x in found.items()} for i in range(len(images))]
        else:
            outputs = [
                {name: x[0] for name, x in self.maps(p.image[None]).items()} for p in prepared
            ]
        return [
            self._answer(image, p, output)
            for image, p, output in zip(images, prepared, outputs, strict=True)
        ]

    def _answer(
        self, image: np.ndarray, prepared: Prepared, maps: dict[str, np.ndarray]
    ) -> ScoreMap:
        """What the maps of one picture say at its own size."""
        size = (image.shape[0], image.shape[1])
        if keys.MASK_LOGITS in maps:
            from deeplab_tf.inference.masks import mask_scores

            return mask_scores(maps, prepared, size, self.info)
        maps = {name: without_padding(x, prepared) for name, x in maps.items()}
        if keys.CENTER_HEATMAP not in maps or keys.PROBABILITIES not in maps:
            return ScoreMap(maps[keys.PROBABILITIES], size)
        from deeplab_tf.inference.panoptic import HeadScoreMap, center_settings

        heatmap, offsets = maps[keys.CENTER_HEATMAP][..., 0], maps[keys.OFFSET_MAP]
        settings = center_settings(self.info)
        return HeadScoreMap(maps[keys.PROBABILITIES], size, settings, heatmap, offsets)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB [H, W, 3] -> float32 [H, W, classes] at the picture's own size."""
        return self.scores(image).probabilities()

    def _prepare(self, image: np.ndarray) -> Prepared:
        if self.size is None:
            size, resize = self.info.image_size, self.info.resize
        else:  # an input of fixed size takes nothing else
            size, resize = self.size, "fit" if self.info.resize == "fit" else "stretch"
        return prepare(image, size, resize, max_pixels=self.max_pixels)


def without_padding(output: np.ndarray, prepared: Prepared) -> np.ndarray:
    """The part of a map [h, w, C] that lies over the picture."""
    filled, whole = prepared.filled, prepared.image.shape[:2]
    rows = max(1, round(output.shape[0] * filled[0] / whole[0]))
    columns = max(1, round(output.shape[1] * filled[1] / whole[1]))
    return output[:rows, :columns]


class FlippedRunner(Runner):
    """Another runner's mean over the picture and its mirror image.

    Args:
        runner: sees both.
    """

    def __init__(self, runner: Runner):
        self._runner = runner
        self.name = f"{runner.name}, flipped too"
        self.info, self.size, self.max_pixels = runner.info, runner.size, runner.max_pixels

    @property
    def only_size(self) -> tuple[int, int] | None:
        return self._runner.only_size

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        upright = self._runner.maps(batch)
        mirrored = self._runner.maps(np.ascontiguousarray(batch[:, :, ::-1]))
        result = {}
        for name, values in upright.items():
            back = mirrored[name][:, :, ::-1]
            if name == keys.OFFSET_MAP:  # what was to the left is to the right again
                back = back * np.array([1, -1], np.float32)
            elif name == keys.PROBABILITIES:
                values, back = with_all_classes([values, back])
            result[name] = (values + back) / 2
        return result

    def _prepare(self, image: np.ndarray) -> Prepared:
        return self._runner._prepare(image)


def with_all_classes(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Maps [..., C] with as many classes as the largest C among them; the added are improbable.

    A model that gives labels and has no names for them shows those classes only that it saw.
    """
    count = max(values.shape[-1] for values in maps)
    return [
        values
        if values.shape[-1] == count
        else np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, count - values.shape[-1])])
        for values in maps
    ]


def label_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest type of a label map."""
    return np.uint8 if num_classes <= 256 else np.uint16


def background_class(info: ModelInfo) -> int | None:
    """The value of the background class, if there is one; a model without names has it first."""
    for index, name in enumerate(info.classes):
        if name.lower() in ("background", "bg", "_background_", "__background__"):
            return index
    return None if info.classes else 0


def class_name(info: ModelInfo, index: int) -> str:
    """The name of a class, or "class 3" if the model doesn't say."""
    return info.classes[index] if index < len(info.classes) else f"class {index}"


def softmax(logits: np.ndarray) -> np.ndarray:
    """float [..., C] -> float32 [..., C]."""
    result = logits.astype(np.float32)  # a copy; in place from here on, since it may be large
    result -= result.max(axis=-1, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis=-1, keepdims=True)
    return result
