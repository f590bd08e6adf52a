"""Pets, their outline and background: a first training for those who have no pictures yet.

For records of Oxford-IIIT Pet, or of any folder of cats and dogs with such masks:

    deeplab-tf data build tfds:oxford_iiit_pet --out pets
    deeplab-tf train --config pet data=pets

Time and score: unknown, it was not run here.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="DeepLabV3Plus",
        arguments=dict(
            backbone="mobilenet_v2",
            depth_multiplier=0.5,
            divisible_by=8,
            output_stride=16,
            atrous_rates=(),
            aspp_convs_filters=96,
            decoder_output_stride=(8, 4),
            decoder_filters=64,
            decoder_projection_filters=32,
        ),
    ),
    augment=Augment(style="resized_crop", color=0.7),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=4e-3,
        policy="cosine",
        end_rate=4e-5,
        warmup_steps=200,
        weight_decay=1e-4,
        ema=0.998,
    ),
    image_size=(128, 128),
    resize="stretch",
    batch_size=32,
    steps=5000,
    batch_norm_momentum=0.99,
    evaluate_every=500,
    checkpoint_every=250,
)
