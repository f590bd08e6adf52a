"""The classes that published models were trained on, and the colours they are drawn in."""

import dataclasses

from deeplab_tf import class_lists
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import voc_colors

PASCAL_VOC = ModelInfo(
    classes=class_lists.VOC_NAMES,
    colors=voc_colors(21),
    image_size=(513, 513),
    resize="fit",
    source="Official TensorFlow DeepLab: COCO, then PASCAL VOC 2012 train_aug.",
    license="Apache-2.0",
)
CITYSCAPES = ModelInfo(
    classes=class_lists.CITYSCAPES_NAMES,
    colors=class_lists.CITYSCAPES_COLORS,
    image_size=(1025, 2049),
    resize="fit",
    source="Official TensorFlow DeepLab: Cityscapes train_fine.",
    license="Apache-2.0",
)
ADE20K = ModelInfo(
    classes=class_lists.ADE20K_NAMES,
    colors=voc_colors(151),
    ignore_label=0,
    image_size=(513, 513),
    resize="fit",
    source="Official TensorFlow DeepLab: ImageNet, then ADE20K train.",
    license="Apache-2.0",
)
COCO_STUFF = ModelInfo(
    classes=class_lists.COCO_STUFF_NAMES,
    colors=voc_colors(182),
    image_size=(513, 513),
    resize="fit",
    source="deeplab-pytorch: COCO, then COCO-Stuff 164k train.",
    license="MIT",
)
PORTRAIT = ModelInfo(
    classes=("background", "person"),
    colors=((0, 0, 0), (192, 128, 128)),
    image_size=(513, 513),
    resize="fit",
    source="A. Sathyan, Portrait-Segmentation: the official VOC model tuned on portraits.",
    license="MIT",
)
_DEEPLAB2 = "deeplab2: ImageNet, then"
CITYSCAPES_PANOPTIC = dataclasses.replace(
    CITYSCAPES,
    thing_classes=class_lists.CITYSCAPES_THINGS,
    label_divisor=1000,
    source=f"{_DEEPLAB2} Cityscapes train_fine.",
)
COCO_PANOPTIC = ModelInfo(
    classes=("void", *class_lists.COCO_NAMES),
    colors=((0, 0, 0), *class_lists.COCO_COLORS),
    ignore_label=0,
    image_size=(641, 641),
    resize="fit",
    source=f"{_DEEPLAB2} COCO train 2017.",
    license="Apache-2.0",
    thing_classes=class_lists.COCO_THINGS,
    label_divisor=256,
    merge={"nms_kernel": 41, "stuff_area_limit": 4096},
)
ADE20K_PANOPTIC = dataclasses.replace(
    ADE20K,
    image_size=(641, 641),
    source=f"{_DEEPLAB2} ADE20K train.",
    thing_classes=class_lists.ADE20K_THINGS,
    label_divisor=1000,
)
