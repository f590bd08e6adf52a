"""Folders of pictures whose instances are told apart, in the layouts that such data come in.

Own pictures, one PNG of classes and one of instance numbers each:
    my_set/images/ID.jpg
    my_set/semantic/ID.png     classes (or masks/, labels/, annotations/)
    my_set/instances/ID.png    number of the instance, 8 or 16 bits, 0 for none
    my_set/classes.csv         index,name,thing[,red,green,blue]; thing is 1 or 0
    my_set/segments.json       instead of it: `categories` (id, name), whose ids `semantic` holds

COCO:
    my_set/images/ID.jpg       or, as published, train2017/, val2017/
    my_set/panoptic/ID.png     segment ids as colours
    my_set/panoptic.json       or annotations/panoptic_train2017.json beside folders of its name

Cityscapes:
    my_set/leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png
    my_set/gtFine/SPLIT/CITY/ID_gtFine_instanceIds.png
    my_set/gtFine/cityscapes_panoptic_SPLIT.json     taken first, with the folder of its name

ADE20K:
    my_set/images/{training,validation}/ID.jpg
    my_set/annotations/{training,validation}/ID.png            classes, 0 for none of the 150
    my_set/annotations_instance/{training,validation}/ID.png   red: category, green: instance
    my_set/ade20k_panoptic_{train,val}.json          taken first, with the folders of their names

Splits are those of train.txt, val.txt and test.txt, else the published ones, else every tenth
picture is for validation.
"""

import os
from pathlib import Path

from deeplab_tf.datasets.classes import read_classes
from deeplab_tf.datasets.findings import KINDS, TOLERATED
from deeplab_tf.datasets.folder import class_file, split_listing
from deeplab_tf.datasets.panoptic_ade20k import is_ade20k, list_ade20k
from deeplab_tf.datasets.panoptic_cityscapes import list_cityscapes
from deeplab_tf.datasets.panoptic_coded import json_files, list_coded
from deeplab_tf.datasets.panoptic_pairs import INSTANCES, list_pairs
from deeplab_tf.datasets.panoptic_source import PanopticFolder, PanopticSet
from deeplab_tf.errors import InputError


def is_panoptic(root: str | os.PathLike, annotations: str | os.PathLike | None = None) -> bool:
    """Whether a folder has one of this module's layouts.

    A folder of instance numbers whose class file marks no thing is one of plain masks.
    """
    root = Path(root)
    if annotations is not None or (root / "gtFine").is_dir():
        return True
    if (root / "panoptic").is_dir() or json_files(root) or is_ade20k(root):
        return True
    if not (root / INSTANCES).is_dir():
        return False
    path = class_file(root)
    return path is None or (root / "segments.json").exists() or _has_things(path)


def _has_things(path: Path) -> bool:
    try:
        return bool(read_classes(path).things)
    except InputError:
        return False


def list_panoptic(
    root: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
) -> PanopticFolder:
    """Lists a folder of one of this module's layouts; see `scan_panoptic` for the arguments.

    Raises:
        InputError: the folder lacks something without which nothing can be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder.")
    files = [(None, Path(annotations))] if annotations is not None else json_files(root)
    if files:
        return list_coded(root, files, classes, label_divisor)
    if (root / "gtFine").is_dir():
        return list_cityscapes(root, classes, label_divisor)
    if is_ade20k(root):
        return list_ade20k(root, classes, label_divisor)
    if (root / "panoptic").is_dir():
        raise InputError(
            f"{root}: panoptic/ has PNGs, but there is no panoptic.json beside it, which says what "
            "their segments are. Add it, or name the file with --annotations."
        )
    return list_pairs(root, classes, label_divisor)


def scan_panoptic(
    root: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    annotations: str | os.PathLike | None = None,
    label_divisor: int | None = None,
    seed: int = 0,
) -> PanopticSet:
    """Finds pictures, labels, classes and splits of a folder.

    Args:
        root: laid out as this module's first lines say.
        classes: a class file elsewhere, or the name of a known list; None takes the folder's own.
        annotations: a panoptic JSON file elsewhere.
        label_divisor: of the labels; None takes one that the instances of every picture fit in.
        seed: of the split, where there are no index files.

    Raises:
        InputError: something is missing or doesn't fit together.
    """
    folder = list_panoptic(
        root, classes=classes, annotations=annotations, label_divisor=label_divisor
    )
    listing = folder.listing
    if listing.doubles:
        raise InputError(
            f"{listing.doubles[0]}: another file has the same name but for its suffix; keep one."
        )
    if not listing.indices:
        for kind, message in folder.problems:
            if kind not in TOLERATED:
                what, fix = KINDS[kind]
                raise InputError(f"{message}: {what}. {fix}")
    name = listing.root.resolve().name
    return PanopticSet(name, folder, split_listing(listing, seed), f"the folder {name}")
