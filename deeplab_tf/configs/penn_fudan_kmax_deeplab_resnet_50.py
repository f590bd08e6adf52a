"""A few pedestrians learnt by heart, one by one, by kMaX-DeepLab with ResNet-50.

Ten pictures of Penn-Fudan, whole and unchanged, from random weights; half an hour on two cores:

    deeplab-tf data build ten_people --out R
    deeplab-tf train --config penn_fudan_kmax_deeplab_resnet_50 data=R --run runs/slots

To learn more than these pictures it wants a trained backbone (`init`), changes to the pictures
(`augment`) and far more steps.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import MaskConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="KMaXDeepLab",
        arguments=dict(backbone="resnet50", num_mask_slots=32, mask_scale=3.0),
    ),
    augment=Augment(scale=(1.0, 1.0), flip=False),
    optimizer=OptimizerConfig(
        name="adamw",
        learning_rate=1e-3,
        policy="cosine",
        end_rate=1e-5,
        warmup_steps=30,
        weight_decay=0.05,
        clip_norm=1.0,
        ema=0.95,
    ),
    masks=MaskConfig(
        instance_sample_k=1024,
        rule="maskwise",
        thing_area_limit=64,
        stuff_area_limit=256,
    ),
    image_size=(353, 353),
    batch_size=3,
    steps=250,
    batch_norm_momentum=0.95,
    freeze_batch_norm=False,
    evaluate_every=50,
    checkpoint_every=50,
)
