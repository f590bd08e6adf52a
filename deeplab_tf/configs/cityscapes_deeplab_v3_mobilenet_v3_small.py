"""Cityscapes, 19 classes: MobileNetV3-small with the light head, trained from random weights.

    deeplab-tf train --config cityscapes_deeplab_v3_mobilenet_v3_small data=CITYSCAPES

Data: train_fine, 2975 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: 68.99 mIoU on val at output stride 32 and 4.63 billion multiply-adds (official zoo).
Recipe: the network and crop are the published ones (https://arxiv.org/abs/1905.02244, Sec. 6.4).
Learning rate, batch and steps are not published; those of the MobileNetV2 recipe are used.
"""

import dataclasses

from deeplab_tf.configs import cityscapes_deeplab_v3_mobilenet_v2
from deeplab_tf.training.config import ModelConfig

CONFIG = dataclasses.replace(
    cityscapes_deeplab_v3_mobilenet_v2.CONFIG,
    model=ModelConfig(
        class_name="DeepLabV3",
        arguments=dict(
            backbone="mobilenet_v3_small_seg",
            output_stride=32,
            atrous_rates=(),
            image_pooling_crop_size=(769, 769),
            image_pooling_stride=(4, 5),
            aspp_with_concat_projection=False,
            aspp_with_squeeze_and_excitation=True,
            image_se_uses_qsigmoid=True,
            aspp_convs_filters=128,
            decoder_output_stride=(8,),
            decoder_use_sum_merge=True,
            # The decoder's channels are the classes themselves.
            decoder_filters=19,
            decoder_output_is_logits=True,
        ),
    ),
)
