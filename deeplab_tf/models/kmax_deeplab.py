"""kMaX-DeepLab: slots for masks, which are found as the centres of clusters of pixels.

Paper: "k-means Mask Transformer", https://arxiv.org/abs/2207.04044. Its blocks are in
`deeplab_tf.layers.kmeans_attention`, its heads are MaX-DeepLab's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, conv1d_bn_act
from deeplab_tf.layers.drop_path import check_keep_prob
from deeplab_tf.layers.dual_path_transformer import LearnedMemory, Transformer
from deeplab_tf.layers.kmeans_attention import kmeans_transformer_block
from deeplab_tf.models.deeplab_v3 import backbone_at, backbone_options, layer_of, own_arguments
from deeplab_tf.models.kmax_pixel_decoder import ACTIVATION, pixel_decoder
from deeplab_tf.models.mask_classes import class_channels
from deeplab_tf.models.mask_heads import auxiliary_semantic_head, mask_predictor
from deeplab_tf.models.mask_transformer import MaskTransformer
from deeplab_tf.models.pixels import normalize_pixels

_ENCODER_STRIDE = 32
_HIGH_RESOLUTION_STRIDES = (2, 4)
_SCOPE = "transformer_decoder"
# Maps of the pixel decoder, by their stride, that two blocks each assign to slots.
_CLUSTERED = {32: "decoder_stage1", 16: "decoder_stage2", 8: "decoder_stage3"}
_BLOCKS = 2


@keras.saving.register_keras_serializable(package="deeplab_tf")
class KMaXDeepLab(MaskTransformer):
    """kMaX-DeepLab as one flat functional graph, with the official settings for COCO.

    Those for Cityscapes are 256 slots at stride 2, without the auxiliary semantic decoder.

    Args:
        num_classes: of the data set, things and stuff together, and void if it is one of them.
        backbone: a key of `BACKBONES` with endpoints "stage1" to "stage5": "resnet50",
            "axial_resnet50", "convnext_tiny", …
        ignore_label: the class of pixels that aren't labelled; slots choose from the others, and
            from void.
        num_mask_slots: the most segments of a picture.
        high_resolution_output_stride: of the masks, 4 or 2. A ConvNeXt has nothing finer than 4:
            on it, 2 is one more stage of the pixel decoder at 4.
        auxiliary_semantic_decoder: ASPP and a decoder before the semantic head, which is there for
            a loss in training; else that is on the encoder's output, and its logits are at 32.
        atrous_rates: of that decoder's ASPP.
        low_level: (endpoint, channels of its projection) for each stage of that decoder, the
            coarsest first.
        aspp_channels, decoder_channels: of that decoder.
        head_channels: of the semantic head.
        pixel_head_channels: of the convolutions before pixels meet slots, and
        pixel_channels: of the space where they do.
        mask_scale: standard deviation of the mask logits before anything is learnt. At the official
            0.1 all slots share every pixel, and Adam moves that by its learning rate a step: a run
            of some hundred steps wants about 3.
        pixel_decoder_width_multiplier: of the channels of the pixel decoder.
        transformer_filters: a slot has twice as many channels.
        feed_forward_channels: inside the slots' feed-forward networks.
        transformer_drop_path_keep_prob: of each branch of a slots' block, in training; officially
            0.8 on COCO and Cityscapes, 1.0 on ADE20K.
        stem_width_multiplier, backbone_width_multiplier, backbone_layer_multiplier,
            drop_path_keep_prob, drop_path_schedule: of the backbone, see `axial_resnet` and
            `convnext`.
        batch_norm_epsilon: of all batch norms.
        dropout_rate: after ASPP, in training.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size. Normalisation is inside.
    Output: see `MaskTransformer`. There are six earlier answers, two each at the strides 32, 16 and
    8: the assignments of the k-means steps are the largest of their mask logits.

    Raises:
        InputError: an unknown backbone or one without these endpoints, a stride that there isn't,
            or an option that the backbone doesn't have.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        *,
        ignore_label: int = 255,
        num_mask_slots: int = 128,
        high_resolution_output_stride: int = 4,
        auxiliary_semantic_decoder: bool = True,
        atrous_rates: Sequence[int] = (6, 12, 18),
        low_level: Sequence[Sequence] = (("res3", 64), ("res2", 32)),
        aspp_channels: int = 256,
        decoder_channels: int = 256,
        head_channels: int = 256,
        pixel_head_channels: int = 256,
        pixel_channels: int = 128,
        mask_scale: float = 0.1,
        pixel_decoder_width_multiplier: float = 1.0,
        transformer_filters: int = 128,
        feed_forward_channels: int = 2048,
        transformer_drop_path_keep_prob: float = 1.0,
        stem_width_multiplier: float = 1.0,
        backbone_width_multiplier: float | None = None,
        backbone_layer_multiplier: float = 1.0,
        drop_path_keep_prob: float = 1.0,
        drop_path_schedule: str = "linear",
        batch_norm_epsilon: float = PANOPTIC_BN.epsilon,
        dropout_rate: float = 0.1,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "kmax_deeplab",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        record = backbone_at(backbone, _ENCODER_STRIDE)
        if high_resolution_output_stride not in _HIGH_RESOLUTION_STRIDES:
            raise InputError(
                f"high_resolution_output_stride is one of {[*_HIGH_RESOLUTION_STRIDES]}; got "
                f"{high_resolution_output_stride}."
            )
        if num_mask_slots < 1:
            raise InputError(f"num_mask_slots is at least 1; got {num_mask_slots}.")
        arguments["low_level"] = [list(stage) for stage in low_level]  # as JSON brings them back
        batch_norm = dataclasses.replace(PANOPTIC_BN, epsilon=batch_norm_epsilon)

        # --- Encoder and pixel decoder ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, record.pixels)
        endpoints = {"preprocessed": x}
        options = backbone_options(backbone, record, arguments)
        features = record.build(x, output_stride=_ENCODER_STRIDE, **options)
        _check_endpoints(features, arguments)
        endpoints |= features
        endpoints["backbone"] = features["stage5"]
        maps = pixel_decoder(
            features,
            output_stride=high_resolution_output_stride,
            width_multiplier=pixel_decoder_width_multiplier,
            batch_norm=batch_norm,
        )
        endpoints |= maps

        # --- Slots ---
        heads: dict[str, Any] = dict(
            channels=class_channels(num_classes, ignore_label),
            pixel_channels=pixel_channels,
            head_channels=pixel_head_channels,
            mask_scale=mask_scale,
            activation=ACTIVATION,
            batch_norm=batch_norm,
        )
        memory, earlier = _transformer_decoder(maps, arguments, heads, batch_norm)
        class_feature, mask_feature = (
            conv1d_bn_act(
                memory,
                memory.shape[-1],
                activation=ACTIVATION,
                batch_norm=batch_norm,
                name=f"{_SCOPE}.{part}_embedding_projection",
            )
            for part in ("class", "mask")
        )

        # --- Heads ---
        outputs = {keys.SEMANTIC_LOGITS: _semantic_logits(features, arguments, batch_norm)}
        outputs |= mask_predictor(maps["decoder_output"], class_feature, mask_feature, **heads)
        for number, answer in enumerate(earlier):
            for key, tensor in answer.items():
                outputs[keys.AUXILIARY.format(number, key)] = tensor
        super().__init__(image, outputs, name=name, **kwargs)
        endpoints["logits"] = outputs[keys.SEMANTIC_LOGITS]
        self._finish(arguments, {key: layer_of(tensor) for key, tensor in endpoints.items()})

    @classmethod
    def encoder_of(cls, arguments: dict[str, Any]) -> tuple[str, int]:
        """The registry's name of its encoder, and the output stride that all have here."""
        return arguments["backbone"], _ENCODER_STRIDE

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        return r"semantic_last_layer/|(.+\.)?transformer_class_head/"


