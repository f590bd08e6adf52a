"""Steps on an example: dict -> dict, image and label together, from an explicit seed.

An example is {"image": [H, W, 3], "semantic_label": int32 [H, W], ...}; other keys pass through.
Every random step takes a `seed`, an int32 pair for the stateless generators, so that a picture's
augmentation is a function of (seed, position) alone. Sizes and rounding are those of the official
input code; its float32 arithmetic is kept, since float64 gives other sizes in places.
"""

import numpy as np
import tensorflow as tf

from deeplab_tf import keys

Example = dict[str, tf.Tensor]


def _with(example: Example, image: tf.Tensor, label: tf.Tensor | None) -> Example:
    changed = {keys.IMAGE: image}
    if label is not None:
        changed[keys.SEMANTIC_LABEL] = label
    return {**example, **changed}


def _size(example: Example) -> tf.Tensor:
    """[height, width], int32."""
    return tf.shape(example[keys.IMAGE])[:2]


def resize(example: Example, size) -> Example:
    """To (height, width): image bilinear, label nearest, corners aligned. Image becomes float32."""
    image = tf.raw_ops.ResizeBilinear(
        images=tf.cast(example[keys.IMAGE], tf.float32)[None], size=size, align_corners=True
    )[0]
    label = example.get(keys.SEMANTIC_LABEL)
    if label is not None:
        label = tf.raw_ops.ResizeNearestNeighbor(
            images=label[None, ..., None], size=size, align_corners=True
        )[0, ..., 0]
    return _with(example, image, label)


def size_in_range(
    size, min_size: int, max_size: int | None, factor: int | None, keep_aspect_ratio: bool = True
) -> tf.Tensor:
    """[height, width] after bringing the shorter side to `min_size`, the longer to `max_size`.

    Args:
        size: [height, width], int32.
        min_size: wanted length of the shorter side.
        max_size: bound of the longer side; it wins. None for no bound.
        factor: both sides become factor * k + 1, rounded up. None leaves them.
        keep_aspect_ratio: False makes the result square.
    """
    size = tf.cast(size, tf.float32)
    scaled = tf.floor(size * (tf.constant(min_size, tf.float32) / tf.reduce_min(size)))
    if max_size is not None:
        limit = tf.constant(max_size, tf.float32)
        if factor is not None:
            limit -= (limit - 1) % factor
        bounded = tf.floor(size * (limit / tf.reduce_max(size)))
        scaled = tf.cond(tf.reduce_max(scaled) > limit, lambda: bounded, lambda: scaled)
    result = tf.cast(scaled, tf.int32)
    if factor is not None:
        result += (factor - (result - 1) % factor) % factor
    return result if keep_aspect_ratio else tf.fill([2], tf.reduce_max(result))


def resize_to_range(
    example: Example, *, min_size: int, max_size: int | None = None, factor: int | None = None
) -> Example:
    """Resizes by `size_in_range`."""
    return resize(example, size_in_range(_size(example), min_size, max_size, factor))


def scale_factors(smallest: float, largest: float, step: float) -> np.ndarray:
    """The scales to draw from: evenly spaced from smallest to largest, both included."""
    if step <= 0 or smallest == largest:
        return np.array([smallest], np.float32)
    count = int((largest - smallest) / step + 1)
    return np.linspace(smallest, largest, count, dtype=np.float32)


def scaled_size(size, scale) -> tf.Tensor:
    """[height, width] times `scale`, cut off in float32."""
    return tf.cast(tf.cast(size, tf.float32) * tf.cast(scale, tf.float32), tf.int32)


def scale_by(example: Example, scale) -> Example:
    """Resizes by a factor. A factor of one changes nothing but the image's type."""
    return resize(example, scaled_size(_size(example), scale))


def random_scale(example: Example, seed, *, scales: np.ndarray) -> Example:
    """Resizes by one of `scales`."""
    index = tf.random.stateless_uniform([], seed, 0, len(scales), tf.int32)
    return scale_by(example, tf.gather(tf.constant(scales), index))


def pad_to(example: Example, size, *, pixel: float | tuple, ignore_label: int) -> Example:
    """Fills up to at least (height, width) at the bottom and at the right.

    Args:
        example: smaller or larger than `size`.
        size: (height, width).
        pixel: value of new pixels: what normalises to zero, 127.5 or the RGB means.
        ignore_label: label of new pixels.
    """
    image = tf.cast(example[keys.IMAGE], tf.float32)
    missing = tf.maximum(tf.constant(size) - _size(example), 0)
    below = [[0, missing[0]], [0, missing[1]]]
    # Shift so that the padding's zero is the wanted pixel.
    image = tf.pad(image - pixel, [*below, [0, 0]]) + pixel
    label = example.get(keys.SEMANTIC_LABEL)
    if label is not None:
        label = tf.pad(label, below, constant_values=ignore_label)
    return _with(example, image, label)


