"""ImageNet weights of `keras.applications`, for backbones that are the same network there.

These are MobileNetV2, and MobileNetV3 large and small in their whole width: same layers, same
pixels in [-1, 1], batch norms with the same epsilon. The gates of squeeze-and-excite are a hair
apart: x * 0.16667 here, as in the official code, x / 6 there.

Of the ResNets it is the Caffe variants. Their convolutions have a bias there, which the mean of
the batch norm behind takes over; its epsilon is 1.001e-5, and the means of pixels differ by up to
a level. The other ResNets have a stage's stride elsewhere: kernels of the same shapes, another
function.

The ConvNeXts have zeros around the picture and behind odd maps here, which for sides that are
multiples of 32 makes them the network there on the picture with a grey border: one row and column
of 127.5 before it and two behind. They see it through patches one pixel further up and left. What
is subtracted from pixels and divides them there is in the kernel and the bias of the first
convolution here.

VGG-16's fully connected layers become the convolutions fc6 and fc7 of DeepLabv1 and v2. Where these
are smaller, rows, columns and filters are taken at equal distances, as in v1, Sec. 3.1.
"""

import re

import keras
import numpy as np

from deeplab_tf.backbones import BACKBONES, convnext
from deeplab_tf.errors import InputError

_NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "mobilenet_v3_small": "MobileNetV3Small",
    "resnet_50_caffe": "ResNet50",
    "resnet_101_caffe": "ResNet101",
    "vgg_16": "VGG16",
    "convnext_tiny": "ConvNeXtTiny",
    "convnext_small": "ConvNeXtSmall",
    "convnext_base": "ConvNeXtBase",
    "convnext_large": "ConvNeXtLarge",
}
_STRIDES = (
    "its strides are in other layers there, so the same kernels are another function; take {}"
)
_ALIGNED = "Xception has max pooling there, and separable convolutions in its place here"
_HALVED = "its last block has half the width of the one there; take {}"
_REASONS = {
    **dict.fromkeys(["resnet_v1_50", "resnet_50_torch"], _STRIDES.format("resnet_50_caffe")),
    **dict.fromkeys(["resnet_v1_101", "resnet_101_torch"], _STRIDES.format("resnet_101_caffe")),
    **dict.fromkeys(["xception_41", "xception_65", "xception_71"], _ALIGNED),
    "mobilenet_v3_large_seg": _HALVED.format("mobilenet_v3_large"),
    "mobilenet_v3_small_seg": _HALVED.format("mobilenet_v3_small"),
    "mobilenet_v2_torch": "it pads in another way there; take mobilenet_v2",
    "mobilenet_v3_large_torch": "it pads in another way there; take mobilenet_v3_large",
}
# Applied one after the other to a layer's name there.
_MOBILE_RULES = (
    (r"^bn_Conv1$", "Conv1_bn"),
    (r"_(BN|bn)$", ".BatchNorm"),
    (r"^[Cc]onv1?(?=\.|$)", "Conv"),
    (r"^conv_", "Conv_"),
    (r"^block_", "expanded_conv_"),
    (r"^(expanded_conv(?:_\d+)?)_(expand|depthwise|project)", r"\1.\2"),
    (r"^(expanded_conv(?:_\d+)?)_squeeze_excite_conv", r"\1.squeeze_excite.Conv"),
    (r"^(predictions|logits)$", "Logits.Conv2d_1c_1x1"),
)
_RESNET_RULES = (
    *((rf"^conv{n + 1}_block(\d+)_", rf"block{n}.unit_\1.bottleneck_v1.") for n in (1, 2, 3, 4)),
    (r"\.0_", ".shortcut_"),
    (r"\.(\d)_", r".conv\1_"),
    (r"_conv$", ""),
    (r"_bn$", ".BatchNorm"),
    (r"^predictions$", "logits"),
)
_VGG_RULES = (
    (r"^block(\d)_conv", r"conv\1_"),
    (r"^fc1$", "fc6"),
    (r"^fc2$", "fc7"),
    (r"^predictions$", "logits"),
)
_CONVNEXT_RULES = (
    (r"^convnext_[a-z]+_", ""),
    (r"^stem_", "downsample_layers.0."),
    *((rf"^downsampling_(\w+)_{n}$", rf"downsample_layers.{n + 1}.\1") for n in (0, 1, 2)),
    (r"^stage_(\d)_block_(\d+)_", r"stages.\1.\2."),
    (r"pointwise_conv_", "pointwise_conv"),
    (r"^head_dense$", "logits"),
    (r"^head_", ""),
    (r"layernorm$", "norm"),
)
_RULES = {
    "MobilenetV2": _MOBILE_RULES,
    "MobilenetV3": _MOBILE_RULES,
    "vgg_16": _VGG_RULES,
    convnext.SCOPE: _CONVNEXT_RULES,
}
# Height and width of VGG-16's map on the picture of 224x224 that its fc6 was trained on.
_VGG_MAP = 7


