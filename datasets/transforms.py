"""Steps on an example: dict -> dict, image and label together, from an explicit seed.

An example is {"image": [H, W, 3], "semantic_label": int32 [H, W], ...}; other keys pass through.
A "panoptic_label" (int32 [H, W], class * label_divisor + instance) goes wherever the semantic one
goes; steps that pad then need to know the divisor.
Every random step takes a `seed`, an int32 pair for the stateless generators, so that a picture's
augmentation is a function of (seed, position) alone. Sizes and rounding are those of the official
input code; its float32 arithmetic is kept, since float64 gives other sizes in places.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeplab_tf import keys

Example = dict[str, tf.Tensor]
# float32, in which pictures are sampled, is exact up to 24 bits; larger labels go in two parts.
_PART_BITS = 12


def _with(example: Example, image: tf.Tensor, change: Callable) -> Example:
    """The example with another image, and `change` of each label that it has."""
    labels = (keys.SEMANTIC_LABEL, keys.PANOPTIC_LABEL)
    changed = {key: change(example[key]) for key in labels if key in example}
    return {**example, keys.IMAGE: image, **changed}


def _outside(example: Example, ignore_label: int, label_divisor: int | None) -> dict[str, int]:
    """Label -> what it holds outside the picture."""
    values = {keys.SEMANTIC_LABEL: ignore_label}
    if keys.PANOPTIC_LABEL in example:
        if label_divisor is None:
            raise ValueError("an example with panoptic labels is padded with a label_divisor.")
        values[keys.PANOPTIC_LABEL] = ignore_label * label_divisor
    return {key: value for key, value in values.items() if key in example}


def _size(example: Example) -> tf.Tensor:
    """[height, width], int32."""
    return tf.shape(example[keys.IMAGE])[:2]


def resize(example: Example, size) -> Example:
    """To (height, width): image bilinear, label nearest, corners aligned. Image becomes float32."""
    image = tf.raw_ops.ResizeBilinear(
        images=tf.cast(example[keys.IMAGE], tf.float32)[None], size=size, align_corners=True
    )[0]

    def nearest(label):
        return tf.raw_ops.ResizeNearestNeighbor(
            images=label[None, ..., None], size=size, align_corners=True
        )[0, ..., 0]

    return _with(example, image, nearest)


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


def pad_to(
    example: Example,
    size,
    *,
    pixel: float | tuple,
    ignore_label: int,
    label_divisor: int | None = None,
) -> Example:
    """Fills up to at least (height, width) at the bottom and at the right.

    Args:
        example: smaller or larger than `size`.
        size: (height, width).
        pixel: value of new pixels: what normalises to zero, 127.5 or the RGB means.
        ignore_label: class of new pixels.
        label_divisor: of panoptic labels, whose new pixels are void.
    """
    image = tf.cast(example[keys.IMAGE], tf.float32)
    missing = tf.maximum(tf.constant(size) - _size(example), 0)
    below = [[0, missing[0]], [0, missing[1]]]
    # Shift so that the padding's zero is the wanted pixel.
    image = tf.pad(image - pixel, [*below, [0, 0]]) + pixel
    outside = _outside(example, ignore_label, label_divisor).items()
    padded = {key: tf.pad(example[key], below, constant_values=value) for key, value in outside}
    return {**example, keys.IMAGE: image, **padded}


def crop_at(example: Example, offset, size) -> Example:
    """The window of (height, width) whose first pixel is at `offset`."""
    start, whole = tf.concat([offset, [0]], 0), (*size, 3)
    image = tf.ensure_shape(tf.slice(example[keys.IMAGE], start, whole), whole)
    return _with(example, image, lambda label: tf.ensure_shape(tf.slice(label, offset, size), size))


def flip(example: Example) -> Example:
    """Mirrors left and right."""
    return _with(example, example[keys.IMAGE][:, ::-1], lambda label: label[:, ::-1])


def stretch(example: Example, size: tuple[int, int]) -> Example:
    """To (height, width) whatever the aspect: image with half-pixel centres and antialiasing.

    This is how phones bring a camera frame to a model's input, so models that shall run there
    train on it.
    """
    image = tf.image.resize(example[keys.IMAGE], size, antialias=True)
    return _with(
        example,
        image,
        lambda label: tf.image.resize(label[..., None], size, method="nearest")[..., 0],
    )


def sample(
    example: Example,
    first,
    last,
    *,
    size: tuple[int, int],
    pixel: float | tuple[float, float, float] = 127.5,
    ignore_label: int = 255,
    label_divisor: int | None = None,
) -> Example:
    """Crops, resizes, pads and mirrors in one pass over the output.

    The output is an even grid over the picture: image bilinear, label nearest.

    Args:
        example: any size.
        first: float32 (row, column) of the picture that the first pixel shows.
        last: that of the last pixel. A smaller column than the first mirrors.
        size: (height, width) of the result.
        pixel, ignore_label: of what lies outside the picture.
        label_divisor: of panoptic labels.
    """
    box = _box(example, first, last)
    image = _sample_image(example[keys.IMAGE], box, size, pixel)
    outside = _outside(example, ignore_label, label_divisor)
    return {**example, keys.IMAGE: image, **_sample_labels(example, box, size, outside)}


def _box(example: Example, first, last) -> tf.Tensor:
    """The grid's ends as the kernel wants them: [1, 4], shares of the picture's sides."""
    whole = tf.cast(tf.maximum(_size(example) - 1, 1), tf.float32)
    ends = tf.stack([first, last]) / whole
    # Inwards by less than a thousandth of a pixel: rounding puts no border pixel outside.
    return tf.reshape(ends * (1 - 4e-6) + 2e-6, [1, 4])


def _sample_image(image, box, size, pixel=127.5) -> tf.Tensor:
    # The kernel takes one number for what lies outside.
    outside = pixel if isinstance(pixel, int | float) else 0.0
    image = tf.cast(image, tf.float32)
    if outside != pixel:
        image -= pixel
    image = tf.raw_ops.CropAndResize(
        image=image[None], boxes=box, box_ind=[0], crop_size=size, extrapolation_value=outside
    )[0]
    return image + pixel if outside != pixel else image


def _sample_labels(example: Example, box, size, outside: dict[str, int]) -> Example:
    """The labels named in `outside`, which says what they hold beyond the picture."""
    sampled = {}
    for key, value in outside.items():
        # Relative to what lies outside, so that zero does for all planes.
        label = example[key] - value
        planes = [label]
        if key == keys.PANOPTIC_LABEL:
            high, low = label // 2**_PART_BITS, label % 2**_PART_BITS  # floored: low isn't negative
            planes = [high, low]
        found = tf.raw_ops.CropAndResize(
            image=tf.stack(planes, -1)[None],
            boxes=box,
            box_ind=[0],
            crop_size=size,
            method="nearest",
            extrapolation_value=0.0,
        )
        parts = tf.unstack(tf.cast(found[0], tf.int32), axis=-1)
        label = parts[0] if len(parts) == 1 else parts[0] * 2**_PART_BITS + parts[1]
        sampled[key] = label + value
    return sampled


def _mirrored(first, last, mirror):
    """The grid's ends with their columns exchanged where `mirror` is true."""
    columns = tf.stack([first[1], last[1]])
    columns = tf.where(mirror, columns[::-1], columns)
    return tf.stack([first[0], columns[0]]), tf.stack([last[0], columns[1]])


