"""Records -> batches. Order and augmentation are a function of (seed, step), nothing else."""

import dataclasses
import os
from typing import Any

import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.datasets import transforms
from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.targets import mask_targets, panoptic_targets
from deeplab_tf.datasets.tfrecord import decode_example, find_shards
from deeplab_tf.errors import InputError

TARGETS = ("semantic", "panoptic", "masks", "instances")
# So many encoded pictures are shuffled at a time, after the order of the shards.
_SHUFFLE_WINDOW = 8192


@dataclasses.dataclass(frozen=True)
class Augment:
    """What training does to a picture.

    Attributes:
        style: "crop" scales, pads and crops as the official code does; "resized_crop" cuts a
            window of random area and stretches it to the size, for models that get their
            pictures stretched.
        scale: smallest and largest factor of "crop".
        scale_step: between the factors.
        area: smallest and largest share of the picture for "resized_crop".
        aspect: range of the window's aspect, relative to the picture's.
        flip: mirror every second picture.
        color: strength of the colour changes, 0 for none.
        grey: share of pictures that lose their colour, where `color` isn't 0.
        pixel: value of padded pixels, RGB or one for all: what normalises to zero.
    """

    style: str = "crop"
    scale: tuple[float, float] = (0.5, 2.0)
    scale_step: float = 0.25
    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    flip: bool = True
    color: float = 0.0
    grey: float = 0.1
    pixel: float | tuple[float, float, float] = 127.5

    def __post_init__(self):
        if self.style not in ("crop", "resized_crop"):
            raise InputError(f"style is crop or resized_crop; got {self.style!r}.")


