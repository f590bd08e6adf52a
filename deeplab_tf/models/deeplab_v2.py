"""DeepLabv2: atrous spatial pyramid pooling by summed branches, three scales of the picture.

Paper: "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and
Fully Connected CRFs", https://arxiv.org/abs/1606.00915. The CRF is in `deeplab_tf.postprocess.crf`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.models.aspp import summed_logits
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.deeplab_v1 import average_with_padding, fully_connected, last_layer
from deeplab_tf.models.deeplab_v3 import (
    backbone_at,
    backbone_options,
    layer_of,
    own_arguments,
    semantic_output,
)
from deeplab_tf.models.image_pyramid import merge_scales, scale_suffix
from deeplab_tf.models.pixels import normalize_pixels

# Rates at output stride 8: ASPP-L. ASPP-S has half of them with VGG-16 (2, 4, 8, 12; Sec. 4.1.2).
ATROUS_RATES = (6, 12, 18, 24)


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DeepLabV2(SegmentationModel):
    """DeepLabv2: a flat network, shared by the scales of the picture.

    Args:
        num_classes: classes to predict, background included.
        backbone: "resnet_101_caffe", the paper's, or any other key of `BACKBONES`; "vgg_16" gives
            each rate its own fc6 and fc7 (ASPP-L and ASPP-S; LargeFOV with one rate).
        output_stride: 8 in the paper; or what the backbone can do.
        atrous_rates: of the branches whose logits are summed. None is (6, 12, 18, 24) at output
            stride 8, and half of them at twice the stride. The S variant has (3, 6, 9, 12).
        image_pyramid: scales of the picture whose logits are merged by their maximum (Sec. 4.1);
            (1.0,) for one.
        scale_logits: True gives the model more outputs for training: each scale's own logits.
        pool_ceil_mode: of the backbone's pools, see `max_pool`. None is True for the Caffe
            networks, which v2 has.
        pool5_average: as in `DeepLabV1`, for "vgg_16".
        fc6_filters, dropout_rate: for "vgg_16", see `DeepLabV1`.
        align_corners: how pictures and logits are resized: False as the PyTorch port does, True
            as Caffe's Interp layer.
        upsample_logits: False leaves the logits at the output stride.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size. Normalisation is inside.
    Output: `semantic_logits`, float32 [B, H, W, num_classes]; with `scale_logits` a dictionary of
    these and "semantic_logits_1.00", …, [B, h, w, num_classes] at each scale's own stride.

    Raises:
        InputError: an unknown backbone, an output stride that it can't do, an option that it
            doesn't have, no rate or no scale.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet_101_caffe",
        *,
        output_stride: int = 8,
        atrous_rates: Sequence[int] | None = None,
        image_pyramid: Sequence[float] = (1.0, 0.75, 0.5),
        scale_logits: bool = False,
        pool_ceil_mode: bool | None = None,
        pool5_average: bool = False,
        fc6_filters: int = 1024,
        dropout_rate: float = 0.5,
        align_corners: bool = False,
        upsample_logits: bool = True,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "deeplab_v2",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        record = backbone_at(backbone, output_stride)
        if pool_ceil_mode is None:
            arguments["pool_ceil_mode"] = record.pixels == "BGR, mean"
        if atrous_rates is None:
            rates = tuple(rate * 8 // output_stride for rate in ATROUS_RATES)
            atrous_rates = arguments["atrous_rates"] = rates
        if not atrous_rates:
            raise InputError("atrous_rates of DeepLabV2 needs at least one number.")

        if 1.0 not in image_pyramid or min(image_pyramid) <= 0:
            raise InputError(
                "image_pyramid holds 1.0, the picture as it is, and other positive scales; "
                f"got {list(image_pyramid)}."
            )

        # --- The picture as it is ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, record.pixels)
        endpoints = {"preprocessed": x}
        options = backbone_options(backbone, record, arguments)
        features = record.build(x, output_stride=output_stride, **options)
        endpoints |= {name: x for name, x in features.items() if name.startswith("pool")}
        x = endpoints["backbone"] = features["res5"]
        logits = _logits(x, record.scope, arguments)
        network = keras.Model(image, logits, name="network")

        # --- Its other scales, by the same layers ---
        def at(scaled, scale: float):
            x = logits if scale == 1.0 else network(scaled)
            # A layer of its own for each scale: the network's is the same one for all.
            name = f"{keys.SEMANTIC_LOGITS}_{scale_suffix(scale)}"
            return layers.Activation("linear", name=name, dtype="float32")(x)

        merged, _, own = merge_scales(
            at,
            image,
            image_pyramid,
            merge_method="max",
            align_corners=align_corners,
            stride=output_stride,
        )
        by_scale = {
            f"{keys.SEMANTIC_LOGITS}_{scale:.2f}": tensor
            for scale, tensor in zip(image_pyramid, own, strict=True)
        }
        endpoints |= {**by_scale, "logits": merged}
        outputs = semantic_output(merged, image, arguments)
        if scale_logits:
            outputs = {keys.SEMANTIC_LOGITS: outputs, **by_scale}

        super().__init__(image, outputs, name=name, **kwargs)
        self._finish(arguments, {key: layer_of(tensor) for key, tensor in endpoints.items()})

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        return r"(logits\.semantic|fc8)"


def _logits(x, scope: str, arguments: dict[str, Any]):
    """ASPP: [B, H, W, C] -> [B, H, W, num_classes], the sum of one branch per rate."""
    num_classes, rates = arguments["num_classes"], arguments["atrous_rates"]
    if arguments["backbone"] != "vgg_16":
        return summed_logits(x, num_classes, atrous_rates=rates, kernel_size=3)
    if arguments["pool5_average"]:
        x = average_with_padding(x, name=f"{scope}.pool5a")
    branches = []
    for number, rate in enumerate(rates, start=1):
        suffix = f"_{number}" if len(rates) > 1 else ""
        branch = fully_connected(
            x,
            arguments["fc6_filters"],
            kernel_size=3,
            atrous_rate=rate,
            dropout_rate=arguments["dropout_rate"],
            scope=scope,
            suffix=suffix,
        )
        branches.append(last_layer(num_classes, name=f"fc8{suffix}")(branch))
    return layers.Add(name="logits.add")(branches) if len(branches) > 1 else branches[0]