def read_keras_applications(
    model: keras.Model, source: keras.Model | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The weights that belong to a model's backbone: (path -> array, path -> name there).

    Args:
        model: an `ImageClassifier` or a segmentation model.
        source: a model of `keras.applications` with its top. None is the one trained on ImageNet,
            which Keras downloads or has downloaded before.

    Raises:
        InputError: the backbone is another network there, or has no weights of this width.
    """
    settings = model.get_config()
    backbone = settings["backbone"]
    if backbone not in _NETWORKS:
        reason = _REASONS.get(backbone, "there is none of this kind")
        raise InputError(f"keras.applications has no weights for {backbone}: {reason}.")
    multiplier = settings.get("depth_multiplier", 1.0)
    if backbone == "mobilenet_v2" and multiplier != 1.0:
        if settings["divisible_by"] != 8:
            raise InputError(
                "keras.applications rounds the channels of mobilenet_v2 to multiples of 8; build "
                "the model with divisible_by=8."
            )
    if source is None:
        source = _trained(_NETWORKS[backbone], multiplier)
    scope = BACKBONES[backbone].scope
    rules = _RULES.get(scope, _RESNET_RULES)
    arrays, origins = {}, {}
    for weight in source.weights:
        layer, variable = weight.path.split("/")[-2:]
        name = layer
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        array = keras.ops.convert_to_numpy(weight)
        if variable == "kernel" and array.ndim == 2:
            array = array[None, None]  # a 1x1 convolution here
        if name.endswith(".layer_scale"):  # nameless there
            array, variable = array[None, None, None], "layer_scale"
        path = f"{scope}.{name}/{variable}"
        arrays[path], origins[path] = array, f"{layer}/{weight.name}"
    if scope == convnext.SCOPE:
        arrays = _of_scaled_pixels(arrays, source)
    if backbone == "vgg_16":
        arrays = _as_convolutions(arrays, model)
        origins = {path: origins[_fc(path)] for path in arrays}
    return _without_biases_before_batch_norm(arrays), origins


def _of_scaled_pixels(arrays: dict[str, np.ndarray], source: keras.Model) -> dict[str, np.ndarray]:
    """ConvNeXt's arrays for pixels in [-1, 1], in the layout that depthwise kernels have here."""
    (norm,) = (layer for layer in source.layers if isinstance(layer, keras.layers.Normalization))
    mean, variance = (keras.ops.convert_to_numpy(x) for x in (norm.mean, norm.variance))
    result = {
        path: array.swapaxes(2, 3) if path.endswith(".depthwise_conv/kernel") else array
        for path, array in arrays.items()
    }
    stem = f"{convnext.SCOPE}.downsample_layers.0.conv"
    kernel = arrays[f"{stem}/kernel"] / np.sqrt(variance.reshape(-1, 1))
    grey = kernel * (127.5 - mean.reshape(-1, 1))
    result[f"{stem}/kernel"] = kernel * 127.5
    result[f"{stem}/bias"] = arrays[f"{stem}/bias"] + grey.sum((0, 1, 2))
    return result


def _as_convolutions(arrays: dict[str, np.ndarray], model: keras.Model) -> dict[str, np.ndarray]:
    """VGG-16's arrays with its fully connected layers as a model's convolutions of their names.

    Raises:
        InputError: the model is an image classifier, which has none of them.
    """
    if any(layer.name == "vgg_16.logits" for layer in model.layers):
        raise InputError(
            "keras.applications has no weights for an ImageClassifier of vgg_16: it does without "
            "the fully connected layers there. DeepLabV1 and DeepLabV2 take them."
        )
    dense = dict(arrays)
    kernel = dense["vgg_16.fc6/kernel"]
    dense["vgg_16.fc6/kernel"] = kernel.reshape(_VGG_MAP, _VGG_MAP, -1, kernel.shape[-1])
    result = {path: array for path, array in arrays.items() if ".fc" not in path}
    for weight in model.weights:
        if ".fc" in weight.path:
            result[weight.path] = _at_equal_distances(dense[_fc(weight.path)], weight.shape)
    return result


def _fc(path: str) -> str:
    """What a branch's fc6 or fc7 has its weights from: that without a branch's number."""
    return re.sub(r"(\.fc[67])_\d+/", r"\1/", path)


def _at_equal_distances(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array with `shape` of its values along each axis, the first and the last among them.

    Raises:
        InputError: it hasn't got so many.
    """
    if any(size > there for size, there in zip(shape, array.shape, strict=True)):
        raise InputError(
            f"VGG-16's fully connected layers have {array.shape} weights, the model has {shape}: "
            "take at most 4096 for fc6_filters and 7 for fc6_kernel_size."
        )
    for axis, size in enumerate(shape):
        places = np.round(np.linspace(0, array.shape[axis] - 1, size)).astype(int)
        array = np.take(array, places, axis)
    return array


def _without_biases_before_batch_norm(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch norm subtracts its mean: a bias before it is the same as a smaller mean."""
    result = dict(arrays)
    for path in arrays:
        layer, _, variable = path.rpartition("/")
        mean = f"{layer}.BatchNorm/moving_mean"
        if variable == "bias" and mean in arrays:
            result[mean] = arrays[mean] - result.pop(path)
    return result


def _trained(network: str, multiplier: float) -> keras.Model:
    options = {"alpha": multiplier} if network.startswith("Mobile") else {}
    try:
        return getattr(keras.applications, network)(**options, weights="imagenet")
    except Exception as error:
        # Of a width that isn't published it says which are; of a download, what went wrong.
        given = "".join(f" with {name}={value}" for name, value in options.items())
        raise InputError(
            f"keras.applications.{network}{given}: {str(error).splitlines()[0]}"
        ) from None
