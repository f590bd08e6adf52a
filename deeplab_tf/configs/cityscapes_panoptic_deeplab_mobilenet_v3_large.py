"""Cityscapes, 19 classes, 8 of them things: Panoptic-DeepLab with MobileNetV3.

    deeplab-tf data build CITYSCAPES --out R
    deeplab-tf train --config cityscapes_panoptic_deeplab_mobilenet_v3_large data=R \\
        init=IMAGENET_CHECKPOINT

Data: train_fine, 2975 pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 55.3, mIoU 74.5 on val at output stride 16 (deeplab2, official scripts). The learning
rate, batch and steps are those that deeplab2 has for stride 32.
Hours: unknown, it was not run here; made for several GPUs. Adam is AdamW without decay.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="PanopticDeepLab",
        arguments=dict(
            backbone="mobilenet_v3_large_deeplab2",
            output_stride=16,
            batch_norm_epsilon=1e-5,
            image_pooling_crop_size=(1025, 2049),
        ),
    ),
    augment=Augment(style="crop", scale=(0.5, 2.0), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=4e-4,
        policy="poly",
        power=0.9,
        weight_decay=0.0,
    ),
    loss=LossConfig(top_k_percent_pixels=0.2),
    image_size=(1025, 2049),
    batch_size=64,
    steps=30_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
