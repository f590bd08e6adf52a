"""Cityscapes, 19 classes: MobileNet-EdgeTPU, made for int8 accelerators.

    deeplab-tf train --config cityscapes_deeplab_v3_mobilenet_edgetpu data=CITYSCAPES init=IMAGENET

Data: train_fine, 2975 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: 74.1 mIoU on val at output stride 16 and 7.1 billion multiply-adds, 70.6 and 5.6 at 32
(official model zoo); 73.2 and 4.3 for the slim one, which is
    model.arguments.depth_multiplier=0.75 model.arguments.aspp_convs_filters=128
Recipe: not published; the one of MobileNetV2 is used.
"""

import dataclasses

from deeplab_tf.configs import cityscapes_deeplab_v3_mobilenet_v2
from deeplab_tf.training.config import ModelConfig

CONFIG = dataclasses.replace(
    cityscapes_deeplab_v3_mobilenet_v2.CONFIG,
    model=ModelConfig(
        class_name="DeepLabV3",
        arguments=dict(backbone="mobilenet_edgetpu", output_stride=16, atrous_rates=()),
    ),
)
