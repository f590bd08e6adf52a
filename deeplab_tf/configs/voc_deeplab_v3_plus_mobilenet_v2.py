"""PASCAL VOC 2012, 21 classes: MobileNetV2 with ASPP and decoder, trained by the v3+ recipe.

    deeplab-tf train --config voc_deeplab_v3_plus_mobilenet_v2 data=VOC init=COCO_WEIGHTS

Data: train_aug, 10 582 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: about the 75.70 mIoU on val that MobileNetV2 has with ASPP and without decoder at output
stride 16, from COCO weights (https://arxiv.org/abs/1801.04381, Table 6). No score of this very
model is published.
Recipe: https://arxiv.org/abs/1802.02611, Sec. 4, and the official TensorFlow code.
"""

import dataclasses

from deeplab_tf.configs import voc_deeplab_v3_mobilenet_v2
from deeplab_tf.training.config import ModelConfig

CONFIG = dataclasses.replace(
    voc_deeplab_v3_mobilenet_v2.CONFIG,
    model=ModelConfig(
        class_name="DeepLabV3Plus",
        arguments=dict(backbone="mobilenet_v2", output_stride=16, decoder_output_stride=(4,)),
    ),
)
