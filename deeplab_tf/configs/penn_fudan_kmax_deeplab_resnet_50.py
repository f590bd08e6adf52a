"""Pedestrians, one by one, by kMaX-DeepLab at a small size: every slot a mask, nothing to merge.

From random weights, for a few pictures to be learnt by heart on two cores:

    deeplab-tf data build ten_people --out R
    deeplab-tf train --config penn_fudan_kmax_deeplab_resnet_50 data=R --run runs/slots
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import MaskConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="KMaXDeepLab",
        arguments=dict(backbone="resnet50", num_mask_slots=32, mask_scale=3.0),
    ),
    # Pictures of at most 352 pixels a side, whole.
    augment=Augment(scale=(0.545, 0.545), flip=False),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=1e-3,
        policy="cosine",
        end_rate=1e-5,
        warmup_steps=50,
        weight_decay=0.05,
        clip_norm=1.0,
        ema=0.95,
    ),
    masks=MaskConfig(
        instance_sample_k=1024,
        rule="maskwise",
        thing_area_limit=16,
        stuff_area_limit=64,
    ),
    image_size=(193, 193),
    batch_size=5,
    steps=400,
    batch_norm_momentum=0.95,
    freeze_batch_norm=False,
    evaluate_every=50,
    checkpoint_every=50,
)
