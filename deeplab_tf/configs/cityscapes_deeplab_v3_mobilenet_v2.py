"""Cityscapes, 19 classes: the official recipe of the MobileNetV2 model without decoder.

    deeplab-tf train --config cityscapes_deeplab_v3_mobilenet_v2 data=CITYSCAPES init=COCO_WEIGHTS

Data: train_fine, 2975 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: 70.71 mIoU on val at output stride 16, from COCO weights (official model zoo).
Recipe: that of the Xception model in the official TensorFlow code, whose learning rate for this
data set isn't published; the one of VOC is used.
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
    image_size=(769, 769),
    eval_size=(1025, 2049),
    batch_size=16,
    steps=90_000,
    evaluate_every=5000,
    checkpoint_every=1000,
)
