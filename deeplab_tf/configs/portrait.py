"""The shipped portrait model: small, fast in int8, trained from random weights.

Two runs. The first learns on small pictures, where a step costs a quarter; the second goes on at
the size of the finished model:

    deeplab-tf data build portrait --out R
    deeplab-tf train --config portrait data=R --run runs/portrait_128
    deeplab-tf train --config portrait_256 data=R init=runs/portrait_128/last --run runs/portrait
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="DeepLabV3Plus",
        arguments=dict(
            backbone="mobilenet_v2",
            depth_multiplier=0.4,
            divisible_by=8,
            output_stride=16,
            atrous_rates=(),
            aspp_convs_filters=96,
            decoder_output_stride=(8, 4),
            decoder_filters=64,
            decoder_projection_filters=32,
        ),
    ),
    augment=Augment(style="resized_crop", area=(0.3, 1.0), color=1.0),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=5e-3,
        policy="cosine",
        end_rate=1e-4,
        warmup_steps=300,
        weight_decay=1e-4,
        ema=0.998,
    ),
    image_size=(128, 128),
    resize="stretch",
    batch_size=32,
    steps=9000,
    batch_norm_momentum=0.99,
    evaluate_every=500,
    checkpoint_every=250,
)
