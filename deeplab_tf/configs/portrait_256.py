"""The second run of the shipped portrait model: `portrait` gone on with at its final size."""

import dataclasses

from deeplab_tf.configs import portrait

CONFIG = dataclasses.replace(
    portrait.CONFIG,
    optimizer=dataclasses.replace(
        portrait.CONFIG.optimizer, learning_rate=2e-3, end_rate=2e-5, warmup_steps=100
    ),
    image_size=(256, 256),
    init="runs/portrait_128/last",
    steps=2400,
    evaluate_every=400,
    checkpoint_every=200,
)
