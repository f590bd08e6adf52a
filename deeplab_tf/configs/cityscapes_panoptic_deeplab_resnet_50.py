"""Cityscapes, 19 classes, 8 of them things: the recipe of Panoptic-DeepLab with ResNet-50.

    deeplab-tf data build CITYSCAPES --out R
    deeplab-tf train --config cityscapes_panoptic_deeplab_resnet_50 data=R init=IMAGENET_CHECKPOINT

Data: train_fine, 2975 pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 59.8, mIoU 76.0 on val (deeplab2, official scripts).
Hours: unknown, it was not run here; made for several GPUs. Adam is AdamW without decay.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="PanopticDeepLab",
        arguments=dict(backbone="resnet50", output_stride=32, image_pooling_crop_size=(1025, 2049)),
    ),
    augment=Augment(style="crop", scale=(0.5, 2.0), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=2.5e-4,
        policy="poly",
        power=0.9,
        weight_decay=0.0,
    ),
    loss=LossConfig(top_k_percent_pixels=0.2),
    image_size=(1025, 2049),
    batch_size=8,
    steps=60_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