def pipeline(
    folder: str | os.PathLike,
    split: str,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    training: bool,
    augment: Augment | None = None,
    resize: str = "pad",
    seed: int = 0,
    first_step: int = 0,
    ignore_label: int | None = None,
    targets: str = "semantic",
    sigma: float = 8.0,
    small_instance_area: int | None = 4096,
    small_instance_weight: float = 3.0,
    max_thing_id: int = 128,
) -> tf.data.Dataset:
    """Batches for `fit`: (image float32 0..255 [B, h, w, 3], label int32 [B, h, w]).

    With panoptic targets: (image, targets, weights), two dicts by the names of the model's
    outputs, made from the labels as they are after scaling and cropping. Targets:
    "semantic_logits" int32 [B, h, w], "center_heatmap" float32 [B, h, w, 1], "offset_map" float32
    [B, h, w, 2]; weights: float32 [B, h, w] each. With mask targets: (image, targets), see
    `mask_targets`.

    With `training` the stream is endless, shuffled anew each epoch, and every batch is full; a
    stream that starts at `first_step` continues exactly as one from the beginning would.
    Otherwise it is one ordered pass whose last batch may be smaller.

    Args:
        folder: of records.
        split: name of the split.
        image_size: (height, width) of the batches.
        batch_size: pictures in each.
        training: see above.
        augment: None leaves pictures as they are but for bringing them to `image_size`.
        resize: how that is done without augmentation: "stretch", or "pad" after shrinking what
            is larger.
        seed: of order and augmentation.
        first_step: batches to leave out at the start of a training stream.
        ignore_label: of padded pixels; None takes the data set's, or 255.
        targets: "semantic", "panoptic", "masks", or "instances" for panoptic labels as they are,
            int32 [B, h, w], in place of classes.
        sigma: width of the centres' Gaussians in pixels.
        small_instance_area: instances of fewer pixels weigh more in the semantic loss; None: none
            does.
        small_instance_weight: the weight of their pixels.
        max_thing_id: of mask targets, the most instances that a picture may have.

    Raises:
        InputError: no such split, an incomplete one, fewer pictures than one batch, or panoptic
            targets of records without instances.
    """
    descriptor = DatasetDescriptor.load(folder)
    if targets not in TARGETS:
        raise InputError(f"targets are one of {', '.join(TARGETS)}; got {targets!r}.")
    divisor = descriptor.label_divisor
    if targets != "semantic" and divisor is None:
        raise InputError(
            f"{folder}: its labels tell no instances apart, which a panoptic model learns. Build "
            "records of a folder with instances/ or of panoptic PNGs: deeplab-tf data build --help"
        )
    shards = [str(path) for path in find_shards(folder, split)]
    ignore_label = descriptor.padding_label if ignore_label is None else ignore_label
    image_size = (int(image_size[0]), int(image_size[1]))

    # The other label would be carried along for nothing.
    used, unused = keys.SEMANTIC_LABEL, keys.PANOPTIC_LABEL
    if targets != "semantic":
        used, unused = unused, used

    def finish(record, index=0):
        example = decode_example(record, divisor)
        example.pop(unused, None)
        if augment is not None:
            base = tf.stack([tf.cast(seed, tf.int64), tf.cast(index, tf.int64)])
            example = _augmented(example, base, augment, image_size, ignore_label, divisor)
        elif resize == "stretch":
            example = transforms.stretch(example, image_size)
        else:
            example = _fitted(example, image_size, ignore_label, divisor)
        image = tf.ensure_shape(tf.cast(example[keys.IMAGE], tf.float32), (*image_size, 3))
        label = tf.ensure_shape(example[used], image_size)
        if targets not in ("panoptic", "masks") or divisor is None:
            return image, label
        known: dict[str, Any] = dict(
            label_divisor=divisor,
            thing_classes=descriptor.thing_classes,
            small_instance_area=small_instance_area,
            small_instance_weight=small_instance_weight,
        )
        if targets == "masks":
            return image, mask_targets(label, max_thing_id=max_thing_id, **known)
        made, weights = panoptic_targets(label, ignore_label=ignore_label, sigma=sigma, **known)
        return image, *(_shaped(maps, image_size) for maps in (made, weights))

    options = dict(num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if training:
        count = descriptor.splits.get(split, 0)
        if count < 1:
            raise InputError(f"{folder}: its dataset.json counts no pictures in {split!r}.")
        stream = _endless(shards, count, seed, first_step * batch_size)
        batches = stream.map(lambda index, record: finish(record, index), **options)
        batches = batches.batch(batch_size, drop_remainder=True)
    else:
        records = tf.data.TFRecordDataset(shards)
        batches = records.map(finish, **options).batch(batch_size)
    ignored = {v for v in (ignore_label, descriptor.ignore_label) if v is not None}

    # Batch by batch: the many small steps of a check cost more than the pixels do.
    def check(image, label, *weights):
        if targets == "instances":
            classes = _checked(label // divisor, descriptor.num_classes, ignored)
            return image, classes * divisor + label % divisor
        if targets == "semantic":
            return image, _checked(label, descriptor.num_classes, ignored)
        name = keys.SEMANTIC_LABEL if targets == "masks" else keys.SEMANTIC_LOGITS
        classes = _checked(label[name], descriptor.num_classes, ignored)
        return image, {**label, name: classes}, *weights

    batches = batches.map(check)
    return batches.prefetch(tf.data.AUTOTUNE)


def _shaped(maps: dict[str, tf.Tensor], size: tuple[int, int]) -> dict[str, tf.Tensor]:
    """The maps that heads learn from, of known shape."""
    names = (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)
    return {name: tf.ensure_shape(maps[name], (*size, *maps[name].shape[2:])) for name in names}


def _checked(labels, classes: int, ignored: set[int]) -> tf.Tensor:
    """The labels; raises if they hold what is no class: nothing out of range reaches a loss."""

    def only_ignored():
        strange = (labels < 0) | (labels >= classes)
        for value in ignored:
            strange &= labels != value
        return tf.logical_not(tf.reduce_any(strange))

    # Two passes over the pixels where nothing is ignored, and the rest only where something is.
    inside = (tf.reduce_min(labels) >= 0) & (tf.reduce_max(labels) < classes)
    right = tf.cond(inside, lambda: True, only_ignored)
    with tf.control_dependencies([tf.debugging.Assert(right, ["label values that no class has"])]):
        return tf.identity(labels)


def _endless(shards: list[str], count: int, seed: int, first: int) -> tf.data.Dataset:
    """(position, record) from position `first` on; each epoch is a new permutation."""

    def epoch(number):
        pair = tf.stack([tf.cast(seed, tf.int64), number])
        files = tf.random.experimental.stateless_shuffle(tf.constant(shards), pair)
        windows = tf.data.TFRecordDataset(files).batch(_SHUFFLE_WINDOW).enumerate()

        # Not `Dataset.shuffle`: its random state would depend on where a run was resumed.
        def shuffled(index, window):
            return tf.data.Dataset.from_tensor_slices(
                tf.random.experimental.stateless_shuffle(window, pair + [1 + index, 0])
            )

        return windows.flat_map(shuffled).enumerate(number * count)

    epochs = tf.data.Dataset.range(first // count, 2**31)
    # What is left out is never decoded, so a resumed run starts at once.
    return epochs.flat_map(epoch).skip(first % count)


def _augmented(
    example, base, augment: Augment, size: tuple[int, int], ignore_label: int, label_divisor
):
    """One training picture at `size`; `base` is its seed, int64 [2]."""

    def seed(number: int):
        return base + tf.constant([number * 7919, 0], tf.int64)

    if augment.color:
        # Before the padding, which stays neutral; it costs a quarter of what decoding did.
        example = transforms.random_color(
            example, seed(4), strength=augment.color, grey=augment.grey
        )
    mirror = transforms.random_mirror(seed(3)) if augment.flip else tf.constant(False)
    if augment.style == "resized_crop":
        example = transforms.random_resized_crop(
            example, seed(1), size=size, area=augment.area, aspect=augment.aspect, mirror=mirror
        )
    else:
        example = transforms.random_scaled_crop(
            example,
            seed(1),
            size=size,
            scales=transforms.scale_factors(*augment.scale, augment.scale_step),
            mirror=mirror,
            pixel=augment.pixel,
            ignore_label=ignore_label,
            label_divisor=label_divisor,
        )
    return example


def _fitted(example, size: tuple[int, int], ignore_label: int, label_divisor: int | None):
    """Shrunk to fit into `size` if larger, then padded to it."""
    whole = tf.cast(tf.shape(example[keys.IMAGE])[:2], tf.float32)
    scale = tf.reduce_min(tf.cast(tf.constant(size), tf.float32) / whole)
    example = tf.cond(
        scale < 1.0,
        lambda: transforms.resize(example, tf.maximum(transforms.scaled_size(whole, scale), 1)),
        lambda: {**example, keys.IMAGE: tf.cast(example[keys.IMAGE], tf.float32)},
    )
    example = transforms.pad_to(
        example, size, pixel=127.5, ignore_label=ignore_label, label_divisor=label_divisor
    )
    return transforms.crop_at(example, [0, 0], size)
