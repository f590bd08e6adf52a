"""DeepLabv3: atrous encoder and ASPP.

Paper: "Rethinking Atrous Convolution for Semantic Image Segmentation",
https://arxiv.org/abs/1706.05587. The decoder's options, which make it DeepLabv3+, have their
place here too: it is one graph, and one class lists every option of the official code by the
name it has there.
"""

import dataclasses
import difflib
import os
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from deeplab_tf import keys
from deeplab_tf.backbones import BACKBONES, Backbone
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import HEAD_BN, PANOPTIC_BN, BatchNormSettings, conv_bn_act
from deeplab_tf.layers.resize import ResizeLike, scale_dimension
from deeplab_tf.models.aspp import aspp, summed_logits
from deeplab_tf.models.auxiliary import auxiliary_head
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.decoder import decoder_stage
from deeplab_tf.models.dense_prediction_cell import dense_prediction_cell, read_cell
from deeplab_tf.models.pixels import normalize_pixels

# ASPP rates by output stride: half the stride, twice the rates (v3, Sec. 3.3).
ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
_LOW_LEVEL = {4: "res2", 8: "res3", 16: "res4"}


def find_backbone(name: str) -> Backbone:
    """The registry's record.

    Raises:
        InputError: there is none of that name; names the nearest.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"unknown backbone {name!r}.{hint} Known: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def backbone_at(name: str, output_stride: int) -> Backbone:
    """The registry's record, once it is known to reach that output stride.

    Raises:
        InputError: there is no such backbone, or it can't; names the strides that it can.
    """
    record = find_backbone(name)
    if output_stride not in record.output_strides:
        strides = list(record.output_strides)
        raise InputError(f"output_stride of {name} is one of {strides}; got {output_stride}.")
    return record


def layer_of(tensor) -> str:
    """The name of the layer whose output a tensor is."""
    return tensor._keras_history.operation.name


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DeepLabV3(SegmentationModel):
    """DeepLabv3 as one flat functional graph.

    Args:
        num_classes: classes to predict, background included.
        backbone: a key of `BACKBONES`.
        output_stride: 8, 16 or 32: input size over encoder output size.
        atrous_rates: None takes the paper's rates for `output_stride`; () leaves the 3x3
            branches out, as the official MobileNet models do.
        multi_grid: rate multipliers inside the last residual stage (v3, Sec. 3.3).
        cascade_blocks: residual blocks of a ResNet; 5 to 7 repeat the fourth in cascade, at
            doubling rates (v3, Sec. 3.2). The paper has them instead of ASPP, which is
            `aspp_with_batch_norm=False, atrous_rates=()`.
        depth_multiplier, divisible_by: width of the mobile backbones.
        new_rate_at_once: the layer that loses its stride takes the new rate (TensorFlow Model
            Garden), not the old one.
        use_bounded_activation: ReLU6 and clipping for later quantisation (Xception).
        nas_architecture_options: of the searched backbones.
        add_image_level_feature: image pooling beside the ASPP branches.
        image_pooling_crop_size: (height, width) of the training crop, if the pooling window
            shall stay that of training; None pools the whole picture.
        image_pooling_stride: of that window.
        image_pooling_last: its place among the concatenated branches; PyTorch's models have it
            last, the official code first.
        aspp_with_batch_norm: False is DeepLabv2's head: one logits convolution per rate, summed.
        aspp_with_separable_conv: atrous separable convolutions in ASPP.
        aspp_with_concat_projection: 1x1 projection of the concatenated branches.
        concat_projection_kernel_size: of that projection; MMSegmentation's models have 3.
        aspp_with_squeeze_and_excitation: the image-level feature gates instead.
        image_se_uses_qsigmoid: with the quantisable gate.
        aspp_convs_filters: channels of each branch and of the projection.
        dense_prediction_cell_config: a searched cell instead of ASPP: a list of its branches, or
            the path of a JSON file with them; see `dense_prediction_cell`.
        head_num_convs: 3x3 convolutions between ASPP and the logits, where there is no decoder.
        head_activation, head_batch_norm_epsilon: of ASPP, the convolutions after it, the decoder.
        logits_kernel_size, logits_use_bias: of the last convolution.
        decoder_output_stride: strides of the decoder's stages, () for none.
        decoder_use_separable_conv, decoder_use_sum_merge, decoder_filters,
            decoder_output_is_logits: see `decoder_stage`.
        decoder_projection_filters: channels of the projected low-level features (official: 48).
        decoder_num_convs, decoder_kernel_size: convolutions behind a stage's concatenation.
        decoder_low_level_first: the low-level features' place in its concatenation.
        auxiliary_endpoint: "res3" or "res4" gives the model a second head there, for a loss in
            training. It then returns {"semantic_logits", "auxiliary_logits"}.
        dropout_rate: after the projection, in training.
        align_corners: how the model resizes: corner on corner as the official code does, or
            (False) by pixel centres as PyTorch's models do.
        upsample_logits: False leaves the logits at the decoder's or encoder's stride.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size. Normalisation is inside.
    Output: `semantic_logits`, float32 [B, H, W, num_classes]; see `auxiliary_endpoint`.

    Raises:
        InputError: an unknown backbone, an output stride that it can't do, or an option that it
            doesn't have.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "mobilenet_v2",
        *,
        output_stride: int = 16,
        atrous_rates: Sequence[int] | None = None,
        multi_grid: Sequence[int] | None = None,
        cascade_blocks: int = 4,
        depth_multiplier: float = 1.0,
        divisible_by: int | None = None,
        new_rate_at_once: bool = False,
        use_bounded_activation: bool = False,
        pool_ceil_mode: bool = False,
        nas_architecture_options: dict | None = None,
        add_image_level_feature: bool = True,
        image_pooling_crop_size: Sequence[int] | None = None,
        image_pooling_stride: Sequence[int] = (1, 1),
        image_pooling_last: bool = False,
        aspp_with_batch_norm: bool = True,
        aspp_with_separable_conv: bool = True,
        aspp_with_concat_projection: bool = True,
        concat_projection_kernel_size: int = 1,
        aspp_with_squeeze_and_excitation: bool = False,
        image_se_uses_qsigmoid: bool = False,
        aspp_convs_filters: int = 256,
        dense_prediction_cell_config: Sequence[dict] | str | os.PathLike | None = None,
        head_num_convs: int = 0,
        head_activation: str = "relu",
        head_batch_norm_epsilon: float = HEAD_BN.epsilon,
        logits_kernel_size: int = 1,
        logits_use_bias: bool = True,
        decoder_output_stride: Sequence[int] = (),
        decoder_use_separable_conv: bool = True,
        decoder_use_sum_merge: bool = False,
        decoder_filters: int = 256,
        decoder_output_is_logits: bool = False,
        decoder_projection_filters: int = 48,
        decoder_num_convs: int = 2,
        decoder_kernel_size: int = 3,
        decoder_low_level_first: bool = False,
        auxiliary_endpoint: str | None = None,
        dropout_rate: float = 0.1,
        align_corners: bool = True,
        upsample_logits: bool = True,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "deeplab_v3",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        record = backbone_at(backbone, output_stride)
        if atrous_rates is None:
            atrous_rates = arguments["atrous_rates"] = ATROUS_RATES[output_stride]
        if dense_prediction_cell_config is not None:
            cell = read_cell(dense_prediction_cell_config)
            arguments["dense_prediction_cell_config"] = cell
            if not aspp_with_batch_norm:
                raise InputError("dense_prediction_cell_config needs aspp_with_batch_norm.")
            given = (concat_projection_kernel_size, head_activation, head_batch_norm_epsilon)
            if given != (1, "relu", HEAD_BN.epsilon):
                raise InputError(
                    "concat_projection_kernel_size, head_activation and head_batch_norm_epsilon "
                    "are options of ASPP; dense_prediction_cell_config takes its place."
                )

        # --- Encoder ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, record.pixels)
        endpoints = {"preprocessed": x}
        features = record.build(
            x, output_stride=output_stride, **backbone_options(backbone, record, arguments)
        )
        x = features["res5"]
        endpoints |= {
            f"stride{n}": features[key] for n, key in _LOW_LEVEL.items() if key in features
        }
        endpoints["backbone"] = x

        # --- Head ---
        if aspp_with_batch_norm:
            x = endpoints["aspp"] = _head(x, arguments)

        if head_num_convs and decoder_output_stride:
            raise InputError("head_num_convs needs a model without a decoder.")
        if decoder_use_sum_merge and (decoder_num_convs, decoder_kernel_size) != (2, 3):
            raise InputError(
                "decoder_num_convs and decoder_kernel_size are of the convolutions behind a "
                "concatenation; decoder_use_sum_merge has none."
            )
        for i in range(head_num_convs):
            x = endpoints["head"] = conv_bn_act(
                x,
                aspp_convs_filters,
                3,
                activation=_activation(arguments),
                batch_norm=_batch_norm(arguments),
                name=f"head.conv{i}",
            )

        # --- Decoder: the coarsest stage first ---
        for i, stride in enumerate(sorted(decoder_output_stride, reverse=True)):
            x = decoder_stage(
                x,
                _low_level(features, stride, backbone),
                filters=decoder_filters,
                projection_filters=decoder_projection_filters,
                separable=decoder_use_separable_conv,
                sum_merge=decoder_use_sum_merge,
                output_is_logits=decoder_output_is_logits,
                num_convs=decoder_num_convs,
                kernel_size=decoder_kernel_size,
                low_level_first=decoder_low_level_first,
                activation=_activation(arguments),
                batch_norm=_batch_norm(arguments),
                align_corners=align_corners,
                suffix=f"_{i}" if i else "",
            )
            if not decoder_output_is_logits:
                endpoints["decoder"] = x

        # --- Logits ---
        if not (decoder_output_stride and decoder_output_is_logits):
            rates = (1,) if aspp_with_batch_norm or not atrous_rates else tuple(atrous_rates)
            shape: dict[str, Any] = dict(kernel_size=logits_kernel_size, use_bias=logits_use_bias)
            x = summed_logits(x, num_classes, atrous_rates=rates, **shape)
        elif decoder_filters != num_classes:
            raise InputError(
                f"decoder_output_is_logits needs decoder_filters = num_classes ({num_classes}); "
                f"got {decoder_filters}."
            )
        endpoints["logits"] = x
        outputs = semantic_output(x, image, arguments)
        if auxiliary_endpoint is not None:
            x = auxiliary_head(_auxiliary_features(features, auxiliary_endpoint), num_classes)
            endpoints["auxiliary"] = x
            outputs = {
                keys.SEMANTIC_LOGITS: outputs,
                keys.AUXILIARY_LOGITS: semantic_output(x, image, arguments, keys.AUXILIARY_LOGITS),
            }

        super().__init__(image, outputs, name=name, **kwargs)
        layer_names = {key: layer_of(tensor) for key, tensor in endpoints.items()}
        if "image_pooling.resize" in [layer.name for layer in self.layers]:
            resize = self.get_layer("image_pooling.resize")
            layer_names["image_pooling"] = layer_of(resize.input[0])
        self._finish(arguments, layer_names)

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        if self._arguments["decoder_output_stride"] and self._arguments["decoder_output_is_logits"]:
            return r"decoder\.(feature_projection0|decoder_conv0)/|auxiliary\.logits"
        return r"logits\.semantic|auxiliary\.logits"


