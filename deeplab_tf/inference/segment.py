"""A picture in, labels at its own size out, and the pictures that people want of them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab_tf import keys, pictures
from deeplab_tf.errors import InputError
from deeplab_tf.files import write_json
from deeplab_tf.inference.base import PixelScores, background_class, class_name
from deeplab_tf.inference.panoptic import PanopticScoreMap
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.panoptic_format import encode_ids
from deeplab_tf.panoptic_pictures import panoptic_overlay
from deeplab_tf.postprocess.segments import FoundSegment, segments

# What `Segmentation.save` can write -> ending of the file's name.
OUTPUTS = {
    "mask": "_mask.png",
    "overlay": "_overlay.jpg",
    "cutout": "_cutout.png",
    "blur": "_blur.jpg",
    "panoptic": "_panoptic.png",
}
Classes = int | str | Sequence[int | str] | None


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """A picture and what a model says about it.

    Attributes:
        image: the picture, upright RGB uint8 [H, W, 3].
        labels: the class of each pixel, [H, W].
        scores: probabilities, kept small.
        info: names and colours of the classes.
        name: of the picture, without folder and suffix.
    """

    image: np.ndarray
    labels: np.ndarray
    scores: PixelScores
    info: ModelInfo
    name: str = "picture"

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [H, W, classes]; made when asked for, and large."""
        return self.scores.probabilities()

    @property
    def panoptic_label(self) -> np.ndarray:
        """class * label_divisor + instance of each pixel, int32 [H, W]; of a panoptic model.

        Raises:
            InputError: the model tells no instances apart.
        """
        return self._instances().panoptic_label

    @property
    def segments(self) -> list[FoundSegment]:
        """Of a panoptic model: class, instance, area, box and score of each segment.

        Raises:
            InputError: the model tells no instances apart.
        """
        found = self._instances()
        return segments(
            found.panoptic_label,
            found.merged[keys.INSTANCE_SCORE],
            label_divisor=found.settings.label_divisor,
            thing_classes=found.settings.thing_classes,
            void_label=found.settings.void_label,
        )

    def _instances(self) -> PanopticScoreMap:
        if not isinstance(self.scores, PanopticScoreMap):
            raise InputError("this model tells no instances apart; a panoptic one does.")
        return self.scores

    @property
    def is_panoptic(self) -> bool:
        """Whether there are instances, and `panoptic_label`."""
        return isinstance(self.scores, PanopticScoreMap)

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB by class: the model's, or those of PASCAL VOC."""
        own = self.info.colors
        return own if len(own) >= self.scores.num_classes else self._default_colors()

    def _default_colors(self) -> tuple[tuple[int, int, int], ...]:
        return pictures.voc_colors(min(256, self.scores.num_classes))

    @property
    def shares(self) -> dict[str, float]:
        """Share of the picture by class, for the classes in it; largest first."""
        counts = np.zeros(self.scores.num_classes, np.int64)
        for rows in pictures.strips(*self.labels.shape):  # bincount takes 8 bytes for a pixel
            counts += np.bincount(self.labels[rows].ravel(), minlength=len(counts))
        return {
            class_name(self.info, int(i)): float(counts[i] / self.labels.size)
            for i in np.argsort(-counts, kind="stable")
            if counts[i]
        }

    def alpha(self, classes: Classes = None) -> np.ndarray:
        """How opaque `classes` are in a cut-out: float32 [H, W], 0..1.

        The edge is soft, but what is improbable is clear: see `PixelScores.alpha`.

        Args:
            classes: names or values. None takes all but the background.

        Raises:
            InputError: no such class; or None for a model that has no background.
        """
        return self.scores.alpha(self.class_values(classes))

    def overlay(self, alpha: float = 0.5) -> np.ndarray:
        """The picture under the classes' colours; background stays clear: uint8 [H, W, 3].

        Of a panoptic model each instance has a shade of its own, an outline and its name.
        """
        if not self.is_panoptic:
            return pictures.overlay(self.image, self.labels, self.colors, alpha)
        settings = self._instances().settings
        return panoptic_overlay(
            self.image,
            self.panoptic_label,
            self.colors,
            settings.thing_classes,
            settings.label_divisor,
            alpha=alpha,
            ignore_label=settings.void_label,
            names=self.info.classes or None,
        )

    def cut_out(self, classes: Classes = None) -> np.ndarray:
        """The classes alone, all else transparent: RGBA uint8 [H, W, 4]. `classes`: see `alpha`."""
        return pictures.cut_out(self.image, self.scores.opacity(self.class_values(classes)))

    def blur(self, radius: float | None = None, classes: Classes = None) -> np.ndarray:
        """The classes sharp, the rest blurred: uint8 [H, W, 3].

        Args:
            radius: in pixels; None takes 1/40 of the longer side.
            classes: see `alpha`.
        """
        opacity = self.scores.opacity(self.class_values(classes))
        return pictures.blur_background(self.image, opacity, radius)

    def render(self, what: str, classes: Classes = None) -> np.ndarray:
        """One of `OUTPUTS` as an array."""
        if what == "mask":
            return self.labels
        if what == "overlay":
            return self.overlay()
        if what == "cutout":
            return self.cut_out(classes)
        if what == "blur":
            return self.blur(classes=classes)
        if what == "panoptic":
            return encode_ids(self._segment_ids())
        raise InputError(f"there is no output {what!r}; it is one of {', '.join(OUTPUTS)}.")

    def save(
        self,
        path: str | os.PathLike,
        what: str | Sequence[str] | None = None,
        classes: Classes = None,
    ) -> list[Path]:
        """Writes pictures and returns their paths.

        Args:
            path: a file, which gets one picture, or a folder, which gets NAME_mask.png,
                NAME_overlay.jpg and so on.
            what: some of `OUTPUTS`. None: the overlay for a file; for a folder, all that the
                model can give (one without background can't cut out).
            classes: what to cut out; see `alpha`.
        """
        path = Path(path)
        wanted = [what] if isinstance(what, str) else what
        if pictures.is_image(path):
            kind = (wanted or ["overlay"])[0]
            self._write(path, kind, classes)
            return [path]
        if wanted is None:
            named = classes is not None
            wanted = [k for k in OUTPUTS if self.can_give(k) or (named and k != "panoptic")]
        targets = [(path / f"{self.name}{OUTPUTS.get(kind, '')}", kind) for kind in wanted]
        for target, kind in targets:
            self._write(target, kind, classes)
        return [target for target, _ in targets]

    def _segment_ids(self) -> np.ndarray:
        """What panoptic PNGs hold: the panoptic label plus one, 0 for void; int32 [H, W]."""
        label, void = self.panoptic_label, self._instances().settings.void_value
        return np.where(label == void, 0, label + 1)

    def _write(self, path: Path, what: str, classes: Classes) -> None:
        array = self.render(what, classes)
        if what == "panoptic":
            if path.suffix.lower() != ".png":
                raise InputError(f"{path}: panoptic ids need a .png; JPEG would change them.")
            listed = [
                {**segment.to_dict(), "id": segment.id + 1, "class": self._name(segment.class_id)}
                for segment in self.segments
            ]
            write_json(path.with_suffix(".json"), {"segments": listed})
        palette = self.colors if what == "mask" and array.dtype == np.uint8 else None
        if palette and path.suffix.lower() != ".png":
            raise InputError(f"{path}: a label map needs a .png; JPEG would change its values.")
        pictures.save_image(path, array, palette=palette)

    def can_give(self, what: str) -> bool:
        """Whether the model has it, without classes to be named."""
        if what == "panoptic":
            return self.is_panoptic
        return what in ("mask", "overlay") or background_class(self.info) is not None

    def _name(self, index: int) -> str:
        return class_name(self.info, index)

    def class_values(self, classes: Classes = None) -> list[int]:
        """Values of classes given by name or value; see `alpha`."""
        count = self.scores.num_classes
        if classes is None:
            background = background_class(self.info)
            if background is None:
                raise InputError(
                    "this model has no background class; name the classes to keep, some of: "
                    f"{', '.join(self.info.classes)}."
                )
            return [index for index in range(count) if index != background]
        values = []
        for item in [classes] if isinstance(classes, int | str) else classes:
            if isinstance(item, str) and item in self.info.classes:
                item = self.info.classes.index(item)
            if isinstance(item, str) and item.isdigit():
                item = int(item)
            if isinstance(item, str) or not 0 <= item < count:
                names = [self._name(i) for i in range(count)]
                raise InputError(f"there is no class {item!r}; there are {', '.join(names)}.")
            values.append(int(item))
        return values


