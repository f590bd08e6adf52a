"""ImageNet weights of `keras.applications`, for backbones that are the same network there.

These are MobileNetV2, and MobileNetV3 large and small in their whole width: same layers, same
pixels in [-1, 1], batch norms with the same epsilon. The gates of squeeze-and-excite are a hair
apart: x * 0.16667 here, as in the official code, x / 6 there.

ResNets aren't. `keras.applications` has a stage's stride in the first 1x1 convolution of the
stage, the official code in the 3x3 convolution of the unit before: the kernels have the same
shapes, and make another function.
"""

import re

import keras
import numpy as np

from deeplab_tf.backbones import BACKBONES
from deeplab_tf.errors import InputError

_NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "mobilenet_v3_small": "MobileNetV3Small",
}
_STRIDES = "its strides are in other layers there, so the same kernels are another function"
_ALIGNED = "Xception has max pooling there, and separable convolutions in its place here"
_HALVED = "its last block has half the width of the one there; take {}"
_REASONS = {
    **dict.fromkeys(["resnet_v1_50", "resnet_v1_101"], _STRIDES),
    **dict.fromkeys(["resnet_50_torch", "resnet_101_torch"], _STRIDES),
    **dict.fromkeys(["xception_41", "xception_65", "xception_71"], _ALIGNED),
    "mobilenet_v3_large_seg": _HALVED.format("mobilenet_v3_large"),
    "mobilenet_v3_small_seg": _HALVED.format("mobilenet_v3_small"),
    "mobilenet_v2_torch": "it pads in another way there; take mobilenet_v2",
    "mobilenet_v3_large_torch": "it pads in another way there; take mobilenet_v3_large",
}
# Applied one after the other to a layer's name there.
_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^bn_Conv1$", "Conv1_bn"),
        (r"_(BN|bn)$", ".BatchNorm"),
        (r"^[Cc]onv1?(?=\.|$)", "Conv"),
        (r"^conv_", "Conv_"),
        (r"^block_", "expanded_conv_"),
        (r"^(expanded_conv(?:_\d+)?)_(expand|depthwise|project)", r"\1.\2"),
        (r"^(expanded_conv(?:_\d+)?)_squeeze_excite_conv", r"\1.squeeze_excite.Conv"),
        (r"^(predictions|logits)$", "Logits.Conv2d_1c_1x1"),
    )
)


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
    if backbone == "mobilenet_v2" and settings["depth_multiplier"] != 1.0:
        if settings["divisible_by"] != 8:
            raise InputError(
                "keras.applications rounds the channels of mobilenet_v2 to multiples of 8; build "
                "the model with divisible_by=8."
            )
    if source is None:
        source = _trained(_NETWORKS[backbone], settings["depth_multiplier"])
    scope = BACKBONES[backbone].scope
    arrays, origins = {}, {}
    for layer in source.layers:
        name = layer.name
        for pattern, replacement in _RULES:
            name = pattern.sub(replacement, name)
        for weight in layer.weights:
            array = keras.ops.convert_to_numpy(weight)
            if isinstance(layer, keras.layers.Dense) and weight is layer.kernel:
                array = array[None, None]  # a 1x1 convolution here
            path = f"{scope}.{name}/{weight.name}"
            arrays[path], origins[path] = array, f"{layer.name}/{weight.name}"
    return arrays, origins


def _trained(network: str, multiplier: float) -> keras.Model:
    try:
        return getattr(keras.applications, network)(alpha=multiplier, weights="imagenet")
    except Exception as error:
        # Of a width that isn't published it says which are; of a download, what went wrong.
        raise InputError(
            f"keras.applications.{network} with alpha={multiplier}: {str(error).splitlines()[0]}"
        ) from None
