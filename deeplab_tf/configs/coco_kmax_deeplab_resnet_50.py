"""COCO panoptic, 133 classes and void: the recipe of kMaX-DeepLab with ResNet-50.

    deeplab-tf data build COCO --annotations panoptic_train2017.json --out R
    deeplab-tf train --config coco_kmax_deeplab_resnet_50 data=R init=IMAGENET_CHECKPOINT

Data: train2017, 118k pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 53.0 on val2017 (deeplab2, official script), with AutoAugment and panoptic copy-paste,
which aren't in here. Other backbones: model.arguments.backbone=axial_resnet50 (PQ 56.2), or
convnext_tiny, _small, _base and _large (55.3, 56.3, 57.2, 57.9), with
model.arguments.drop_path_keep_prob=0.8, or 0.7, 0.6, 0.5 and 0.4.
Hours: unknown, it was not run here; made for many accelerators.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import MaskConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="KMaXDeepLab",
        arguments=dict(backbone="resnet50", transformer_drop_path_keep_prob=0.8),
    ),
    augment=Augment(style="crop", scale=(0.3, 1.7), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=5e-5,
        last_layer_multiplier=10.0,  # of all that ImageNet didn't train
        policy="poly",
        power=0.9,
        warmup_steps=5000,
        weight_decay=0.05,
    ),
    masks=MaskConfig(
        instance_sample_k=4096,
        instance_sample_temperature=1.5,
        semantic_sample_k=4096,
        semantic_sample_temperature=2.0,
        rule="maskwise",
        thing_area_limit=400,
        stuff_area_limit=6400,
    ),
    image_size=(1281, 1281),
    batch_size=64,
    steps=150_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
