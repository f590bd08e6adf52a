"""Panoptic-DeepLab: two decoders, and three maps from which instances are grouped bottom-up.

Paper: https://arxiv.org/abs/1911.10194. On an axial backbone it is Axial-DeepLab,
https://arxiv.org/abs/2003.07853. Merging the maps is in `deeplab_tf.postprocess.panoptic`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings
from deeplab_tf.layers.resize import ResizeLike, ResizeOffsetsLike
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.deeplab_v3 import (
    ATROUS_RATES,
    backbone_at,
    backbone_options,
    layer_of,
    own_arguments,
    pooling_window,
)
from deeplab_tf.models.panoptic_heads import panoptic_decoder, panoptic_head
from deeplab_tf.models.pixels import normalize_pixels

TASKS = ("panoptic", "semantic", "instance")
_CONV_TYPES = ("depthwise_separable_conv", "standard_conv")


@keras.saving.register_keras_serializable(package="deeplab_tf")
class PanopticDeepLab(SegmentationModel):
    """Panoptic-DeepLab as one flat functional graph.

    Args:
        num_classes: classes to predict, things and stuff together.
        backbone: a key of `BACKBONES` with endpoints "res2" and "res3".
        output_stride: 8, 16 or 32: input size over encoder output size.
        atrous_rates: of ASPP; None takes those of the output stride, as in DeepLabv3.
        instance_atrous_rates: of the instance half's; None takes the same.
        tasks: "panoptic", or one half of it: "semantic" or "instance".
        low_level: (endpoint, channels of its projection) for each stage of the semantic decoder,
            the coarsest first.
        instance_low_level: the same for the instance decoder.
        aspp_channels, decoder_channels, head_channels: of the semantic half.
        instance_aspp_channels, instance_decoder_channels, instance_head_channels: of the other;
            the two instance heads are alike.
        aspp_use_only_1x1_proj_conv: a 1x1 convolution in place of ASPP: after axial attention,
            every pixel has seen all others.
        image_pooling_crop_size: (height, width) of the training crop, which ASPP's image-level
            feature is the mean over, also in larger pictures; None pools the whole picture.
        decoder_conv_type, head_conv_type: "depthwise_separable_conv" or "standard_conv".
        depth_multiplier, divisible_by, use_bounded_activation, …: of the backbone, see `DeepLabV3`.
        stem_width_multiplier, backbone_width_multiplier, backbone_layer_multiplier,
            use_sac_beyond_stride, use_squeeze_and_excite, drop_path_keep_prob,
            drop_path_schedule: of the backbone, see `axial_resnet`.
        batch_norm_epsilon: of heads and backbone; some published models have 1e-5.
        dropout_rate: after ASPP, in training.
        upsample_logits: False leaves all maps at the decoders' stride.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size. Normalisation is inside.
    Output: {"semantic_logits": [B, H, W, num_classes], "center_heatmap": [B, H, W, 1],
    "offset_map": [B, H, W, 2]}, float32. Offsets are (y, x) in pixels, from a pixel to its
    instance's centre. Of "semantic" the logits alone.

    Raises:
        InputError: an unknown backbone, an output stride that it can't do, or an option that it
            doesn't have.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        *,
        output_stride: int = 32,
        atrous_rates: Sequence[int] | None = None,
        instance_atrous_rates: Sequence[int] | None = None,
        tasks: str = "panoptic",
        low_level: Sequence[Sequence] = (("res3", 64), ("res2", 32)),
        instance_low_level: Sequence[Sequence] = (("res3", 32), ("res2", 16)),
        aspp_channels: int = 256,
        decoder_channels: int = 256,
        head_channels: int = 256,
        instance_aspp_channels: int = 256,
        instance_decoder_channels: int = 128,
        instance_head_channels: int = 32,
        aspp_use_only_1x1_proj_conv: bool = False,
        image_pooling_crop_size: Sequence[int] | None = None,
        decoder_conv_type: str = "depthwise_separable_conv",
        head_conv_type: str = "depthwise_separable_conv",
        multi_grid: Sequence[int] | None = None,
        depth_multiplier: float = 1.0,
        divisible_by: int | None = None,
        use_bounded_activation: bool = False,
        nas_architecture_options: dict | None = None,
        stem_width_multiplier: float = 1.0,
        backbone_width_multiplier: float | None = None,
        backbone_layer_multiplier: float = 1.0,
        use_sac_beyond_stride: int = 0,
        use_squeeze_and_excite: bool = False,
        drop_path_keep_prob: float = 1.0,
        drop_path_schedule: str = "linear",
        batch_norm_epsilon: float = PANOPTIC_BN.epsilon,
        dropout_rate: float = 0.1,
        upsample_logits: bool = True,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "panoptic_deeplab",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        record = backbone_at(backbone, output_stride)
        if tasks not in TASKS:
            raise InputError(f"tasks is one of {', '.join(TASKS)}; got {tasks!r}.")
        for key in ("decoder_conv_type", "head_conv_type"):
            if arguments[key] not in _CONV_TYPES:
                raise InputError(f"{key} is {' or '.join(_CONV_TYPES)}; got {arguments[key]!r}.")
        if atrous_rates is None:
            arguments["atrous_rates"] = ATROUS_RATES[output_stride]
        for key in ("low_level", "instance_low_level"):  # as JSON brings them back
            arguments[key] = [list(stage) for stage in arguments[key]]

        # --- Encoder ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, record.pixels)
        endpoints = {"preprocessed": x}
        options = backbone_options(backbone, record, arguments)
        features = record.build(x, output_stride=output_stride, **options)
        endpoints |= features
        endpoints["backbone"] = features["res5"]

        # --- Semantic half ---
        outputs = {}
        if tasks != "instance":
            x = _decoder(
                features, "semantic_decoder", low_level, aspp_channels, decoder_channels, arguments
            )
            endpoints["semantic_decoder"] = x
            x = _head(x, "semantic_head", "semantic", num_classes, head_channels, arguments)
            endpoints["logits"] = outputs[keys.SEMANTIC_LOGITS] = x

        # --- Instance half ---
        if tasks != "semantic":
            x = _decoder(
                features,
                "instance_decoder",
                instance_low_level,
                instance_aspp_channels,
                instance_decoder_channels,
                arguments,
            )
            endpoints["instance_decoder"] = x
            for head, key, channels in (
                ("instance_center_head", keys.CENTER_HEATMAP, 1),
                ("instance_regression_head", keys.OFFSET_MAP, 2),
            ):
                outputs[key] = _head(x, head, head, channels, instance_head_channels, arguments)
                endpoints[f"{key}_raw"] = outputs[key]

        for key, x in outputs.items():
            if upsample_logits:
                resize = ResizeOffsetsLike if key == keys.OFFSET_MAP else ResizeLike
                outputs[key] = resize(name=key, dtype="float32")([x, image])
            else:
                outputs[key] = layers.Activation("linear", name=key, dtype="float32")(x)
        result = outputs[keys.SEMANTIC_LOGITS] if tasks == "semantic" else outputs
        super().__init__(image, result, name=name, **kwargs)
        self._finish(arguments, {key: layer_of(tensor) for key, tensor in endpoints.items()})

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        return r"semantic_last_layer/"


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AxialDeepLab(PanopticDeepLab):
    """Panoptic-DeepLab on a backbone of axial attention, with the official settings for it.

    Args:
        num_classes: classes to predict, things and stuff together.
        backbone: "axial_deeplab_s", "_m", "_l" or "_xl", the paper's; "axial_resnet_s", …, the same
            with one 7x7 convolution for a stem; "axial_swidernet", "max_deeplab_s_backbone".
        **arguments: of `PanopticDeepLab`.

    Input, output, errors: as there.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "axial_deeplab_l",
        *,
        output_stride: int = 16,
        aspp_use_only_1x1_proj_conv: bool = True,
        name: str = "axial_deeplab",
        **arguments,
    ):
        super().__init__(
            num_classes,
            backbone,
            output_stride=output_stride,
            aspp_use_only_1x1_proj_conv=aspp_use_only_1x1_proj_conv,
            name=name,
            **arguments,
        )


def _batch_norm(arguments: dict[str, Any]) -> BatchNormSettings:
    return dataclasses.replace(PANOPTIC_BN, epsilon=arguments["batch_norm_epsilon"])


def _decoder(
    features: dict,
    scope: str,
    low_level: Sequence[Sequence],
    aspp_channels: int,
    channels: int,
    arguments: dict[str, Any],
):
    """The decoder of one half: -> [B, h, w, channels]."""
    rates = arguments["atrous_rates"]
    if scope == "instance_decoder":
        rates = arguments["instance_atrous_rates"] or rates
    for endpoint, _ in low_level:
        if endpoint not in features:
            known = [name for name in features if name != "res5"]
            raise InputError(
                f"low_level of {arguments['backbone']} is among {known}; got {endpoint}."
            )
    return panoptic_decoder(
        features["res5"],
        [(features[endpoint], filters) for endpoint, filters in low_level],
        scope=scope,
        atrous_rates=rates,
        aspp_channels=aspp_channels,
        channels=channels,
        only_projection=arguments["aspp_use_only_1x1_proj_conv"],
        image_pooling_window=pooling_window(
            arguments["image_pooling_crop_size"], arguments["output_stride"]
        ),
        dropout_rate=arguments["dropout_rate"],
        separable=arguments["decoder_conv_type"] != "standard_conv",
        batch_norm=_batch_norm(arguments),
    )


def _head(x, scope: str, last: str, filters: int, channels: int, arguments: dict[str, Any]):
    """One head: -> [B, h, w, filters]."""
    return panoptic_head(
        x,
        filters,
        channels=channels,
        separable=arguments["head_conv_type"] != "standard_conv",
        batch_norm=_batch_norm(arguments),
        name=f"{scope}_without_last_layer",
        last=f"{last}_last_layer",
    )
