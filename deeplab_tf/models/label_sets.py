"""The classes that published models were trained on, and the colours they are drawn in."""

import dataclasses

from deeplab_tf import class_lists
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import voc_colors


def _names(text: str) -> tuple[str, ...]:
    """Names with commas between, over several lines."""
    return tuple(" ".join(name.split()) for name in text.split(","))


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
# The 150 classes of the scene parsing benchmark behind "other", whose pixels don't count.
_ADE20K = """
other, wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper,
fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door,
stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel,
bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television, airplane,
dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van,
ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket,
waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot,
animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light,
tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass,
clock, flag
"""
ADE20K = ModelInfo(
    classes=_names(_ADE20K),
    colors=voc_colors(151),
    ignore_label=0,
    image_size=(513, 513),
    resize="fit",
    source="Official TensorFlow DeepLab: ImageNet, then ADE20K train.",
    license="Apache-2.0",
)
# Of its panoptic labels; the other hundred are things.
_ADE20K_STUFF = """
wall, building, sky, floor, tree, ceiling, road, grass, sidewalk, earth, mountain, plant, water,
house, sea, rug, field, rock, base, sand, skyscraper, grandstand, path, runway, stairway, river,
bridge, blind, hill, bar, hovel, tower, dirt track, land, escalator, buffet, poster, stage,
conveyer belt, canopy, swimming pool, waterfall, tent, cradle, tank, lake, blanket, pier,
crt screen, shower
"""
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
    thing_classes=tuple(
        label
        for label, name in enumerate(ADE20K.classes)
        if label and name not in _names(_ADE20K_STUFF)
    ),
    label_divisor=1000,
)