def own_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments by name, but for `name`: what its config is made of.

    Args:
        given: its `locals()`, before it has any others.

    Raises:
        InputError: an option that there isn't. Keras takes any further argument and forgets it: a
            misspelt option would do nothing.
    """
    left_out = ("self", "kwargs", "name", "__class__")
    arguments = {key: value for key, value in given.items() if key not in left_out}
    for option in given["kwargs"]:
        if option not in ("trainable", "dtype"):
            near = difflib.get_close_matches(option, arguments, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"no option {option!r}.{hint} Options: {', '.join(arguments)}.")
    return arguments


def backbone_options(name: str, record: Backbone, arguments: dict[str, Any]) -> dict[str, Any]:
    """The backbone's own options among a model's arguments; the others must be at their default."""
    defaults = {
        "multi_grid": None,
        "cascade_blocks": 4,
        "depth_multiplier": 1.0,
        "divisible_by": None,
        "new_rate_at_once": False,
        "use_bounded_activation": False,
        "pool_ceil_mode": False,
        "nas_architecture_options": None,
        "stem_width_multiplier": 1.0,
        "backbone_width_multiplier": None,
        "backbone_layer_multiplier": 1.0,
        "use_sac_beyond_stride": 0,
        "use_squeeze_and_excite": False,
        "drop_path_keep_prob": 1.0,
        "drop_path_schedule": "linear",
        "batch_norm_epsilon": PANOPTIC_BN.epsilon,
    }
    for option, default in defaults.items():
        value = arguments.get(option, default)  # a classifier hasn't got all of them
        if value != default and option not in record.options and option != "divisible_by":
            raise InputError(
                f"{option}={value!r}: {name} doesn't have this option; "
                f"it has: {', '.join(record.options) or 'none'}."
            )
    return {o: arguments.get(o, defaults[o]) for o in defaults if o in record.options}


def _activation(arguments: dict[str, Any]) -> str:
    return "relu6" if arguments["use_bounded_activation"] else arguments["head_activation"]


def _batch_norm(arguments: dict[str, Any]) -> BatchNormSettings:
    return dataclasses.replace(HEAD_BN, epsilon=arguments["head_batch_norm_epsilon"])


def _head(x, arguments: dict[str, Any]):
    """ASPP, or the cell in its place, from a model's arguments: -> [B, H, W, filters]."""
    crop, stride = arguments["image_pooling_crop_size"], arguments["output_stride"]
    shared: dict[str, Any] = dict(
        filters=arguments["aspp_convs_filters"],
        dropout_rate=arguments["dropout_rate"],
        align_corners=arguments["align_corners"],
    )
    cell = arguments["dense_prediction_cell_config"]
    if cell is not None:
        return dense_prediction_cell(
            x, cell, output_stride=stride, image_pooling_crop_size=crop, **shared
        )
    pooling_strides = arguments["image_pooling_stride"]
    return aspp(
        x,
        atrous_rates=arguments["atrous_rates"],
        image_pooling=arguments["add_image_level_feature"],
        image_pooling_window=pooling_window(crop, stride),
        image_pooling_strides=(pooling_strides[0], pooling_strides[1]),
        image_pooling_last=arguments["image_pooling_last"],
        separable=arguments["aspp_with_separable_conv"],
        concat_projection=arguments["aspp_with_concat_projection"],
        projection_kernel_size=arguments["concat_projection_kernel_size"],
        squeeze_and_excitation=arguments["aspp_with_squeeze_and_excitation"],
        gate="q_sigmoid" if arguments["image_se_uses_qsigmoid"] else "sigmoid",
        activation=_activation(arguments),
        pooling_activation=arguments["head_activation"],
        batch_norm=_batch_norm(arguments),
        **shared,
    )