def crop_at(example: Example, offset, size) -> Example:
    """The window of (height, width) whose first pixel is at `offset`."""
    label = example.get(keys.SEMANTIC_LABEL)
    if label is not None:
        label = tf.ensure_shape(tf.slice(label, offset, size), size)
    offset, whole = tf.concat([offset, [0]], 0), (*size, 3)
    return _with(
        example, tf.ensure_shape(tf.slice(example[keys.IMAGE], offset, whole), whole), label
    )


def random_crop(example: Example, seed, *, size: tuple[int, int]) -> Example:
    """A window of (height, width), every offset equally likely, the last one included."""
    room = tf.cast(_size(example) - tf.constant(size) + 1, tf.float32)
    offset = tf.cast(tf.random.stateless_uniform([2], seed) * room, tf.int32)
    return crop_at(example, tf.minimum(offset, tf.cast(room, tf.int32) - 1), size)


def flip(example: Example) -> Example:
    """Mirrors left and right."""
    label = example.get(keys.SEMANTIC_LABEL)
    return _with(example, example[keys.IMAGE][:, ::-1], None if label is None else label[:, ::-1])


def random_flip(example: Example, seed) -> Example:
    """Mirrors every second picture."""
    return tf.cond(
        tf.random.stateless_uniform([], seed) <= 0.5, lambda: flip(example), lambda: dict(example)
    )


def stretch(example: Example, size: tuple[int, int]) -> Example:
    """To (height, width) whatever the aspect: image with half-pixel centres and antialiasing.

    This is how phones bring a camera frame to a model's input, so models that shall run there
    train on it.
    """
    image = tf.image.resize(example[keys.IMAGE], size, antialias=True)
    label = example.get(keys.SEMANTIC_LABEL)
    if label is not None:
        label = tf.image.resize(label[..., None], size, method="nearest")[..., 0]
    return _with(example, image, label)


def random_resized_crop(
    example: Example,
    seed,
    *,
    size: tuple[int, int],
    area: tuple[float, float] = (0.35, 1.0),
    aspect: tuple[float, float] = (0.75, 4 / 3),
) -> Example:
    """A window of random area and aspect, stretched to (height, width).

    Args:
        example: any size.
        seed: pair of int32.
        size: of the result.
        area: smallest and largest share of the picture's area.
        aspect: range of the window's width over height, relative to the picture's.
    """
    draws = tf.random.stateless_uniform([4], seed)
    share = area[0] + draws[0] * (area[1] - area[0])
    low, high = float(np.log(aspect[0])), float(np.log(aspect[1]))
    ratio = tf.sqrt(tf.exp(low + draws[1] * (high - low)))
    sides = tf.minimum(tf.sqrt(share) * tf.stack([1.0 / ratio, ratio]), 1.0)
    whole = tf.cast(_size(example), tf.float32)
    window = tf.maximum(tf.cast(tf.round(whole * sides), tf.int32), 1)
    offset = tf.cast(draws[2:] * (tf.cast(_size(example) - window, tf.float32) + 1.0), tf.int32)
    offset = tf.minimum(offset, _size(example) - window)
    image = tf.slice(example[keys.IMAGE], [*tf.unstack(offset), 0], [*tf.unstack(window), 3])
    label = example.get(keys.SEMANTIC_LABEL)
    if label is not None:
        label = tf.slice(label, offset, window)
    return stretch(_with(example, image, label), size)


def random_color(example: Example, seed, *, strength: float = 1.0, grey: float = 0.1) -> Example:
    """Changes brightness, contrast, saturation and tint; makes some pictures grey.

    Args:
        example: image 0..255.
        seed: pair of int32.
        strength: 1 shifts brightness by up to 40 of 255, contrast and saturation by up to 40 %,
            each channel by up to 10 %.
        grey: share of pictures that lose their colour.
    """
    draws = tf.random.stateless_uniform([7], seed, -1.0, 1.0) * strength
    image = tf.cast(example[keys.IMAGE], tf.float32)
    weights = tf.constant([0.299, 0.587, 0.114])
    luma = tf.reduce_sum(image * weights, -1, keepdims=True)
    colorless = tf.random.stateless_uniform([], seed + 1) < grey
    saturation = tf.where(colorless, 0.0, 1.0 + 0.4 * draws[0])
    image = luma + (image - luma) * saturation
    tint = tf.where(colorless, 1.0, 1.0 + 0.1 * draws[1:4])
    mean = tf.reduce_mean(luma)
    image = (image * tint - mean) * (1.0 + 0.4 * draws[4]) + mean + 40.0 * draws[5]
    return _with(example, tf.clip_by_value(image, 0.0, 255.0), example.get(keys.SEMANTIC_LABEL))
