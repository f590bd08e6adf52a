"""Resizing: with aligned corners, as the official code does everywhere, or by pixel centres."""

import keras
from keras import ops


def scale_dimension(size: int, scale: float) -> int:
    """Side length after scaling so that the corners stay aligned: 513 * 1/16 -> 33."""
    return int((float(size) - 1.0) * scale + 1.0)


def _source_positions(size_in, size_out, align_corners: bool = True, scale: float | None = None):
    """Where each output row reads: float32 [size_out], products in float32 as the kernels do."""
    if not align_corners:
        step = 1 / scale if scale else size_in / size_out
        rows = ops.arange(size_out, dtype="float32")
        return ops.maximum((rows + 0.5) * ops.cast(step, "float32") - 0.5, 0.0)
    return ops.arange(size_out, dtype="float32") * _corner_scale(size_in, size_out)


def _corner_scale(size_in, size_out):
    """How far apart in the input neighbours of the output are, corners aligned: float32."""
    steps = max(size_out - 1, 1) if isinstance(size_out, int) else ops.maximum(size_out - 1, 1)
    return ops.cast((size_in - 1) / steps, "float32")


def _interpolate(x, axis: int, position):
    """Reads float32 [B, H, W, C] at these rows (axis 1) or columns (axis 2), float32 [N]."""
    size = ops.shape(x)[axis]
    lower = ops.clip(ops.cast(ops.floor(position), "int32"), 0, size - 1)
    upper = ops.minimum(lower + 1, size - 1)
    weight = position - ops.cast(lower, "float32")
    weight = ops.reshape(weight, (-1, 1, 1) if axis == 1 else (-1, 1))
    below, above = ops.take(x, lower, axis=axis), ops.take(x, upper, axis=axis)
    return below + (above - below) * weight


def resize_bilinear(x, size, *, align_corners: bool = True, scale: float | None = None):
    """Bilinear resize: [B, H, W, C] -> [B, size[0], size[1], C].

    Args:
        x: float tensor (other types become float32).
        size: (height, width), integers or, in a TensorFlow graph, scalar tensors.
        align_corners: corner pixels lie on corner pixels. False takes pixels for squares and
            reads at their centres ("half-pixel"), PyTorch's default.
        scale: of pixels to pixels, where it isn't exactly that of the sizes because they were
            rounded; without aligned corners only.

    Returns:
        A tensor of x's dtype (float32 if x isn't a float).
    """
    dtype = x.dtype if "float" in keras.backend.standardize_dtype(x.dtype) else "float32"
    wide = ops.cast(x, "float32")
    if keras.backend.backend() == "tensorflow" and scale is None:
        import tensorflow as tf

        resized = tf.raw_ops.ResizeBilinear(
            images=wide,
            size=tf.stack(size),
            align_corners=align_corners,
            half_pixel_centers=not align_corners,
        )
        return ops.cast(resized, dtype)
    for axis, size_out in ((1, size[0]), (2, size[1])):
        position = _source_positions(ops.shape(wide)[axis], size_out, align_corners, scale)
        wide = _interpolate(wide, axis, position)
    return ops.cast(wide, dtype)


def resize_rows(x, rows, size):
    """Some rows of `resize_bilinear(x, size)`, up to rounding: [B, h, w, C] -> [B, R, size[1], C].

    Args:
        x: float32.
        rows: their numbers, int32 [R].
        size: (height, width) of the whole, integers or, in a TensorFlow graph, scalar tensors.
    """
    scale = _corner_scale(ops.shape(x)[1], size[0])
    x = _interpolate(x, 1, ops.cast(rows, "float32") * scale)
    return resize_bilinear(x, (ops.shape(rows)[0], size[1]))


def resize_nearest(x, size):
    """Nearest resize with aligned corners, ties upwards: [B, H, W, C] -> [B, *size, C].

    The source row is `round_half_up(y * (in - 1) / (out - 1))` in float32. Rounding ties to even,
    or computing in float64, picks other rows and so other labels.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.ResizeNearestNeighbor(
            images=x, size=tf.stack(size), align_corners=True, half_pixel_centers=False
        )
    for axis, size_out in ((1, size[0]), (2, size[1])):
        position = _source_positions(x.shape[axis], size_out)
        lower = ops.floor(position)
        # Not floor(position + 0.5): that sum itself rounds up just below a half.
        index = ops.where(position - lower >= 0.5, lower + 1, lower)
        index = ops.minimum(ops.cast(index, "int32"), x.shape[axis] - 1)
        x = ops.take(x, index, axis=axis)
    return x


@keras.saving.register_keras_serializable(package="deeplab_tf")
class ResizeLike(keras.layers.Layer):
    """Resizes the first of two inputs to the height and width of the second, times `scale`.

    [[B, h, w, C], [B, H, W, D]] -> [B, H, W, C], bilinear, see `resize_bilinear`. A whole factor
    can't do this: 33 has to become 129, not 132. With a `scale` the sides are
    `scale_dimension` of the second input's, or without aligned corners its sides times `scale`,
    rounded down, at pixels that are `scale` apart nonetheless: as PyTorch scales by a factor.
    """

    def __init__(self, scale: float = 1.0, align_corners: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.align_corners = align_corners

    def _target(self, side):
        if side is None or self.scale == 1.0:
            return side
        fixed = isinstance(side, int)
        if not self.align_corners:
            scaled = (side if fixed else ops.cast(side, "float32")) * self.scale
            return int(scaled) if fixed else ops.cast(scaled, "int32")
        if fixed:
            return scale_dimension(side, self.scale)
        return ops.cast((ops.cast(side, "float32") - 1.0) * self.scale + 1.0, "int32")

    def call(self, inputs):
        x, reference = inputs
        size = tuple(self._target(side) for side in ops.shape(reference)[1:3])
        # Open sides are symbolic tensors, which can't be compared here.
        if all(isinstance(side, int) for side in size) and tuple(x.shape[1:3]) == size:
            return x
        by_factor = self.scale != 1.0 and not self.align_corners
        return resize_bilinear(
            x,
            size,
            align_corners=self.align_corners,
            scale=self.scale if by_factor else None,
        )

    def compute_output_shape(self, input_shape):
        (batch, _, _, channels), reference = input_shape
        return (batch, *(self._target(side) for side in reference[1:3]), channels)

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "align_corners": self.align_corners,
        }


@keras.saving.register_keras_serializable(package="deeplab_tf")
class ResizeOffsetsLike(ResizeLike):
    """`ResizeLike` for maps of offsets (y, x) in pixels, which grow with the map: the same shapes.

    Corner on corner, a map of h rows that becomes one of H has (H - 1) / (h - 1) of its new pixels
    in an old one.
    """

    def call(self, inputs):
        x, reference = inputs
        resized = super().call(inputs)
        factors = []
        for side, target in zip(ops.shape(x)[1:3], ops.shape(reference)[1:3], strict=True):
            if isinstance(side, int) and isinstance(target, int):
                factors.append(float(self._target(target) - 1) / max(side - 1, 1))
            else:
                wide = ops.cast(self._target(target) - 1, "float32")
                factors.append(wide / ops.cast(ops.maximum(side - 1, 1), "float32"))
        return resized * ops.cast(ops.stack(factors), resized.dtype)
