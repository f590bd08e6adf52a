"""Pedestrians, one by one: a small panoptic model that begins with the shipped backbone.

Penn-Fudan (110 pictures) or any folder of pictures with instances; 30 minutes on two cores:

    deeplab-tf data build penn_fudan --out R
    deeplab-tf train --config penn_fudan data=R --run runs/people
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import ModelConfig, OptimizerConfig, PanopticConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="PanopticDeepLab",
        arguments=dict(
            backbone="mobilenet_v2",
            depth_multiplier=0.4,
            divisible_by=8,
            output_stride=16,
            atrous_rates=(3, 6, 9),
            low_level=(("res3", 32), ("res2", 16)),
            instance_low_level=(("res3", 32), ("res2", 16)),
            aspp_channels=64,
            decoder_channels=64,
            head_channels=64,
            instance_aspp_channels=64,
            instance_decoder_channels=64,
        ),
    ),
    init="portrait",
    augment=Augment(scale=(0.6, 1.4), scale_step=0.1, color=0.7),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=2e-3,
        policy="cosine",
        end_rate=2e-5,
        warmup_steps=100,
        weight_decay=1e-4,
        ema=0.995,
    ),
    panoptic=PanopticConfig(small_instance_area=1024, stuff_area_limit=64),
    image_size=(257, 257),
    eval_size=(353, 353),
    batch_size=8,
    steps=2800,
    batch_norm_momentum=0.99,
    freeze_batch_norm=False,
    evaluate_every=200,
    checkpoint_every=200,
)
