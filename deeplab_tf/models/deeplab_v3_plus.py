"""DeepLabv3+: DeepLabv3 with a decoder.

Paper: "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
https://arxiv.org/abs/1802.02611.
"""

from collections.abc import Sequence

import keras

from deeplab_tf.models.deeplab_v3 import DeepLabV3


@keras.saving.register_keras_serializable(package="deeplab_tf")
class DeepLabV3Plus(DeepLabV3):
    """DeepLabv3 and a decoder at stride 4.

    Args:
        num_classes: classes to predict, background included.
        backbone: a key of `BACKBONES`.
        decoder_output_stride: strides of the decoder's stages; the paper has one, at 4.
        **options: see `DeepLabV3`.

    Input: RGB 0..255, [B, H, W, 3], any size. Normalisation is inside.
    Output: `semantic_logits`, float32 [B, H, W, num_classes].
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "mobilenet_v2",
        *,
        decoder_output_stride: Sequence[int] = (4,),
        name: str = "deeplab_v3_plus",
        **options,
    ):
        super().__init__(
            num_classes, backbone, decoder_output_stride=decoder_output_stride, name=name, **options
        )