def segment(
    model: Any,
    picture: str | os.PathLike | bytes | Image.Image | np.ndarray,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: tuple[int, int] | None = None,
    overlap: float | None = None,
    crf: Any = None,
) -> Segmentation:
    """Segments one picture.

    With a window, memory stays bounded: see `WindowRunner` for figures. A cut-out or blur of
    other classes than all but the background then runs the windows again.

    Args:
        model: a Keras model of ours, the name of a preset, a folder, a .tflite file, or a
            runner. For many pictures open it once: `load_runner(name, ...)`, which takes the
            options below too.
        picture: a file, its bytes, a Pillow picture or a uint8 RGB array, of any size.
        scales: sizes of the picture to run, such as (0.5, 1.0, 1.75); probabilities are averaged.
        flip: also run the mirror image.
        window: (height, width) of parts to run one by one, at the picture's own resolution.
        overlap: share of a window that the next one covers too; None is a quarter.
        crf: parameters of the CRF that sharpens the answer, such as "deeplab_v2_resnet_101", or a
            file that `crf-search` wrote.

    Raises:
        InputError: the model or the picture can't be read, or an option makes no sense.
    """
    image = pictures.read_image(picture)
    looks = dict(scales=scales, flip=flip, window=window, overlap=overlap, crf=crf)
    runner = load_runner(model, **looks)
    scores = runner.scores(image)
    name = Path(picture).stem if isinstance(picture, str | os.PathLike) else "picture"
    return Segmentation(image, scores.labels(), scores, runner.info, name)