def random_mirror(seed) -> tf.Tensor:
    """True for every second picture."""
    return tf.random.stateless_uniform([], seed) <= 0.5


def random_scaled_crop(
    example: Example,
    seed,
    *,
    size: tuple[int, int],
    scales: np.ndarray,
    mirror=False,
    pixel: float | tuple[float, float, float] = 127.5,
    ignore_label: int = 255,
    label_divisor: int | None = None,
) -> Example:
    """The official augmentation in one pass: scale, pad, crop, mirror.

    Gives what `scale_by`, `pad_to`, a crop of random offset and `flip` give one after the other,
    without ever making the scaled picture.

    Args:
        example: any size.
        seed: pair of integers.
        size: (height, width) of the result.
        scales: factors to draw from.
        mirror: scalar boolean.
        pixel, ignore_label: of padding.
        label_divisor: of panoptic labels.
    """
    index = tf.random.stateless_uniform([], seed, 0, len(scales), tf.int32)
    scaled = scaled_size(_size(example), tf.gather(tf.constant(scales), index))
    scaled = tf.cast(tf.maximum(scaled, 1), tf.float32)
    room = tf.maximum(scaled - tf.cast(tf.constant(size), tf.float32) + 1.0, 1.0)
    offset = tf.floor(tf.random.stateless_uniform([2], seed + 1) * room)
    offset = tf.minimum(offset, room - 1.0)
    # Corners stay aligned: a pixel of the scaled picture shows this many of the picture's.
    whole = tf.cast(_size(example), tf.float32)
    step = tf.where(scaled > 1.0, (whole - 1.0) / tf.maximum(scaled - 1.0, 1.0), whole)
    span = tf.constant([size[0] - 1.0, size[1] - 1.0])
    first, last = _mirrored(offset * step, (offset + span) * step, mirror)
    return sample(
        example,
        first,
        last,
        size=size,
        pixel=pixel,
        ignore_label=ignore_label,
        label_divisor=label_divisor,
    )