def _check_endpoints(features: dict, arguments: dict[str, Any]) -> None:
    backbone = arguments["backbone"]
    if "stage1" not in features:
        raise InputError(
            f"backbone={backbone!r} doesn't have the endpoints stage1 to stage5; resnet50, "
            "axial_resnet50 and convnext_tiny are some that have."
        )
    for endpoint, _ in arguments["low_level"]:
        if endpoint not in features:
            known = [name for name in features if name.startswith("res")]
            raise InputError(f"low_level of {backbone} is among {known}; got {endpoint}.")


def _transformer_decoder(
    maps: dict[str, Any],
    arguments: dict[str, Any],
    heads: dict[str, Any],
    batch_norm: BatchNormSettings,
) -> tuple[Any, list[dict[str, Any]]]:
    """The slots after all blocks [B, L, D], and what each block predicted."""
    keep_prob = arguments["transformer_drop_path_keep_prob"]
    check_keep_prob(keep_prob)
    block = Transformer(
        filters=arguments["transformer_filters"],
        feed_forward_channels=arguments["feed_forward_channels"],
        activation=ACTIVATION,
        keep_prob=keep_prob,
        batch_norm=batch_norm,
    )
    first = maps[_CLUSTERED[32]]
    centers = LearnedMemory(
        arguments["num_mask_slots"], block.bottleneck, name=f"{_SCOPE}.cluster_centers"
    )
    memory = centers(first)
    earlier: list[dict[str, Any]] = []
    for key in _CLUSTERED.values():
        for _ in range(_BLOCKS):
            name = f"{_SCOPE}.kmax_decoder.{len(earlier)}.block1_transformer"
            scope = f"{name}.auxiliary_clustering_predictor."

            def predict(pixels, slots, scope=scope):
                return mask_predictor(pixels, slots, slots, **heads, scope=scope)

            memory, answer = kmeans_transformer_block(maps[key], memory, block, predict, name=name)
            earlier.append(answer)
    return memory, earlier


def _semantic_logits(
    features: dict[str, Any], arguments: dict[str, Any], batch_norm: BatchNormSettings
):
    """Of the encoder's output: float32 [B, h, w, num_classes]."""
    low_level = [(features[key], filters) for key, filters in arguments["low_level"]]
    return auxiliary_semantic_head(
        features["stage5"],
        low_level if arguments["auxiliary_semantic_decoder"] else None,
        arguments["num_classes"],
        head_channels=arguments["head_channels"],
        atrous_rates=arguments["atrous_rates"],
        aspp_channels=arguments["aspp_channels"],
        channels=arguments["decoder_channels"],
        dropout_rate=arguments["dropout_rate"],
        activation=ACTIVATION,
        batch_norm=batch_norm,
    )
