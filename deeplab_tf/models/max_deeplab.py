"""MaX-DeepLab: panoptic segmentation by masks and their classes, straight from a transformer.

Paper: https://arxiv.org/abs/2012.00759. What is before the heads is in
`deeplab_tf.backbones.max_deeplab`; merging masks is in `deeplab_tf.postprocess.masks`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from deeplab_tf import keys
from deeplab_tf.backbones.max_deeplab import SIZES, max_deeplab_features
from deeplab_tf.backbones.residual_blocks import Network
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import PANOPTIC_BN
from deeplab_tf.models.deeplab_v3 import ATROUS_RATES, layer_of, own_arguments, pooling_window
from deeplab_tf.models.mask_classes import class_channels
from deeplab_tf.models.mask_heads import auxiliary_semantic_head, mask_predictor
from deeplab_tf.models.mask_transformer import MaskTransformer
from deeplab_tf.models.pixels import normalize_pixels


@keras.saving.register_keras_serializable(package="deeplab_tf")
class MaXDeepLab(MaskTransformer):
    """MaX-DeepLab as one flat functional graph.

    Args:
        num_classes: classes of the data set, things and stuff together; where void has a number
            among them, as in COCO, it counts.
        size: "s" or "l".
        ignore_label: the number of void, which slots don't predict as a class of its own.
        num_mask_slots: masks that a picture can have at most.
        output_stride: 8, 16 or 32: input size over encoder output size; the paper's is 16.
        atrous_rates: of the semantic decoder's ASPP; None takes those of the output stride, as in
            DeepLabv3. The decoder is there in size "s" alone, with these options:
        low_level: (endpoint, channels of its projection) for each of its stages, the coarsest
            first; the last is at stride 4.
        aspp_channels, decoder_channels: of it.
        aspp_use_only_1x1_proj_conv: a 1x1 convolution in place of its ASPP.
        image_pooling_crop_size: (height, width) of the training crop, which ASPP's image-level
            feature is the mean over, also in larger pictures; None pools the whole picture.
        dropout_rate: after its ASPP, in training.
        head_channels: of the semantic head.
        pixel_head_channels, pixel_channels: of the pixels' head, and of the space in which they
            meet the slots.
        mask_scale: standard deviation of the mask logits before anything is learnt, see
            `KMaXDeepLab`.
        stem_width_multiplier: of the stem, and of the first stage in size "l".
        backbone_width_multiplier: of all other residual blocks; those that attend need a multiple
            of 8 channels.
        backbone_layer_multiplier: of the number of blocks in the encoder's stages.
        use_squeeze_and_excite: gate the channels of each block.
        drop_path_keep_prob: of the last stage, in training.
        drop_path_schedule: "linear" from 1 at the stem, or "constant".
        batch_norm_epsilon: of every batch norm.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size. Normalisation is inside.
    Output, float32, with h and w a quarter of the picture's sides, rounded up:
    {"semantic_logits": [B, h, w, num_classes],
    "pixel_space_normalized_feature": [B, h, w, pixel_channels],
    "pixel_space_mask_logits": [B, h, w, num_mask_slots],
    "transformer_class_logits": [B, num_mask_slots, channels]}. The channels of a slot are things,
    then stuff, void last: see `deeplab_tf.models.mask_classes`.

    Raises:
        InputError: an unknown size or an option that it can't have.
    """

    def __init__(
        self,
        num_classes: int,
        size: str = "s",
        *,
        ignore_label: int = 255,
        num_mask_slots: int = 128,
        output_stride: int = 16,
        atrous_rates: Sequence[int] | None = None,
        low_level: Sequence[Sequence] = (("res3", 64), ("res2", 32)),
        aspp_channels: int = 256,
        decoder_channels: int = 256,
        aspp_use_only_1x1_proj_conv: bool = False,
        image_pooling_crop_size: Sequence[int] | None = None,
        dropout_rate: float = 0.1,
        head_channels: int = 256,
        pixel_head_channels: int = 256,
        pixel_channels: int = 128,
        mask_scale: float = 0.1,
        stem_width_multiplier: float = 1.0,
        backbone_width_multiplier: float = 1.0,
        backbone_layer_multiplier: float = 1.0,
        use_squeeze_and_excite: bool = False,
        drop_path_keep_prob: float = 1.0,
        drop_path_schedule: str = "linear",
        batch_norm_epsilon: float = PANOPTIC_BN.epsilon,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "max_deeplab",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        if size not in SIZES:
            raise InputError(f"size is {' or '.join(SIZES)}; got {size!r}.")
        if output_stride not in ATROUS_RATES:
            raise InputError(f"output_stride is one of {[*ATROUS_RATES]}; got {output_stride}.")
        if num_mask_slots < 1:
            raise InputError(f"num_mask_slots is at least 1; got {num_mask_slots}.")
        if atrous_rates is None:
            arguments["atrous_rates"] = ATROUS_RATES[output_stride]
        arguments["low_level"] = [list(stage) for stage in low_level]  # as JSON brings them back

        # --- Pixel path and memory path ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, "[-1, 1]")
        batch_norm = dataclasses.replace(PANOPTIC_BN, epsilon=batch_norm_epsilon)
        network = Network(
            SIZES[size].variant,
            output_stride,
            batch_norm=batch_norm,
            use_squeeze_and_excite=use_squeeze_and_excite,
            drop_path_keep_prob=drop_path_keep_prob,
            drop_path_schedule=drop_path_schedule,
        )
        features = max_deeplab_features(
            SIZES[size],
            x,
            network,
            num_mask_slots=num_mask_slots,
            stem_width_multiplier=stem_width_multiplier,
            width_multiplier=backbone_width_multiplier,
            layer_multiplier=backbone_layer_multiplier,
        )

        # --- Heads ---
        outputs = {
            keys.SEMANTIC_LOGITS: auxiliary_semantic_head(
                features["feature_semantic"],
                None if SIZES[size].extra_stacks else _low_level(features, low_level),
                num_classes,
                head_channels=head_channels,
                batch_norm=batch_norm,
                **_decoder_options(arguments),
            ),
            **mask_predictor(
                features["feature_panoptic"],
                features["transformer_class_feature"],
                features["transformer_mask_feature"],
                channels=class_channels(num_classes, ignore_label),
                pixel_channels=pixel_channels,
                head_channels=pixel_head_channels,
                mask_scale=mask_scale,
                batch_norm=batch_norm,
            ),
        }
        super().__init__(image, outputs, name=name, **kwargs)
        endpoints = {"preprocessed": x, **features, "logits": outputs[keys.SEMANTIC_LOGITS]}
        self._finish(arguments, {key: layer_of(tensor) for key, tensor in endpoints.items()})

    @classmethod
    def encoder_of(cls, arguments: dict[str, Any]) -> tuple[str, int]:
        """The registry's name of its encoder, as that is pretrained, and its output stride."""
        return f"max_deeplab_{arguments['size']}_backbone", arguments["output_stride"]

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        return r"(semantic_last_layer|transformer_class_head)/"


def _low_level(features: dict, low_level: Sequence[Sequence]) -> list:
    """The maps of a semantic decoder, each with the channels of its projection."""
    known = [name for name in features if name.startswith("res") and name != "res5"]
    for endpoint, _ in low_level:
        if endpoint not in known:
            raise InputError(f"low_level is among {known}; got {endpoint}.")
    return [(features[endpoint], filters) for endpoint, filters in low_level]


def _decoder_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Of the semantic decoder."""
    return dict(
        atrous_rates=arguments["atrous_rates"],
        aspp_channels=arguments["aspp_channels"],
        channels=arguments["decoder_channels"],
        only_projection=arguments["aspp_use_only_1x1_proj_conv"],
        image_pooling_window=pooling_window(
            arguments["image_pooling_crop_size"], arguments["output_stride"]
        ),
        dropout_rate=arguments["dropout_rate"],
    )
