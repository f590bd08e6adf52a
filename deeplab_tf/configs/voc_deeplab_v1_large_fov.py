"""PASCAL VOC 2012, 21 classes: DeepLabv1 LargeFOV, the recipe of its paper.

    deeplab-tf train --config voc_deeplab_v1_large_fov data=VOC init=keras_applications

Data: train_aug, 10 582 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: 62.25 mIoU on val, and 67.64 with the CRF (`predict --crf deeplab_v1_large_fov`).
Recipe: https://arxiv.org/abs/1412.7062, Sec. 4.1 and 5.1; crop and steps of the released solver.
`init` takes VGG-16's ImageNet weights, fully connected layers included, which Keras downloads.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(class_name="DeepLabV1", arguments=dict(atrous_rates=(12,))),
    augment=Augment(style="crop", scale=(1.0, 1.0)),
    optimizer=OptimizerConfig(
        name="momentum",
        learning_rate=1e-3,
        policy="step",  # a tenth every 2000 steps
        momentum=0.9,
        weight_decay=5e-4,
        last_layer_multiplier=10.0,
    ),
    loss=LossConfig(label_stride=8),
    image_size=(321, 321),
    eval_size=(513, 513),
    batch_size=20,
    steps=6000,
    evaluate_every=1000,
    checkpoint_every=500,
)
