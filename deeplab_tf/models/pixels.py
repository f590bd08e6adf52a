"""Normalisation, the first layer of every model."""

from typing import Any

from keras import layers

from deeplab_tf.layers.channels import ReverseChannels

# What the plain ResNets of the official code subtract.
_SLIM_MEANS = (123.15, 115.90, 103.06)
# Blue, green, red: what DeepLabv1 and v2 subtract.
_CAFFE_MEANS = (104.008, 116.669, 122.675)
# Of RGB 0..1, as PyTorch's models were trained.
_MEANS = (0.485, 0.456, 0.406)
_DEVIATIONS = (0.229, 0.224, 0.225)


def normalize_pixels(image, pixels: str):
    """RGB 0..255 -> what the backbone was made for, see `Backbone.pixels`."""
    scale: Any = 1 / 127.5
    offset: Any = -1.0
    if pixels == "mean":
        scale, offset = 1.0, [-mean for mean in _SLIM_MEANS]
    elif pixels == "BGR, mean":
        image = ReverseChannels(name="bgr")(image)
        scale, offset = 1.0, [-mean for mean in _CAFFE_MEANS]
    elif pixels == "mean, std":
        scale = [1 / 255 / deviation for deviation in _DEVIATIONS]
        offset = [-mean / std for mean, std in zip(_MEANS, _DEVIATIONS, strict=True)]
    return layers.Rescaling(scale, offset=offset, name="preprocessed")(image)
