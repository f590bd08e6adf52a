"""PASCAL VOC 2012, 21 classes: DeepLabv2 with ResNet-101, three scales trained together.

    deeplab-tf train --config voc_deeplab_v2_resnet_101 data=VOC init=COCO_WEIGHTS

Data: train_aug, 10 582 pictures. Hours: unknown, it was not run here; made for a GPU.
Expected: 76.35 mIoU on val, and 77.69 with the CRF (`predict --crf deeplab_v2_resnet_101`).
Recipe: https://arxiv.org/abs/1606.00915, Sec. 4.1, and the released solver; a loss on each scale
and on their maximum. COCO_WEIGHTS is deeplab-pytorch's deeplabv1_resnet101-coco.pth, a network
without ASPP: its backbone is taken. Batch norms keep their statistics.
"""

from deeplab_tf.datasets.pipeline import Augment
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        class_name="DeepLabV2",
        arguments=dict(
            backbone="resnet_101_caffe",
            image_pyramid=(1.0, 0.75, 0.5),
            scale_logits=True,
            # So that every eighth pixel of the output is the map itself, see `label_stride`.
            align_corners=True,
        ),
    ),
    augment=Augment(style="crop", scale=(0.5, 1.5), scale_step=0.25),
    optimizer=OptimizerConfig(
        name="momentum",
        learning_rate=2.5e-4,
        policy="poly",
        power=0.9,
        momentum=0.9,
        weight_decay=5e-4,
        last_layer_multiplier=10.0,
    ),
    loss=LossConfig(label_stride=8),
    image_size=(321, 321),
    eval_size=(513, 513),
    freeze_batch_norm=True,
    batch_size=10,
    steps=20_000,
    evaluate_every=2000,
    checkpoint_every=1000,
)
