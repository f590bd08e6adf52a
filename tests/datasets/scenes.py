"""One drawn scene, written in each of the layouts that panoptic data come in."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_tf.datasets.classes import ADE20K_PANOPTIC, CITYSCAPES_PANOPTIC
from deeplab_tf.panoptic_format import CITYSCAPES_IDS, encode_ids

SIZE = (12, 16)
# As segments are counted in every layout: class, instance; in words below.
ROAD, SKY, PERSON, CAR = 0, 1, 2, 3
NAMES = ("road", "sky", "person", "car")


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes and instances of a picture: two persons, a car, a crowd (instance 0), 255 unknown."""
    label, instance = np.full(SIZE, ROAD, np.int32), np.zeros(SIZE, np.int32)
    label[:5] = SKY
    x = seed % 3
    for top, left, kind, number in ((3, x, PERSON, 1), (3, x + 4, PERSON, 2), (6, 9, CAR, 1)):
        label[top : top + 5, left : left + 3] = kind
        instance[top : top + 5, left : left + 3] = number
    label[10:, :4] = PERSON  # a crowd
    label[0, -3:] = 255
    return label, instance


def panoptic(seed: int = 0, divisor: int = 256) -> np.ndarray:
    """What every layout must be read as."""
    label, instance = scene(seed)
    return label * divisor + instance


def save(path: Path, array: np.ndarray, dtype=np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array).astype(dtype)).save(path)


def write_image(path: Path, seed: int) -> None:
    save(path, np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)))


def write_classes(root: Path) -> None:
    things = ("road,0", "sky,0", "person,1", "car,1")
    rows = [f"{index},{row}" for index, row in enumerate(things)]
    (root / "classes.csv").write_text("\n".join(("index,name,thing", *rows)))


def write_pairs(root: Path, count: int = 3, *, dtype=np.uint8) -> Path:
    """images/, masks/, instances/ and classes.csv."""
    for seed in range(count):
        label, instance = scene(seed)
        write_image(root / "images" / f"p{seed}.png", seed)
        save(root / "masks" / f"p{seed}.png", label)
        save(root / "instances" / f"p{seed}.png", instance, dtype)
    write_classes(root)
    return root


def write_numbered(root: Path, count: int = 3) -> Path:
    """images/, semantic/ with category ids 0 and 5 and 9, instances/ and segments.json."""
    ids, images = {ROAD: 0, SKY: 0, PERSON: 5, CAR: 9, 255: 255}, []
    for seed in range(count):
        label, instance = scene(seed)
        label[10:, :4] = 255  # crowds are ignored in this layout
        numbers = instance + (instance > 0) * (label == CAR) * 2  # counted over all classes
        write_image(root / "images" / f"p{seed}.png", seed)
        save(root / "semantic" / f"p{seed}.png", np.vectorize(ids.get)(label))
        save(root / "instances" / f"p{seed}.png", numbers)
        segments = [{"id": 1, "category_id": 5}, {"id": 2, "category_id": 5}]
        images.append({"name": f"p{seed}", "segments": [*segments, {"id": 3, "category_id": 9}]})
    categories = [{"id": 9, "name": "car"}, {"id": 5, "name": "person"}]
    value = {"categories": categories, "images": images}
    (root / "segments.json").write_text(json.dumps(value))
    return root


def write_filled(root: Path, count: int = 3) -> Path:
    """images/, labels/ and instances/ where stuff holds its class and numbers start at 0."""
    for seed in range(count):
        label, instance = scene(seed)
        # Classes of the list that --classes names: 0 person, 2 car, 148 road, 156 sky-other.
        known = {ROAD: 148, SKY: 156, PERSON: 0, CAR: 2, 255: 255}
        numbers = np.where(label == CAR, 2, instance - 1)
        named = np.vectorize(known.get)(label)
        save(root / "labels" / f"p{seed}.png", named)
        save(root / "instances" / f"p{seed}.png", np.where(instance > 0, numbers, named))
        write_image(root / "images" / f"p{seed}.png", seed)
    return root


# Ids of the segments of a scene and of its categories in the JSON files.
_CODES = {(ROAD, 0): 70000, (SKY, 0): 9, (PERSON, 1): 11, (PERSON, 2): 12, (CAR, 1): 13}
_CATEGORIES = {ROAD: 149, SKY: 187, PERSON: 1, CAR: 44}


