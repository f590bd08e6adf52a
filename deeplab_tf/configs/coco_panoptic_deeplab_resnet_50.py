"""COCO panoptic, 133 classes and void: the recipe of Panoptic-DeepLab with ResNet-50.

    deeplab-tf data build COCO --annotations panoptic_train2017.json --out R
    deeplab-tf train --config coco_panoptic_deeplab_resnet_50 data=R init=IMAGENET_CHECKPOINT

Data: train2017, 118k pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 34.1 on val2017 at output stride 32 (deeplab2, official script), with AutoAugment of a
fifth of its usual strength, which isn't in here.
Hours: unknown, it was not run here; made for several GPUs. Adam is AdamW without decay.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import (
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PanopticConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="PanopticDeepLab",
        arguments=dict(backbone="resnet50", output_stride=32, image_pooling_crop_size=(641, 641)),
    ),
    augment=Augment(style="crop", scale=(0.5, 1.5), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=5e-4,
        policy="poly",
        power=0.9,
        warmup_steps=2000,
        weight_decay=0.0,
    ),
    loss=LossConfig(top_k_percent_pixels=0.2),
    panoptic=PanopticConfig(nms_kernel=41, stuff_area_limit=4096),
    image_size=(641, 641),
    batch_size=64,
    steps=200_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