def pooling_window(crop_size: Sequence[int] | None, stride: int) -> tuple[int, int] | None:
    """The window of image pooling: a training crop at the encoder's stride; None for all."""
    if crop_size is None:
        return None
    height, width = crop_size
    return scale_dimension(height, 1 / stride), scale_dimension(width, 1 / stride)


def _low_level(features: dict, stride: int, backbone: str):
    """The map that a decoder at `stride` takes."""
    if _LOW_LEVEL.get(stride) not in features:
        raise InputError(
            f"decoder_output_stride of {backbone} is among "
            f"{[s for s, key in _LOW_LEVEL.items() if key in features]}; got {stride}."
        )
    return features[_LOW_LEVEL[stride]]


def _auxiliary_features(features: dict, name: str):
    """The map that an auxiliary head takes."""
    known = [key for key in features if key in _LOW_LEVEL.values()]
    if name not in known:
        raise InputError(f"auxiliary_endpoint is one of {known}; got {name!r}.")
    return features[name]


def semantic_output(x, image, arguments: dict[str, Any], name: str = keys.SEMANTIC_LOGITS):
    """float32 logits under the name of an output, at the picture's size if so wanted."""
    if arguments["upsample_logits"]:
        resize = ResizeLike(align_corners=arguments["align_corners"], name=name, dtype="float32")
        return resize([x, image])
    return layers.Activation("linear", name=name, dtype="float32")(x)
