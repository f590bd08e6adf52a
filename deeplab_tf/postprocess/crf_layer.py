"""The fully connected CRF as a Keras layer: mean field as a recurrent network.

Papers: Kraehenbuehl and Koltun (https://arxiv.org/abs/1210.5644); Zheng et al., "Conditional Random
Fields as Recurrent Neural Networks" (https://arxiv.org/abs/1502.03240), for training through it.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess import lattice_ops
from deeplab_tf.postprocess.crf_parameters import CrfParameters, find_parameters
from deeplab_tf.postprocess.crf_unary import MIN_PROBABILITY


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DenseCRF(keras.layers.Layer):
    """Sharpens logits by the picture, with gradients: logits in, logits out.

    The same numbers as `crf.dense_crf`, in float32 under any dtype policy: softmax of the output
    is its Q. Gradients go to the logits, the kernels' weights and the compatibility, not to the
    picture. All iterations share their weights (Zheng et al., Sec. 4).

    Lattices are built anew for each batch, with room for as many vertices as there can be: that
    takes more time and memory than in `crf.dense_crf`, where nothing has to stand in a graph. The
    first step takes some seconds to trace.

    Args:
        parameters: a key of `CRF_PRESETS`, or a record, also as a dict. Its weights, and its
            compatibility or Potts, are where training starts. A kernel of weight 0 is left out.
        iterations: of mean field; None takes that of the parameters. Five do for training.
        train_compatibility: whether the classes' costs are learned too.
        max_vertices: room for so many vertices in each picture's bilateral lattice; None takes
            6 H W, always enough. Less takes less memory and time (`PictureCrf.vertices` says how
            many a picture has); if a picture has more, its logits are NaN.
        min_probability: smaller ones count as this one, and have no gradient; 0 for none.

    Input: [logits [B, H, W, C], image [B, H, W, 3], RGB 0..255], H and W fixed. Colours are
    rounded to whole levels.
    Output: logits, float32 [B, H, W, C].

    Raises:
        InputError: a value outside its range, or inputs of other shapes.
    """

    def __init__(
        self,
        parameters: str | CrfParameters | Mapping = "deeplab_v2_resnet_101",
        *,
        iterations: int | None = None,
        train_compatibility: bool = False,
        max_vertices: int | None = None,
        min_probability: float = MIN_PROBABILITY,
        **kwargs,
    ):
        kwargs["dtype"] = "float32"  # colours and codes don't fit into less
        super().__init__(**kwargs)
        # XLA's sorting and bisection take a hundred times TensorFlow's own; JAX has better ones.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        if isinstance(parameters, Mapping):
            parameters = CrfParameters.from_dict(parameters)
        parameters = find_parameters(parameters)
        if iterations is not None:
            parameters = dataclasses.replace(parameters, iterations=iterations)
        if max_vertices is not None and max_vertices < 1:
            raise InputError(f"max_vertices is at least 1; got {max_vertices}.")
        if not 0 <= min_probability < 1:
            raise InputError(f"min_probability is at least 0 and below 1; got {min_probability}.")
        self.parameters = parameters
        self.train_compatibility = train_compatibility
        self.max_vertices = max_vertices
        self.min_probability = min_probability

    def build(self, input_shape):
        logits, image = map(tuple, input_shape)
        if len(logits) != 4 or image[1:] != (*logits[1:3], 3) or None in logits[1:]:
            raise InputError(
                "DenseCRF takes [logits [B, H, W, C], image [B, H, W, 3]] of one fixed size; got "
                f"{logits} and {image}."
            )
        values, classes = self.parameters, logits[3]
        self.bilateral_weight = self.gaussian_weight = self.compatibility = None
        if values.w1:
            self.bilateral_weight = self._number("bilateral_weight", values.w1)
            self._bilateral_plan = self._plan(*logits[1:3], self._bilateral_widths, (255,) * 3)
        if values.w2:
            self.gaussian_weight = self._number("gaussian_weight", values.w2)
            self._gaussian_plan = self._plan(*logits[1:3], self._gaussian_widths, ())
        if self.train_compatibility or values.compatibility is not None:
            self.compatibility = self.add_weight(
                name="compatibility",
                shape=(classes, classes),
                initializer=self._first_compatibility,
                trainable=self.train_compatibility,
            )

    def _number(self, name: str, value: float):
        start = keras.initializers.Constant(value)
        return self.add_weight(name=name, shape=(), initializer=start)

    def _first_compatibility(self, shape, dtype=None):
        matrix = self.parameters.compatibility
        if matrix is None:
            return 1 - ops.eye(shape[0], dtype=dtype)
        if len(matrix) != shape[0]:
            raise InputError(f"compatibility is of {len(matrix)} classes, logits of {shape[0]}.")
        return ops.convert_to_tensor(matrix, dtype=dtype)

    @property
    def _bilateral_widths(self) -> tuple[float, ...]:
        """Of each feature: x, y, red, green, blue."""
        return _each(self.parameters.sigma_alpha, 2) + _each(self.parameters.sigma_beta, 3)

    @property
    def _gaussian_widths(self) -> tuple[float, ...]:
        return _each(self.parameters.sigma_gamma, 2)

    def _plan(self, height: int, width: int, widths, colors) -> lattice_ops.Plan:
        most = [
            extent / size for extent, size in zip((width, height, *colors), widths, strict=True)
        ]
        vertices = height * width * (len(widths) + 1)
        if colors and self.max_vertices:
            vertices = min(vertices, self.max_vertices)
        return lattice_ops.Plan.of_features([0.0] * len(most), most, vertices)

    def call(self, inputs):
        logits, image = inputs
        batch, (height, width, classes) = ops.shape(logits)[0], logits.shape[1:]
        log_p = ops.log_softmax(ops.reshape(logits, (-1, classes)))
        if self.min_probability:
            log_p = ops.maximum(log_p, math.log(self.min_probability))
        kernels = self._kernels(ops.stop_gradient(image), batch, height, width)
        x = log_p
        for _ in range(self.parameters.iterations):
            q = ops.softmax(x)
            message = ops.zeros_like(q)
            for kernel in kernels:
                filtered = kernel.after * kernel.filter(kernel.before * q)
                message = message + kernel.weight * filtered
            if self.compatibility is not None:
                message = -ops.matmul(message, ops.transpose(self.compatibility))
            x = log_p + message
        return ops.reshape(x, (-1, height, width, classes))

    def _kernels(self, image, batch, height: int, width: int) -> list["_Kernel"]:
        """Those that have a weight, for the pictures of a batch."""
        kernels = []
        if self.bilateral_weight is not None:
            parts = self._parts(height, width, self._bilateral_widths)
            place = functools.partial(self._place_colors, parts)
            vertices = lattice_ops.Vertices(*ops.map(place, image))
            lattice = lattice_ops.Filter(vertices, self._bilateral_plan, batch)
            kernels.append(self._kernel(lattice, self.bilateral_weight))
        if self.gaussian_weight is not None:
            parts = self._parts(height, width, self._gaussian_widths)
            vertices = lattice_ops.place(_positions(*parts), self._gaussian_plan)
            vertices = lattice_ops.Vertices(*(part[None] for part in vertices))
            lattice = lattice_ops.Filter(vertices, self._gaussian_plan, batch)
            kernels.append(self._kernel(lattice, self.gaussian_weight))
        return kernels

    def _parts(self, height: int, width: int, widths) -> list[np.ndarray]:
        """Of each feature, the parts of all values that it can have: float32 [values, 2]."""
        most = max(height, width, 256)
        values = np.arange(most, dtype=np.float32)[:, None] / np.asarray(widths, np.float32)
        parts = lattice_ops.elevated_parts(values)
        counts = (width, height, 256, 256, 256)
        return [parts[:count, i] for i, count in zip(range(len(widths)), counts, strict=False)]

    def _place_colors(self, parts, image):
        """The vertices of one picture, [H, W, 3], whose colours are rounded to whole levels."""
        colors = ops.cast(ops.round(ops.clip(ops.reshape(image, (-1, 3)), 0, 255)), "int32")
        channels = [ops.take(parts[2 + i], colors[:, i], axis=0)[:, None] for i in range(3)]
        features = ops.concatenate([_positions(*parts[:2]), *channels], axis=1)
        return tuple(lattice_ops.place(features, self._bilateral_plan))

    def _kernel(self, lattice: lattice_ops.Filter, weight) -> "_Kernel":
        """With its normalisation, see `CrfParameters`."""
        kind = self.parameters.normalization
        norm = 1 / (lattice.of_ones() + 1e-20)
        if kind == "symmetric":
            norm = ops.sqrt(norm)
        before = norm if kind in ("symmetric", "before") else 1.0
        after = norm if kind in ("symmetric", "after") else 1.0
        return _Kernel(lattice, weight, before, after)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "parameters": self.parameters.to_dict(),
            "train_compatibility": self.train_compatibility,
            "max_vertices": self.max_vertices,
            "min_probability": self.min_probability,
        }


class _Kernel(NamedTuple):
    """A lattice, its weight, and what values are multiplied by before and after it."""

    filter: lattice_ops.Filter
    weight: Any
    before: Any
    after: Any


def _positions(across: np.ndarray, down: np.ndarray):
    """The parts of each pixel's x and y: [W, 2] and [H, 2] -> [H * W, 2, 2]."""
    shape = (len(down), len(across), 2)
    x, y = ops.broadcast_to(across[None], shape), ops.broadcast_to(down[:, None], shape)
    return ops.reshape(ops.stack([x, y], axis=2), (-1, 2, 2))


def _each(width: float | tuple[float, ...], count: int) -> tuple[float, ...]:
    return width if isinstance(width, tuple) else (width,) * count
