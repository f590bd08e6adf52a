"""COCO panoptic, 133 classes and void: the recipe of MaX-DeepLab-S at 641x641.

    deeplab-tf data build COCO --annotations panoptic_train2017.json --out R
    deeplab-tf train --config coco_max_deeplab_s data=R init=IMAGENET_CHECKPOINT

Data: train2017, 118k pictures. `init` is deeplab2's ImageNet checkpoint of the backbone.
Expected: PQ 45.9 on val2017 after 100k steps, 46.5 after 200k and 47.0 after 400k (deeplab2,
official script). At 1025x1025 PQ 47.9, 48.7 and 49.0, with masks.thing_area_limit=256 and
masks.stuff_area_limit=4096. Size L (model.arguments.size=l, at 1025x1025): PQ 50.9, 51.1 and 51.3,
with optimizer.learning_rate=3e-5, masks.small_instance_area=4096, and AutoAugment, which isn't in
here.
Hours: unknown, it was not run here; made for several accelerators. Adam is AdamW without decay.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import MaskConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="MaXDeepLab",
        arguments=dict(size="s", image_pooling_crop_size=(641, 641), drop_path_keep_prob=0.8),
    ),
    augment=Augment(style="crop", scale=(0.5, 1.5), scale_step=0.1),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=1e-4,
        last_layer_multiplier=10.0,  # of all that ImageNet didn't train
        policy="poly",
        power=0.9,
        warmup_steps=5000,
        weight_decay=0.0,
    ),
    masks=MaskConfig(rule="pixelwise", thing_area_limit=100, stuff_area_limit=1600),
    image_size=(641, 641),
    batch_size=64,
    steps=100_000,
    freeze_batch_norm=False,
    evaluate_every=5000,
    checkpoint_every=1000,
)
