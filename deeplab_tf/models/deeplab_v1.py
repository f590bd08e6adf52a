"""DeepLabv1: VGG-16, its fully connected layers made convolutions with a large field of view.

Paper: "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs",
https://arxiv.org/abs/1412.7062. The CRF is in `deeplab_tf.postprocess.crf`.
"""

from collections.abc import Sequence

import keras
from keras import layers

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import conv_bn_act
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.deeplab_v3 import (
    backbone_at,
    layer_of,
    own_arguments,
    semantic_output,
)
from deeplab_tf.models.pixels import normalize_pixels

# Maps that MSc takes, and their strides; "image" is the picture itself.
_MSC_MAPS = {"image": 1, "pool1": 2, "pool2": 4, "pool3": 8, "pool4": 16}
_MSC_FILTERS = 128


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DeepLabV1(SegmentationModel):
    """DeepLabv1 as one flat functional graph.

    The default is LargeFOV, of 20.5 million parameters. The paper's others (Table 1, left; all at
    output stride 8) are `fc6_kernel_size=7, atrous_rates=(4,), fc6_filters=4096`, the same with a
    kernel of 4, and that with a rate of 8.

    Args:
        num_classes: classes to predict, background included.
        backbone: "vgg_16", the only one.
        output_stride: 8; VGG-16 can do 16 and 32 too.
        atrous_rates: one number, the rate of fc6; None is 12 at output stride 8, and half of it
            at twice the stride.
        fc6_kernel_size, fc6_filters: of the first convolution made of a fully connected layer;
            the second, fc7, has as many filters.
        multi_scale_features: MSc (Sec. 4.2): two convolutions of 128 filters each on the picture
            and on the first four pools, concatenated with fc7 before the last layer.
        pool_ceil_mode: how pools round, see `max_pool`; Caffe rounds up.
        pool5_average: a 3x3 average pool behind the last max pool; zeros of the padding count.
        dropout_rate: after fc6 and fc7, in training.
        align_corners: how logits are resized; True as Caffe's Interp layer does.
        upsample_logits: False leaves the logits at the output stride, as in the paper's training.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size; 8k + 1 keeps corners aligned. The order of channels
    and their means are inside.
    Output: `semantic_logits`, float32 [B, H, W, num_classes].

    Raises:
        InputError: another backbone, an output stride that it can't do, or more than one rate.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg_16",
        *,
        output_stride: int = 8,
        atrous_rates: Sequence[int] | None = None,
        fc6_kernel_size: int = 3,
        fc6_filters: int = 1024,
        multi_scale_features: bool = False,
        pool_ceil_mode: bool = True,
        pool5_average: bool = True,
        dropout_rate: float = 0.5,
        align_corners: bool = True,
        upsample_logits: bool = True,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "deeplab_v1",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        if backbone != "vgg_16":
            raise InputError(f"backbone of DeepLabV1 is vgg_16; got {backbone!r}.")
        record = backbone_at(backbone, output_stride)
        if atrous_rates is None:
            atrous_rates = arguments["atrous_rates"] = (12 * 8 // output_stride,)
        if len(atrous_rates) != 1:
            raise InputError(
                f"atrous_rates of DeepLabV1 is one number, fc6's; got {list(atrous_rates)}. "
                "DeepLabV2 with the backbone vgg_16 has several."
            )

        # --- Encoder ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, record.pixels)
        endpoints = {"preprocessed": x}
        features = record.build(x, output_stride=output_stride, pool_ceil_mode=pool_ceil_mode)
        maps = {"image": x, **features}
        endpoints |= {name: x for name, x in features.items() if name.startswith("pool")}
        x = endpoints["backbone"] = features["res5"]

        # --- Fully connected layers as convolutions ---
        if pool5_average:
            x = endpoints["pool5a"] = average_with_padding(x, name=f"{record.scope}.pool5a")
        x = endpoints["fc7"] = fully_connected(
            x,
            fc6_filters,
            kernel_size=fc6_kernel_size,
            atrous_rate=atrous_rates[0],
            dropout_rate=dropout_rate,
            scope=record.scope,
        )
        if multi_scale_features:
            x = endpoints["msc"] = _msc(x, maps, output_stride, dropout_rate)
        x = endpoints["logits"] = last_layer(num_classes, name="fc8")(x)
        outputs = semantic_output(x, image, arguments)

        super().__init__(image, outputs, name=name, **kwargs)
        self._finish(arguments, {key: layer_of(tensor) for key, tensor in endpoints.items()})

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        return r"fc8/"


def average_with_padding(x, *, name: str):
    """3x3 average pool of stride 1 in which the zeros around the map count: same shape."""
    x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
    return layers.AveragePooling2D(3, 1, padding="valid", name=name)(x)


def fully_connected(
    x,
    filters: int,
    *,
    kernel_size: int,
    atrous_rate: int,
    dropout_rate: float,
    scope: str,
    suffix: str = "",
):
    """VGG's fc6 and fc7 as convolutions (v1, Sec. 3.1): [B, H, W, C] -> [B, H, W, filters].

    They keep the backbone's scope, since ImageNet training gives them their weights too.
    """
    for number, kernel, rate in ((6, kernel_size, atrous_rate), (7, 1, 1)):
        name = f"{scope}.fc{number}{suffix}"
        x = conv_bn_act(x, filters, kernel, dilation_rate=rate, batch_norm=None, name=name)
        x = layers.Dropout(dropout_rate, name=f"{name}.dropout")(x)
    return x


def last_layer(num_classes: int, *, name: str) -> layers.Layer:
    """The 1x1 convolution to classes, from small random numbers as the papers begin it."""
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    return layers.Conv2D(num_classes, 1, kernel_initializer=initializer, name=name)


def _msc(x, maps: dict, output_stride: int, dropout_rate: float):
    """fc7 and 640 channels of the picture and the first pools: [B, H, W, C] -> [B, H, W, C + 640].

    The first convolution on each map has the stride that is missing to the output stride.
    """
    found = [x]
    for key, stride in _MSC_MAPS.items():
        name = f"msc.{key}"
        strides = max(1, output_stride // stride)
        branch = conv_bn_act(
            maps[key],
            _MSC_FILTERS,
            3,
            strides=strides,
            padding="explicit",
            batch_norm=None,
            name=f"{name}.conv1",
        )
        branch = layers.Dropout(dropout_rate, name=f"{name}.dropout1")(branch)
        branch = conv_bn_act(branch, _MSC_FILTERS, 1, batch_norm=None, name=f"{name}.conv2")
        found.append(layers.Dropout(dropout_rate, name=f"{name}.dropout2")(branch))
    return layers.Concatenate(name="msc.concat")(found)
