"""A backbone with what ImageNet training puts on top of it."""

import re
from collections.abc import Sequence

import keras
from keras import layers

from deeplab_tf import keys
from deeplab_tf.backbones.classifier import Wide
from deeplab_tf.errors import InputError
from deeplab_tf.layers.channels import make_divisible
from deeplab_tf.layers.conv import conv_bn_act
from deeplab_tf.models.base import SegmentationModel, preset_class, read_preset_folder
from deeplab_tf.models.deeplab_v3 import (
    backbone_at,
    backbone_options,
    find_backbone,
    layer_of,
    own_arguments,
)
from deeplab_tf.models.pixels import normalize_pixels


@keras.saving.register_keras_serializable(package="deeplab_tf")
class ImageClassifier(SegmentationModel):
    """Names what is in a whole picture: for training a backbone on ImageNet.

    Official ImageNet checkpoints load into it with `dl.checkpoints.load`, and the same call, or
    `init` of a training, gives its backbone to a segmentation model.

    Args:
        num_classes: 1001 in official checkpoints, whose class 0 is "background".
        backbone: a key of `BACKBONES`.
        output_stride: 8, 16 or 32: input size over the size of the map that is averaged.
        multi_grid, cascade_blocks, depth_multiplier, divisible_by, use_bounded_activation,
            nas_architecture_options: of the backbone; see `DeepLabV3`. The searched backbones
            have their classification head unless it is set to False.
        dropout_rate: before the logits; None is the backbone's own.
        image_shape: (height, width, 3); None leaves a side open.

    Input: RGB 0..255, [B, H, W, 3], any size; official training had 224x224, the searched and
        the Xception networks 299x299. Normalisation is inside.
    Output: `class_logits`, float32 [B, num_classes].

    Raises:
        InputError: an unknown backbone, an output stride that it can't do, or an option that it
            doesn't have.
    """

    def __init__(
        self,
        num_classes: int = 1001,
        backbone: str = "resnet_v1_50",
        *,
        output_stride: int = 32,
        multi_grid: Sequence[int] | None = None,
        cascade_blocks: int = 4,
        depth_multiplier: float = 1.0,
        divisible_by: int | None = None,
        use_bounded_activation: bool = False,
        nas_architecture_options: dict | None = None,
        dropout_rate: float | None = None,
        image_shape: Sequence[int | None] = (None, None, 3),
        name: str = "image_classifier",
        **kwargs,
    ):
        arguments = own_arguments(locals())
        record = backbone_at(backbone, output_stride)
        head, scope = record.classifier, record.scope
        for option, default in head.options.items():
            if isinstance(arguments[option], dict | None):  # the backbone refuses anything else
                arguments[option] = {**default, **(arguments[option] or {})}
        if dropout_rate is None:
            dropout_rate = arguments["dropout_rate"] = round(1 - head.keep_prob, 6)

        # --- Backbone ---
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = normalize_pixels(image, record.pixels)
        endpoints = {"preprocessed": x}
        options = backbone_options(backbone, record, arguments)
        x = record.build(x, output_stride=output_stride, **options)[head.endpoint]
        endpoints["backbone"] = x

        # --- Classifier ---
        x = _wide(x, head.before_pooling, scope, depth_multiplier)
        x = layers.GlobalAveragePooling2D(keepdims=True, name=f"{scope}.global_pool")(x)
        endpoints["pooled"] = x
        if head.norm:
            x = layers.LayerNormalization(epsilon=1e-6, name=f"{scope}.{head.norm}")(x)
        x = _wide(x, head.after_pooling, scope, depth_multiplier)
        x = layers.Dropout(dropout_rate, name=f"{scope}.dropout")(x)
        x = layers.Conv2D(
            num_classes,
            1,
            use_bias=head.use_bias,
            kernel_initializer=head.initializer(),
            name=f"{scope}.{head.logits}",
        )(x)
        x = layers.Reshape((num_classes,), name=keys.CLASS_LOGITS, dtype="float32")(x)

        super().__init__(image, x, name=name, **kwargs)
        self._finish(arguments, {key: layer_of(tensor) for key, tensor in endpoints.items()})

    @property
    def last_layers(self) -> str:
        """Which variables depend on the number of classes: a regular expression of their paths."""
        record = find_backbone(self.get_config()["backbone"])
        return re.escape(f"{record.scope}.{record.classifier.logits}/")

    @classmethod
    def from_preset(cls, preset, **arguments):
        """Opens a folder of `save_to_preset`.

        Raises:
            InputError: it isn't one, or holds another kind of model.
        """
        if (held := preset_class(preset)) != cls.__name__:
            raise InputError(f"{preset} holds {held or 'nothing known'}, not {cls.__name__}.")
        return read_preset_folder(preset, {cls.__name__: cls}, **arguments)


def _wide(x, wide: Wide | None, scope: str, depth_multiplier: float):
    """[B, H, W, C] -> [B, H, W, wide.filters or more], or x as it is."""
    if wide is None:
        return x
    return conv_bn_act(
        x,
        make_divisible(wide.filters * max(1.0, depth_multiplier), 8),
        1,
        activation=wide.activation,
        batch_norm=wide.batch_norm,
        initializer=0.09,
        name=f"{scope}.{wide.name}",
    )
