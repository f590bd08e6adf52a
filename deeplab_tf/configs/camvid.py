"""CamVid street scenes, 11 classes: a thin MobileNetV2 DeepLabV3+ that trains on two cores.

    deeplab-tf data build ../shared/data/camvid --out camvid
    deeplab-tf train --config camvid data=camvid

Time and score: unknown, it was not run to its end here.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="DeepLabV3Plus",
        arguments=dict(
            backbone="mobilenet_v2",
            depth_multiplier=0.5,
            divisible_by=8,
            output_stride=16,
            atrous_rates=(),
            aspp_convs_filters=128,
            decoder_output_stride=(8, 4),
            decoder_filters=64,
            decoder_projection_filters=32,
        ),
    ),
    augment=Augment(style="resized_crop", area=(0.25, 1.0), color=0.7, grey=0.0),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=4e-3,
        policy="cosine",
        end_rate=4e-5,
        warmup_steps=200,
        weight_decay=1e-3,
        ema=0.998,
    ),
    # Poles, signs and cyclists have a percent of the pixels each.
    loss=LossConfig(class_weights="auto"),
    # The shape of the pictures, 360x480, at little more than half of their size.
    image_size=(192, 256),
    resize="stretch",
    batch_size=16,
    steps=6000,
    batch_norm_momentum=0.99,
    evaluate_every=500,
    checkpoint_every=250,
)
