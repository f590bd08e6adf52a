"""The classes that published models were trained on, and the colours they are drawn in."""

from deeplab_tf.models.info import ModelInfo
from deeplab_tf.pictures import voc_colors


def _names(text: str) -> tuple[str, ...]:
    """Names with commas between, over several lines."""
    return tuple(" ".join(name.split()) for name in text.split(","))


PASCAL_VOC = ModelInfo(
    classes=(
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
        *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
        *("sheep", "sofa", "train", "tvmonitor"),
    ),
    colors=voc_colors(21),
    image_size=(513, 513),
    resize="fit",
    source="Official TensorFlow DeepLab: COCO, then PASCAL VOC 2012 train_aug.",
    license="Apache-2.0",
)
CITYSCAPES = ModelInfo(
    classes=(
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light"),
        *("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
        *("bus", "train", "motorcycle", "bicycle"),
    ),
    colors=(
        *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153)),
        *((153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152)),
        *((70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70)),
        *((0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    ),
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
# Things and stuff by their number in COCO, less one; eleven of the things were never labelled.
_COCO_STUFF = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis,
snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket,
bottle, plate, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, mirror,
dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell phone,
microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush, cabinet,
cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard,
curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile,
floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill,
house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement,
pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof,
rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete,
wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind,
window-other, wood
"""
COCO_STUFF = ModelInfo(
    classes=_names(_COCO_STUFF),
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
