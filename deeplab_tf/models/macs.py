"""Parameters and multiply-adds, counted from a built graph."""

import dataclasses
import math

import keras
from keras import layers

from deeplab_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a model costs.

    Attributes:
        parameters: as papers count them: without the moving statistics of batch norm.
        multiply_adds: of convolutions, dense layers and attention for one picture. Batch norm folds
            into them; activations, pooling, sums and resizing are left out.
        image_size: (height, width) of that picture.
    """

    parameters: int
    multiply_adds: int
    image_size: tuple[int, int]


def count(
    model: keras.Model,
    image_size: tuple[int, int] | None = None,
    *,
    space_to_batch: bool = False,
) -> Counts:
    """Counts a functional model; nothing is run.

    Args:
        model: its convolutions and dense layers are called once each, but for those in a model
            inside it, which counts once for each of its calls.
        image_size: (height, width). None takes the model's own: its fixed input, or `info`.
        space_to_batch: count as the papers did. TensorFlow 1 ran an atrous convolution (not a
            depthwise one) on a map cut into interleaved parts, after padding it to a multiple of
            the rate, and its profiler counted the padding too: 6 % for DeepLabv3 with ResNet-101.

    Raises:
        InputError: the model has no size of its own and none is given.
    """
    if image_size is None:
        image_size = own_size(model)
    if image_size is None:
        raise InputError(f"{model.name} takes pictures of any size; name one to count for.")
    total = _multiply_adds(model, (image_size[0], image_size[1]), space_to_batch)
    return Counts(parameters(model), total, (image_size[0], image_size[1]))


def _multiply_adds(model: keras.Model, size: tuple[int, int], space_to_batch: bool) -> int:
    """Of one picture of that size."""
    counted = [layer for layer in model.layers if _multiplies(layer)]
    # Layers that say themselves what they cost, by their input's size.
    saying = [layer for layer in model.layers if hasattr(layer, "multiply_adds")]
    shared = [
        (layer, node.input_tensors[0])
        for layer in model.layers
        if isinstance(layer, keras.Model)
        for node in layer._inbound_nodes
    ]
    watched = [
        *(layer.output for layer in counted),
        *(layer.input for layer in saying),
        *(picture for _, picture in shared),
    ]
    if not watched:
        return 0
    found = keras.Model(model.input, watched).compute_output_spec(keras.KerasTensor((1, *size, 3)))
    # A model of one output may give it bare.
    found = found if isinstance(found, list | tuple) else [found]
    total = sum(
        _positions(layer, spec.shape[1:-1], space_to_batch) * _per_position(layer)
        for layer, spec in zip(counted, found, strict=False)
    )
    inputs = found[len(counted) :]
    for layer, spec in zip(saying, inputs, strict=False):
        shapes = keras.tree.map_structure(lambda x: tuple(x.shape), spec)
        total += layer.multiply_adds(shapes)
    for (layer, _), spec in zip(shared, inputs[len(saying) :], strict=True):
        total += _multiply_adds(layer, spec.shape[1:3], space_to_batch)
    return total


def parameters(model: keras.Model) -> int:
    """Elements of all weights but the moving statistics of batch norm."""
    moving = ("/moving_mean", "/moving_variance")
    weights = [weight for weight in model.weights if not weight.path.endswith(moving)]
    return sum(math.prod(weight.shape) for weight in weights)


def own_size(model: keras.Model) -> tuple[int, int] | None:
    """(height, width) of a model's fixed input, or else what its `info` says."""
    height, width = model.input_shape[1:3]
    if height is not None and width is not None:
        return height, width
    info = getattr(model, "info", None)
    return info.image_size if info is not None else None


def _multiplies(layer: keras.Layer) -> bool:
    if isinstance(layer, layers.Conv2DTranspose):
        raise ValueError(f"{layer.name}: transposed convolutions aren't counted yet.")
    convolutions = (layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    kinds = (*convolutions, layers.Dense)
    return isinstance(layer, kinds) and not hasattr(layer, "multiply_adds")


def _positions(layer: keras.Layer, size: tuple[int, ...], space_to_batch: bool) -> int:
    """Places of the output at which a layer multiplies."""
    depthwise = isinstance(layer, layers.DepthwiseConv2D | layers.SeparableConv2D)
    if space_to_batch and not depthwise:
        rates = getattr(layer, "dilation_rate", (1,) * len(size))
        size = tuple(-(-extent // rate) * rate for extent, rate in zip(size, rates, strict=True))
    return math.prod(size)


def _per_position(layer: keras.Layer) -> int:
    """Multiply-adds for each position of the output, all channels together."""
    if isinstance(layer, layers.SeparableConv2D):
        return math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return math.prod(layer.kernel.shape)
