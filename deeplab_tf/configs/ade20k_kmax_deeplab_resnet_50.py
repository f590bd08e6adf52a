"""ADE20K panoptic, 150 classes and void: the recipe of kMaX-DeepLab with ResNet-50 at 641x641.

    deeplab-tf data build ADEChallengeData2016 --out R
    deeplab-tf train --config ade20k_kmax_deeplab_resnet_50 data=R init=IMAGENET_CHECKPOINT

Data: the training pictures of the challenge, 20210, with annotations_instance/. `init` is
deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 41.5 and mIoU 45.0 on the 2000 validation pictures (deeplab2, official scripts), 42.3
and 45.3 at 1281x1281, with AutoAugment and panoptic copy-paste, which aren't in here.
model.arguments.backbone=convnext_large with model.arguments.drop_path_keep_prob=0.3 has PQ 48.7.
Hours: unknown, it was not run here; made for many accelerators.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import MaskConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(class_name="KMaXDeepLab", arguments=dict(backbone="resnet50")),
    augment=Augment(style="crop", scale=(0.5, 2.0), scale_step=0.1),
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
        instance_sample_k=1024,
        instance_sample_temperature=1.5,
        semantic_sample_k=1024,
        semantic_sample_temperature=2.0,
        max_thing_id=256,
        rule="maskwise",
        thing_area_limit=0,
        stuff_area_limit=0,
        class_confidence_threshold_thing=0.4,
        class_confidence_threshold_stuff=0.4,
    ),
    image_size=(641, 641),
    batch_size=64,
    steps=100_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