def coded(seed: int = 0) -> tuple[np.ndarray, list[dict]]:
    """A scene as segment ids, and its entry in a JSON file."""
    label, instance = scene(seed)
    ids, segments = np.zeros(SIZE, np.int32), []
    for (kind, number), code in {**_CODES, (PERSON, 0): 14}.items():
        mask = (label == kind) & (instance == number)
        ids[mask] = code
        segments.append(
            {
                "id": code,
                "category_id": _CATEGORIES[kind],
                "area": int(mask.sum()),
                "iscrowd": int(code == 14),
            }
        )
    return ids, segments


def write_json(path: Path, seeds, *, folder: Path | None = None, **changes) -> None:
    """A panoptic JSON file and its PNGs."""
    folder = folder or path.with_suffix("")
    annotations, images = [], []
    for seed in seeds:
        ids, segments = coded(seed)
        save(folder / f"p{seed}.png", encode_ids(ids))
        annotations.append(
            {"image_id": seed, "file_name": f"p{seed}.png", "segments_info": segments}
        )
        images.append(
            {"id": seed, "file_name": f"p{seed}.jpg", "height": SIZE[0], "width": SIZE[1]}
        )
    categories = [
        {"id": id, "name": NAMES[kind], "isthing": int(kind in (PERSON, CAR))}
        for kind, id in _CATEGORIES.items()
    ]
    value = {"images": images, "annotations": annotations, "categories": categories, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_coco(root: Path, count: int = 3) -> Path:
    """images/, panoptic/ and panoptic.json."""
    for seed in range(count):
        write_image(root / "images" / f"p{seed}.jpg", seed)
    write_json(root / "panoptic.json", range(count))
    return root


def write_published(root: Path) -> Path:
    """train2017/, val2017/ and annotations/, as COCO is unpacked."""
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        for seed in seeds:
            write_image(root / f"{split}2017" / f"p{seed}.jpg", seed)
        write_json(root / "annotations" / f"panoptic_{split}2017.json", seeds)
    return root


# Training classes of Cityscapes for those of a scene.
CITYSCAPES = {ROAD: 0, SKY: 10, PERSON: 11, CAR: 13, 255: 255}


def write_cityscapes(root: Path) -> Path:
    """leftImg8bit/ and gtFine/ with instanceIds."""
    for split, seed in (("train", 0), ("train", 1), ("val", 2), ("test", 3)):
        base = f"town_{seed:06d}_000019"
        write_image(root / "leftImg8bit" / split / "town" / f"{base}_leftImg8bit.png", seed)
        label, instance = scene(seed)
        ids = np.full(SIZE, 4)  # a class that isn't used in training
        for kind, train in CITYSCAPES.items():
            if kind != 255:
                ids[label == kind] = CITYSCAPES_IDS[train]
        ids = np.where(instance > 0, ids * 1000 + instance - 1, ids)
        place = root / "gtFine" / split / "town"
        save(place / f"{base}_gtFine_instanceIds.png", ids, np.uint16)
    return root


def write_cityscapes_json(root: Path) -> Path:
    """The same with panoptic PNGs and JSON files beside."""
    write_cityscapes(root)
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        images, annotations = [], []
        for seed in seeds:
            base = f"town_{seed:06d}_000019"
            label, instance = scene(seed)
            segments, ids = [], np.zeros(SIZE, np.int32)
            for kind, train in CITYSCAPES.items():
                for number in np.unique(instance[label == kind]).tolist() if kind != 255 else ():
                    # Counted from 0 in the ids; the crowd has the label id alone.
                    code = CITYSCAPES_IDS[train]
                    code = code * 1000 + number - 1 if number else code
                    ids[(label == kind) & (instance == number)] = code
                    crowd = int(not number and kind in (PERSON, CAR))
                    segments.append({"id": code, "category_id": train, "iscrowd": crowd})
            name = f"{base}_gtFine_panoptic.png"
            folder = root / "gtFine" / f"cityscapes_panoptic_{split}_trainId"
            save(folder / name, encode_ids(ids))
            images.append({"id": base, "file_name": f"{base}_leftImg8bit.png"})
            annotations.append({"image_id": base, "file_name": name, "segments_info": segments})
        categories = [
            {"id": i, "name": name, "isthing": int(i in CITYSCAPES_PANOPTIC.things)}
            for i, name in enumerate(CITYSCAPES_PANOPTIC.names)
        ]
        path = root / "gtFine" / f"cityscapes_panoptic_{split}_trainId.json"
        value = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(value))
    return root


