"""What a mask transformer sees in a picture: its strongest masks, and how pixels found them."""

import numpy as np
from PIL import Image

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner, class_name, softmax
from deeplab_tf.inference.masks import mask_scores
from deeplab_tf.inference.runner import KerasRunner
from deeplab_tf.inference.segment import Segmentation
from deeplab_tf.models.mask_classes import order_of_channels
from deeplab_tf.pictures import contact_sheet, voc_colors

_COLUMNS = 4
_WIDTH = 300
_TILE = 640
# How much of the picture shows through a mask and through an assignment.
_SHADE = 0.8
_OPACITY = 0.65


def explain(runner: Runner, image: np.ndarray, *, slots: int = 10) -> np.ndarray:
    """A page of pictures: uint8 [H, W, 3].

    First the picture and its segments. Then the masks of the strongest slots, the brighter the
    surer, ordered by the probability of their class times that of their pixels. Of kMaX-DeepLab
    also which cluster each pixel was assigned to, at each stage of the decoder (Sec. 3.2 there).

    Args:
        runner: of a mask transformer, as a Keras model.
        image: uint8 RGB [H, W, 3].
        slots: how many to show.

    Raises:
        InputError: the model isn't a mask transformer, or is an exported one.
    """
    import keras

    model = mask_transformer_of(runner)
    prepared = runner._prepare(image)
    # As a plain graph it gives the answers of earlier stages outside training too.
    graph = keras.Model(model.input, model.output)
    outputs = graph(prepared.image[None].astype(np.float32), training=False)
    found = {name: keras.ops.convert_to_numpy(x)[0] for name, x in outputs.items()}
    scores = mask_scores(found, prepared, (image.shape[0], image.shape[1]), runner.info)
    result = Segmentation(image, scores.labels(), scores, runner.info)
    small = _small(image)
    tiles = [("the picture", small), ("its segments", _small(result.overlay()))]
    settings, info = scores.settings, runner.info
    probabilities = softmax(scores.mask_logits)
    classes = softmax(scores.class_logits)
    order = order_of_channels(classes.shape[-1], settings.thing_classes, settings.void_label)
    for slot in _strongest(probabilities, classes)[:slots]:
        best = int(classes[slot, :-1].argmax())
        caption = f"{class_name(info, order[best])} {classes[slot, best]:.2f}\nslot {slot}"
        tiles.append((caption, _shaded(small, probabilities[..., slot])))
    for number in range(_stages(found)):
        logits = found[keys.AUXILIARY.format(number, keys.MASK_LOGITS)]
        rows, columns = (
            max(1, round(side * filled / whole))
            for side, filled, whole in zip(
                logits.shape, prepared.filled, prepared.image.shape, strict=False
            )
        )
        assigned = logits[:rows, :columns].argmax(-1)
        caption = f"k-means step {number + 1}\n{len(np.unique(assigned))} of {logits.shape[-1]}"
        tiles.append((caption, _assigned(small, assigned)))
    return contact_sheet(tiles, _COLUMNS, title=runner.name, width=_WIDTH)


def mask_transformer_of(runner: Runner):
    """The Keras model that a runner runs.

    Raises:
        InputError: it is no mask transformer, or an exported one.
    """
    from deeplab_tf.models.base import instances_by

    if not isinstance(runner, KerasRunner) or instances_by(runner.model) != "masks":
        raise InputError(
            f"{runner.name} can't be explained: that is for MaX-DeepLab and kMaX-DeepLab, from a "
            "preset or a folder that train or convert wrote."
        )
    return runner.model


def _stages(found: dict[str, np.ndarray]) -> int:
    """How many earlier answers there are."""
    number = 0
    while keys.AUXILIARY.format(number, keys.MASK_LOGITS) in found:
        number += 1
    return number


def _strongest(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Slots in order: the surest class and the surest pixels first, those without pixels last."""
    slots = probabilities.shape[-1]
    owner = probabilities.argmax(-1)
    areas = np.bincount(owner.ravel(), minlength=slots)
    sure = np.bincount(owner.ravel(), probabilities.max(-1).ravel(), slots)
    strength = classes[:, :-1].max(-1) * sure / np.maximum(areas, 1)
    return np.argsort(-strength, kind="stable")


def _small(image: np.ndarray) -> np.ndarray:
    page = Image.fromarray(image)
    page.thumbnail((_TILE, _TILE))
    return np.asarray(page)


def _shaded(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The picture, dark where a mask isn't."""
    size = (image.shape[1], image.shape[0])
    mask = Image.fromarray(np.ascontiguousarray(probability, np.float32))
    light = np.asarray(mask.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)[..., None]
    return (image * (1 - _SHADE * (1 - light))).astype(np.uint8)


def _assigned(image: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """A colour for each slot [h, w] over the picture, in cells as they are."""
    # The first of these colours is black, and neighbours in number look alike in many.
    colors = np.array(voc_colors(256), np.uint8)[1 + slots * 37 % 255]
    size = (image.shape[1], image.shape[0])
    cells = np.asarray(Image.fromarray(colors).resize(size, Image.Resampling.NEAREST))
    return (image * (1 - _OPACITY) + cells * _OPACITY).astype(np.uint8)
