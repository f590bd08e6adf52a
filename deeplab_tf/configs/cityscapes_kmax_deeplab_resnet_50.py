"""Cityscapes panoptic, 19 classes: the recipe of kMaX-DeepLab with ResNet-50.

    deeplab-tf data build CITYSCAPES --out R
    deeplab-tf train --config cityscapes_kmax_deeplab_resnet_50 data=R init=IMAGENET_CHECKPOINT

Data: train_fine, 2975 pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 64.3 and mIoU 79.7 on val_fine (deeplab2, official scripts), with AutoAugment of a
fifth of its usual strength and panoptic copy-paste, which aren't in here. Other backbones:
model.arguments.backbone=axial_resnet50 (PQ 66.4), or convnext_tiny, _small, _base and _large (66.3,
67.3, 68.0, 68.4), with model.arguments.drop_path_keep_prob=0.8, or 0.8, 0.7, 0.6 and 0.4.
Hours: unknown, it was not run here; made for many accelerators.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import (
    LossConfig,
    MaskConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="KMaXDeepLab",
        arguments=dict(
            backbone="resnet50",
            num_mask_slots=256,
            high_resolution_output_stride=2,
            auxiliary_semantic_decoder=False,
            transformer_drop_path_keep_prob=0.8,
        ),
    ),
    augment=Augment(style="crop", scale=(0.5, 2.0), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=3e-5,
        last_layer_multiplier=10.0,  # of all that ImageNet didn't train
        policy="poly",
        power=0.9,
        warmup_steps=5000,
        weight_decay=0.05,
    ),
    loss=LossConfig(top_k_percent_pixels=0.2),
    masks=MaskConfig(
        instance_sample_k=4096,
        max_thing_id=256,
        small_instance_area=4096,
        rule="maskwise",
        thing_area_limit=256,
        stuff_area_limit=2048,
        class_confidence_threshold_thing=0.5,
        class_confidence_threshold_stuff=0.3,
        overlap_threshold=0.9,
        mask_weight=0.0,
    ),
    image_size=(1025, 2049),
    batch_size=32,
    steps=60_000,
    freeze_batch_norm=False,
    evaluate_every=2000,
    checkpoint_every=1000,
)
