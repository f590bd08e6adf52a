"""Pictures for an export: some to measure value ranges on, others to check the result with."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from deeplab_tf import keys, pictures
from deeplab_tf.datasets.descriptors import FILE_NAME as DATASET_FILE
from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.tfrecord import decode_example, find_shards, record_error
from deeplab_tf.errors import InputError

# Seeks out a picture folder, a records folder, or is the pictures themselves.
Source = str | os.PathLike | Sequence
Prepare = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExportPictures:
    """What an export looks at.

    Attributes:
        calibration: for value ranges; uint8 [H, W, 3] each.
        check: for the comparison with the model; others than those for calibration, unless there
            are too few.
        source: where they are from, in words.
    """

    calibration: list[np.ndarray]
    check: list[np.ndarray]
    source: str


def gather(
    source: Source | None,
    prepare: Prepare,
    *,
    calibration: int,
    check: int,
    prepare_check: Prepare | None = None,
    seed: int = 0,
) -> ExportPictures:
    """Takes pictures at random, the same ones for the same seed.

    Args:
        source: a folder of pictures, a folder of records, or a sequence of paths and arrays. None
            takes views of a sample photo: enough to compare two models, too little to calibrate.
        prepare: applied to each picture as it is read, so that memory stays small.
        calibration: how many to calibrate with; 0 if nothing is to be calibrated.
        check: how many to compare on.
        prepare_check: applied to these, where it is something else.
        seed: of the choice.

    Raises:
        InputError: no pictures there, or none given but needed.
    """
    both = prepare, prepare_check or prepare
    if source is None:
        if calibration:
            raise InputError(
                "integer quantisation measures value ranges on real pictures: "
                "give a folder of pictures or records with --calibration."
            )
        views = [both[1](view) for view in sample_views(check, seed=seed)]
        return ExportPictures([], views, "views of matplotlib's sample photo")
    if not isinstance(source, str | os.PathLike):
        found = list(source)
        if not found:
            raise InputError("no calibration pictures were given.")
        return _from_list(found, both, calibration, check, seed, f"{len(found)} given pictures")
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --calibration names one of pictures.")
    if (folder / DATASET_FILE).is_file():
        return _from_records(folder, both, calibration, check, seed)
    # A training folder has its masks beside its pictures.
    inside = folder / "images" if (folder / "images").is_dir() else folder
    found = sorted(path for path in inside.rglob("*") if pictures.is_image(path))
    if not found:
        raise InputError(
            f"{folder}: no pictures ({', '.join(pictures.IMAGE_SUFFIXES[:3])} …) and no "
            f"{DATASET_FILE} in there."
        )
    return _from_list(found, both, calibration, check, seed, str(folder))


def sample_views(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """The photo that matplotlib ships: whole first, then cut, mirrored and lit in other ways."""
    from matplotlib.cbook import get_sample_data

    photo = pictures.read_image(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return [photo, *views(photo, count - 1, seed=seed)][:count]


def views(photo: np.ndarray, count: int, *, seed: int = 0) -> list[np.ndarray]:
    """`count` random windows of uint8 [H, W, 3], some mirrored, lighter or darker."""
    random = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    result = []
    for _ in range(count):
        share = random.uniform(0.5, 1.0, 2)
        h, w = max(1, int(height * share[0])), max(1, int(width * share[1]))
        top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        window = photo[top : top + h, left : left + w].astype(np.float32)
        if random.random() < 0.5:
            window = window[:, ::-1]
        window = window * random.uniform(0.5, 1.4) + random.uniform(-30, 30)
        result.append(np.clip(window, 0, 255).astype(np.uint8))
    return result


def _shares(total: int, calibration: int, check: int) -> tuple[int, int]:
    """How many of `total` pictures to calibrate with, and how many to hold out for the check."""
    held = min(check, max(1, total // 5) if calibration else total)
    return min(calibration, max(1, total - held)), held


def _from_list(found, prepare, calibration, check, seed, source) -> ExportPictures:
    order = np.random.default_rng(seed).permutation(len(found))
    used, held = _shares(len(found), calibration, check)
    chosen = [prepare[0](pictures.read_image(found[i])) for i in order[:used] if calibration]
    # From the other end: the same picture is in both only if there is just one.
    checked = [prepare[1](pictures.read_image(found[i])) for i in order[::-1][:held]]
    return ExportPictures(chosen, checked, source)


def _from_records(folder, prepare, calibration, check, seed) -> ExportPictures:
    """Calibrates with the training split; checks with the validation split if there is one."""
    splits = {name: n for name, n in DatasetDescriptor.load(folder).splits.items() if n}
    if not splits:
        raise InputError(f"{folder}: its {DATASET_FILE} counts no pictures.")
    train = "train" if "train" in splits else next(iter(splits))
    other = "val" if "val" in splits else train
    random = np.random.default_rng(seed)
    order = random.permutation(splits[train])
    used, held = _shares(splits[train], calibration, check)
    chosen = order[:used] if calibration else order[:0]
    if other != train:
        checked = random.permutation(splits[other])[:check]
    else:
        checked = order[::-1][:held]
    return ExportPictures(
        _read_records(folder, train, chosen, prepare[0]),
        _read_records(folder, other, checked, prepare[1]),
        f"{folder} ({train}, {other})" if other != train else f"{folder} ({train})",
    )


def _read_records(folder, split: str, positions: np.ndarray, prepare: Prepare):
    """The pictures at these positions of a split; only these are decoded."""
    if not len(positions):
        return []
    wanted, last = {int(p) for p in positions}, int(max(positions))
    found, index = [], 0
    for shard in find_shards(folder, split):
        try:
            for record in tf.data.TFRecordDataset(str(shard)):
                if index in wanted:
                    found.append(prepare(decode_example(record)[keys.IMAGE].numpy()))
                index += 1
                if index > last:
                    return found
        except tf.errors.OpError as error:
            raise record_error(shard, index, error) from None
    return found
