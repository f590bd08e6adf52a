"""Cityscapes' own PNGs of instance ids, where its panoptic files weren't made."""

from pathlib import Path

import numpy as np

from deeplab_tf.datasets.classes import CITYSCAPES_PANOPTIC, find_classes
from deeplab_tf.datasets.findings import listed
from deeplab_tf.datasets.folder import Listing, read_indices
from deeplab_tf.datasets.panoptic_source import (
    PanopticFolder,
    Read,
    layout_pictures,
    read_numbers,
    with_divisor,
)
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import from_instance_ids, values_of

_LABELS = "_gtFine_instanceIds"


def list_cityscapes(root: Path, classes, label_divisor: int | None) -> PanopticFolder:
    if classes is not None and find_classes(classes) != CITYSCAPES_PANOPTIC:
        raise InputError(f"{root}: the classes of Cityscapes are known; leave --classes out.")
    images, doubles = layout_pictures(root)
    masks: dict[str, Path] = {}
    indices: dict[str, list[str]] = {}
    for path in sorted((root / "gtFine").glob(f"*/*/*{_LABELS}.png")):
        stem, split = path.stem.removesuffix(_LABELS), path.parent.parent.name
        masks[stem] = path
        # The published test labels are empty.
        if split in ("train", "val") and stem in images:
            indices.setdefault(split, []).append(stem)
    if not masks:
        raise InputError(
            f"{root / 'gtFine'}: no SPLIT/CITY/ID{_LABELS}.png in there, and no "
            "cityscapes_panoptic_SPLIT.json with its folder. Unpack gtFine_trainvaltest.zip there."
        )
    problems = [
        ("no mask", str(path))
        for stem, path in images.items()
        if stem not in masks and "/test/" not in path.as_posix()
    ]
    problems += [("no picture", str(path)) for stem, path in masks.items() if stem not in images]
    given = read_indices(root) or {split: tuple(ids) for split, ids in indices.items()}
    found = with_divisor(CITYSCAPES_PANOPTIC, 999, label_divisor)
    divisor = found.label_divisor
    assert divisor is not None
    if divisor < 1000:
        raise InputError(
            f"Cityscapes numbers up to 999 instances: label_divisor {divisor} is less."
        )

    def _over(value: int) -> bool:
        return value >= 1000 and value % 1000 + 1 >= divisor

    def read(stem: str) -> Read:
        ids = read_numbers(masks[stem])
        strange = [
            value for value in values_of(ids)[0].tolist() if value // 1000 > 33 or _over(value)
        ]
        if strange:
            return Read(
                np.full(ids.shape, found.void, np.int32),
                [("unlisted segments", f"{masks[stem]}: {listed(strange)}")],
            )
        return Read(from_instance_ids(ids, label_divisor=divisor), [])

    return PanopticFolder(
        Listing(root, images, masks, doubles, given), found, read, problems=problems
    )