def random_resized_crop(
    example: Example,
    seed,
    *,
    size: tuple[int, int],
    area: tuple[float, float] = (0.35, 1.0),
    aspect: tuple[float, float] = (0.75, 4 / 3),
    mirror=False,
) -> Example:
    """A window of random area and aspect, stretched to (height, width).

    Args:
        example: any size.
        seed: pair of integers.
        size: of the result.
        area: smallest and largest share of the picture's area.
        aspect: range of the window's width over height, relative to the picture's.
        mirror: scalar boolean.
    """
    draws = tf.random.stateless_uniform([4], seed)
    share = area[0] + draws[0] * (area[1] - area[0])
    low, high = float(np.log(aspect[0])), float(np.log(aspect[1]))
    ratio = tf.sqrt(tf.exp(low + draws[1] * (high - low)))
    sides = tf.minimum(tf.sqrt(share) * tf.stack([1.0 / ratio, ratio]), 1.0)
    whole = tf.cast(_size(example), tf.float32)
    window = tf.maximum(tf.round(whole * sides), 1.0)
    offset = tf.minimum(tf.floor(draws[2:] * (whole - window + 1.0)), whole - window)
    # Half-pixel centres, as in `stretch`; the grid's ends stay inside the picture.
    inset = 0.5 * window / tf.constant(size, tf.float32) - 0.5
    first = tf.maximum(offset + inset, 0.0)
    last = tf.minimum(offset + window - 1.0 - inset, whole - 1.0)
    first, last = _mirrored(first, last, mirror)
    box = _box(example, first, last)

    def smooth():
        """A grid that leaves pixels out needs a filter first, which costs twice the time."""
        start, extent = tf.cast(offset, tf.int32), tf.cast(window, tf.int32)
        image = tf.slice(
            example[keys.IMAGE], tf.concat([start, [0]], 0), tf.concat([extent, [3]], 0)
        )
        image = tf.image.resize(tf.ensure_shape(image, (None, None, 3)), size, antialias=True)
        return tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)

    shrinks = tf.reduce_max(window / tf.constant(size, tf.float32)) > 1.25
    image = tf.cond(shrinks, smooth, lambda: _sample_image(example[keys.IMAGE], box, size))
    # Nothing lies outside, so any value will do for it.
    inside = _outside(example, 0, 1)
    return {**example, keys.IMAGE: image, **_sample_labels(example, box, size, inside)}


def random_color(example: Example, seed, *, strength: float = 1.0, grey: float = 0.1) -> Example:
    """Changes brightness, contrast, saturation and tint; makes some pictures grey.

    All of it is one affine map of the three channels, so that it costs one product.

    Args:
        example: image 0..255.
        seed: pair of integers.
        strength: 1 shifts brightness by up to 40 of 255, contrast and saturation by up to 40 %,
            each channel by up to 10 %.
        grey: share of pictures that lose their colour.
    """
    draws = tf.random.stateless_uniform([6], seed, -1.0, 1.0) * strength
    image = tf.cast(example[keys.IMAGE], tf.float32)
    colorless = tf.random.stateless_uniform([], seed + 1) < grey
    saturation = tf.where(colorless, 0.0, 1.0 + 0.4 * draws[0])
    tint = tf.where(colorless, tf.ones(3), 1.0 + 0.1 * draws[1:4])
    contrast = 1.0 + 0.4 * draws[4]
    luma = tf.constant([[0.299], [0.587], [0.114]])
    matrix = (saturation * tf.eye(3) + (1.0 - saturation) * luma) * (tint * contrast)
    shift = tf.reduce_mean(image) * (1.0 - contrast) + 40.0 * draws[5]
    flat = tf.linalg.matmul(tf.reshape(image, [-1, 3]), matrix)
    flat = tf.nn.bias_add(flat, tf.fill([3], shift))
    flat = tf.raw_ops.ClipByValue(t=flat, clip_value_min=0.0, clip_value_max=255.0)
    image = tf.ensure_shape(tf.reshape(flat, tf.shape(image)), image.shape)
    return {**example, keys.IMAGE: image}