# ADE20K's classes for those of a scene, and the categories and numbers of its instances; numbers
# run over all classes of a picture, in an order of their own.
ADE20K = {ROAD: 7, SKY: 3, PERSON: 13, CAR: 21, 255: 0}
_ADE20K_INSTANCES = {(PERSON, 1): (4, 7), (PERSON, 2): (4, 3), (CAR, 1): (9, 5)}
_ADE20K_PICTURES = (("training", "train", 0), ("training", "train", 1), ("validation", "val", 2))


def ade20k(seed: int = 0) -> np.ndarray:
    """What both layouts of ADE20K must be read as."""
    label, instance = scene(seed)
    wanted = np.zeros(SIZE, np.int32)
    wanted[label == ROAD], wanted[label == SKY] = 7000, 3000
    # Person 2 has the lower number. The crowd is a thing without an instance: void.
    wanted[(label == PERSON) & (instance == 1)] = 13002
    wanted[(label == PERSON) & (instance == 2)] = 13001
    wanted[(label == CAR) & (instance == 1)] = 21001
    return wanted


def write_ade20k_maps(root: Path, folder: str, name: str, label, pairs) -> None:
    """The PNG of classes and that of categories and numbers [H, W, 2] of a picture."""
    save(root / "annotations" / folder / f"{name}.png", label)
    pixels = np.concatenate([pairs, np.zeros_like(pairs[..., :1])], -1)
    save(root / "annotations_instance" / folder / f"{name}.png", pixels)


def write_ade20k(root: Path) -> Path:
    """images/, annotations/ and annotations_instance/ as published, and a picture of the test."""
    for folder, split, seed in _ADE20K_PICTURES:
        name = f"ADE_{split}_{seed:08d}"
        label, instance = scene(seed)
        pairs = np.zeros((*SIZE, 2), np.int32)
        for (kind, number), pair in _ADE20K_INSTANCES.items():
            pairs[(label == kind) & (instance == number)] = pair
        write_image(root / "images" / folder / f"{name}.jpg", seed)
        write_ade20k_maps(root, folder, name, np.vectorize(ADE20K.get)(label), pairs)
    write_image(root / "images" / "testing" / "ADE_test_00000001.jpg", 9)
    return root


def ade20k_categories() -> list[dict]:
    """As converted files list them: from 0, under names of their own."""
    return [
        {"id": label - 1, "name": f"{name}, or so", "isthing": int(label in ADE20K_PANOPTIC.things)}
        for label, name in enumerate(ADE20K_PANOPTIC.names)
        if label
    ]


def write_ade20k_entries(root: Path, split: str, drawn: dict) -> None:
    """ade20k_panoptic_SPLIT.json and its PNGs: name -> segment ids [H, W], category by id."""
    images, annotations = [], []
    for name, (ids, segments) in drawn.items():
        save(root / f"ade20k_panoptic_{split}" / f"{name}.png", encode_ids(ids))
        listed = [{"id": id, "category_id": c, "iscrowd": 0} for id, c in segments.items()]
        height, width = ids.shape
        images.append({"id": name, "file_name": f"{name}.jpg", "height": height, "width": width})
        annotations.append({"image_id": name, "file_name": f"{name}.png", "segments_info": listed})
    value = {"images": images, "annotations": annotations, "categories": ade20k_categories()}
    (root / f"ade20k_panoptic_{split}.json").write_text(json.dumps(value))


def write_ade20k_json(root: Path) -> Path:
    """images/ and ade20k_panoptic_SPLIT.json with PNGs, as a conversion leaves them."""
    drawn: dict[str, dict] = {"train": {}, "val": {}}
    for folder, split, seed in _ADE20K_PICTURES:
        name = f"ADE_{split}_{seed:08d}"
        label, instance = scene(seed)
        ids, segments = np.zeros(SIZE, np.int32), {}
        parts = (((SKY, 0), 2, 60000), ((ROAD, 0), 6, 70), ((PERSON, 2), 12, 11))
        for (kind, number), category, id in (*parts, ((CAR, 1), 20, 9), ((PERSON, 1), 12, 5)):
            ids[(label == kind) & (instance == number)] = id
            segments[id] = category
        write_image(root / "images" / folder / f"{name}.jpg", seed)
        drawn[split][name] = (ids, segments)
    for split, found in drawn.items():
        write_ade20k_entries(root, split, found)
    return root
