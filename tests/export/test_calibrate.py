"""Which pictures an export looks at."""

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.tfrecord import (
    encode_example,
    encode_label_map,
    shard_path,
    write_records,
)
from deeplab_tf.errors import InputError
from deeplab_tf.export.calibrate import gather, sample_views, views


def flat(value: int) -> np.ndarray:
    return np.full((6, 8, 3), value, np.uint8)


def values(pictures) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in pictures]


def as_they_are(picture: np.ndarray) -> np.ndarray:
    return picture


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures of one value each, in a training folder with its masks."""
    for value in range(20):
        dl.pictures.save_image(tmp_path / "images" / f"{value}.png", flat(value))
        dl.pictures.save_image(tmp_path / "masks" / f"{value}.png", flat(200)[..., 0])
    return tmp_path


def write_split(folder, split: str, first: int, count: int):
    def record(value):
        from tensorflow import io

        return encode_example(
            image=io.encode_png(flat(value)).numpy(),
            image_format="png",
            label=encode_label_map(np.zeros((6, 8), np.uint8)),
            height=6,
            width=8,
            name=f"{value}.png",
        )

    half = count // 2
    for index, part in enumerate([range(first, first + half), range(first + half, first + count)]):
        write_records(shard_path(folder, split, index, 2), [record(value) for value in part])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records whose pictures have the values 0..11 (train) and 100..105 (val)."""
    folder = tmp_path_factory.mktemp("records")
    write_split(folder, "train", 0, 12)
    write_split(folder, "val", 100, 6)
    DatasetDescriptor(
        "flat", ("a", "b"), ((0, 0, 0), (1, 1, 1)), 255, {"train": 12, "val": 6}
    ).save(folder)
    return folder


def test_a_folder_is_split_and_its_masks_are_left_alone(folder):
    found = gather(folder, as_they_are, calibration=10, check=4)
    assert len(found.calibration) == 10 and len(found.check) == 4
    together = values(found.calibration) + values(found.check)
    assert len(set(together)) == 14 and max(together) < 20


def test_the_choice_follows_the_seed(folder):
    first, again, other = (
        values(gather(folder, as_they_are, calibration=8, check=2, seed=seed).calibration)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_few_pictures_are_shared_out(folder):
    found = gather(folder, as_they_are, calibration=100, check=16)
    assert (len(found.calibration), len(found.check)) == (16, 4)
    single = gather([flat(7)], as_they_are, calibration=100, check=16)
    assert values(single.calibration) == values(single.check) == [7]


def test_without_calibration_all_serve_the_comparison(folder):
    found = gather(folder, as_they_are, calibration=0, check=16)
    assert found.calibration == [] and len(set(values(found.check))) == 16


def test_paths_and_arrays_may_be_mixed_and_are_prepared(folder):
    found = gather(
        [folder / "images" / "3.png", flat(9)], lambda p: p[:2, :2], calibration=1, check=1
    )
    assert sorted(values(found.calibration) + values(found.check)) == [3, 9]
    assert found.calibration[0].shape == (2, 2, 3)


def test_records_calibrate_with_train_and_check_with_val(records):
    found = gather(records, as_they_are, calibration=7, check=4)
    assert len(set(values(found.calibration))) == 7 and max(values(found.calibration)) < 12
    assert len(set(values(found.check))) == 4 and min(values(found.check)) >= 100
    assert found.source.endswith("(train, val)")


def test_records_of_one_split_are_held_apart(records, tmp_path):
    for path in records.glob("train-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    DatasetDescriptor("flat", ("a",), ((0, 0, 0),), None, {"train": 12}).save(tmp_path)
    found = gather(tmp_path, as_they_are, calibration=100, check=16)
    assert (len(found.calibration), len(found.check)) == (10, 2)
    assert len(set(values(found.calibration) + values(found.check))) == 12


def test_a_damaged_shard_is_named(records, tmp_path):
    for path in records.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = shard_path(tmp_path, "train", 1, 2)
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(InputError, match="train-00001-of-00002.tfrecord: damaged"):
        gather(tmp_path, as_they_are, calibration=10, check=2)


@pytest.mark.parametrize(
    ("splits", "reason"), [({}, "counts no pictures"), ({"train": 3}, "no records of the split")]
)
def test_records_without_pictures_are_named(tmp_path, splits, reason):
    DatasetDescriptor("empty", ("a",), ((0, 0, 0),), None, splits).save(tmp_path)
    with pytest.raises(InputError, match=reason):
        gather(tmp_path, as_they_are, calibration=1, check=1)


def test_a_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no pictures"):
        gather(tmp_path, as_they_are, calibration=1, check=1)


def test_a_truncated_picture_is_named(folder):
    path = folder / "images" / "5.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"5\.png"):
        gather(folder, as_they_are, calibration=20, check=16)


def test_views_of_a_photo_differ_and_repeat():
    photo = sample_views(1)[0]
    first, again = views(photo, 4, seed=3), views(photo, 4, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({view.tobytes() for view in first}) == 4
    for view in first:
        assert view.dtype == np.uint8 and view.shape[2] == 3
        for side, whole in zip(view.shape[:2], photo.shape[:2], strict=True):
            assert 0.4 * whole < side <= whole
