"""PASCAL VOC 2012, 21 classes: the official recipe of the MobileNetV2 model without decoder.

    deeplab-tf train --config voc_deeplab_v3_mobilenet_v2 data=VOC init=COCO_WEIGHTS

Data: train_aug, 10 582 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: 75.32 mIoU on val at output stride 16, from COCO weights (official model zoo). From
random weights it stays far below.
Recipe: README and flags of the official TensorFlow code; https://arxiv.org/abs/1706.05587, Sec. 4.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="DeepLabV3",
        arguments=dict(backbone="mobilenet_v2", output_stride=16, atrous_rates=()),
    ),
    augment=Augment(style="crop", scale=(0.5, 2.0), scale_step=0.25),
    optimizer=OptimizerConfig(
        name="momentum",
        learning_rate=7e-3,
        policy="poly",
        power=0.9,
        momentum=0.9,
        weight_decay=4e-5,
    ),
    image_size=(513, 513),
    batch_size=16,
    steps=30_000,
    evaluate_every=2000,
    checkpoint_every=1000,
)
