"""The second run of the shipped portrait model: `portrait` gone on with for its final size, 256.

A window cut from a picture and stretched shows things larger than the whole picture does, so it
learns on 192x192 windows what it shall see in whole pictures of 256x256. (The first run's weights,
learnt at 128x128, score best at 192x192: 0.811 against 0.800 at 128 and 0.801 at 256. After this
run it is 0.849 at 192, 0.852 at 224, 0.855 at 256 and 0.851 at 288.)
"""

import dataclasses

from deeplab_tf.configs import portrait

CONFIG = dataclasses.replace(
    portrait.CONFIG,
    optimizer=dataclasses.replace(
        portrait.CONFIG.optimizer, learning_rate=3e-3, end_rate=2e-5, warmup_steps=100
    ),
    image_size=(192, 192),
    eval_size=(256, 256),
    init="runs/portrait_128/last",
    steps=4000,
    evaluate_every=400,
    checkpoint_every=200,
)
