"""Cityscapes, 19 classes, 8 of them things: Axial-DeepLab on the backbone of MaX-DeepLab-S.

    deeplab-tf data build CITYSCAPES --out R
    deeplab-tf train --config cityscapes_axial_deeplab_max_deeplab_s_backbone data=R \\
        init=IMAGENET_CHECKPOINT

Data: train_fine, 2975 pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 64.5, mIoU 82.2 on val (deeplab2, official scripts), with AutoAugment of a fifth of its
usual strength, which isn't in here; `augment.color` comes nearest.
Hours: unknown, it was not run here; made for several GPUs. Adam is AdamW without decay.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="AxialDeepLab",
        arguments=dict(
            backbone="max_deeplab_s_backbone", output_stride=16, drop_path_keep_prob=0.8
        ),
    ),
    augment=Augment(style="crop", scale=(0.5, 2.0), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=1e-4,
        policy="poly",
        power=0.9,
        weight_decay=0.0,
    ),
    loss=LossConfig(top_k_percent_pixels=0.2),
    image_size=(1025, 2049),
    batch_size=32,
    steps=60_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
