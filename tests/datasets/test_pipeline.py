"""Batches are a function of seed and step: resumable, complete, and of labels that exist."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.datasets import Augment, load, pipeline, reading
from deeplab_tf.datasets.build import build
from deeplab_tf.datasets.synthetic import Shapes
from deeplab_tf.datasets.tfrecord import encode_label_map, find_shards, read_records, write_records
from deeplab_tf.errors import InputError

COUNT = 7
AUGMENTS = st.sampled_from(
    (None, Augment(), Augment(style="resized_crop", color=0.7), Augment(flip=False, color=0.3))
)
SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Seven pictures whose first pixel tells them apart, in three shards."""
    out = tmp_path_factory.mktemp("numbered") / "records"
    build(Shapes({"train": COUNT, "val": 3}, size=(16, 12)), out, records_per_shard=3, quiet=True)
    return out


def batches(records, count: int, **options):
    options = {"image_size": (16, 12), "batch_size": 2, "training": True, **options}
    stream = pipeline(records, "train", **options).take(count)
    return [(image.numpy(), label.numpy()) for image, label in stream]


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for (image, label), (image2, label2) in zip(one, other, strict=True):
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(label, label2)


@settings(deadline=None, max_examples=6)
@given(seed=SEEDS, augment=AUGMENTS, first=st.integers(0, 12), size=st.integers(1, 5))
def test_a_stream_that_starts_later_is_the_tail_of_the_whole(numbered, seed, augment, first, size):
    options = dict(seed=seed, augment=augment, batch_size=size)
    whole = batches(numbered, first + 2, **options)
    assert_same(whole[first:], batches(numbered, 2, first_step=first, **options))


@settings(deadline=None, max_examples=5)
@given(seed=SEEDS, augment=AUGMENTS)
def test_the_same_seed_gives_the_same_batches(numbered, seed, augment):
    options = dict(seed=seed, augment=augment)
    assert_same(batches(numbered, 3, **options), batches(numbered, 3, **options))


def test_another_seed_gives_others(numbered):
    one, other = batches(numbered, 3, seed=1), batches(numbered, 3, seed=2)
    assert any((a[0] != b[0]).any() for a, b in zip(one, other, strict=True))


def pictures(records) -> list[bytes]:
    return [e["image"].tobytes() for e in load(records, "train").as_numpy_iterator()]


@settings(deadline=None, max_examples=6)
@given(seed=SEEDS, epoch=st.integers(0, 3))
def test_each_epoch_has_every_picture_once(numbered, seed, epoch):
    found = batches(numbered, COUNT, batch_size=1, seed=seed, first_step=epoch * COUNT)
    shown = [image[0].astype(np.uint8).tobytes() for image, _ in found]
    assert Counter(shown) == Counter(pictures(numbered))


def test_each_epoch_has_an_order_of_its_own(numbered):
    found = [image.tobytes() for image, _ in batches(numbered, 4 * COUNT, batch_size=1)]
    epochs = [tuple(found[i : i + COUNT]) for i in range(0, 4 * COUNT, COUNT)]
    assert len({*epochs}) > 1


@settings(deadline=None, max_examples=8)
@given(
    seed=SEEDS,
    augment=AUGMENTS,
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    ignore=st.sampled_from((None, 255, 200)),
)
def test_labels_are_those_of_the_pictures_or_ignored(numbered, seed, augment, size, ignore):
    found = batches(numbered, 4, seed=seed, augment=augment, image_size=size, ignore_label=ignore)
    for image, label in found:
        assert image.shape == (2, *size, 3) and label.shape == (2, *size)
        assert image.dtype == np.float32 and label.dtype == np.int32
        assert 0 <= image.min() and image.max() <= 255
        assert {*np.unique(label)} <= {0, 1, 2, 3, 255 if ignore is None else ignore}


def test_without_training_every_picture_comes_once_and_in_order(numbered):
    found = pipeline(numbered, "train", image_size=(16, 12), batch_size=4, training=False)
    images = np.concatenate([image.numpy() for image, _ in found])
    assert [image.astype(np.uint8).tobytes() for image in images] == pictures(numbered)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_larger_pictures_are_brought_to_the_size(numbered, resize):
    stream = pipeline(
        numbered, "val", image_size=(8, 8), batch_size=3, training=False, resize=resize
    )
    image, label = next(iter(stream))
    assert image.shape == (3, 8, 8, 3)
    # 16x12 fits as 8x6: two columns are padding.
    padded = label.numpy()[:, :, 6:]
    assert (padded == 255).all() == (resize == "pad")


@pytest.fixture
def damaged(numbered, tmp_path):
    return shutil.copytree(numbered, tmp_path / "records")


def run(records, split="train") -> None:
    with reading(records, split):
        for _ in pipeline(records, split, image_size=(16, 12), batch_size=2, training=False):
            pass


def change(records, **features: bytes) -> None:
    """Changes features of the second record of the second shard."""
    shard = find_shards(records, "train")[1]
    found = [*read_records(shard)]
    example = tf.train.Example.FromString(found[1])
    for key, value in features.items():
        example.features.feature[f"image/{key}"].bytes_list.value[:] = [value]
    found[1] = example.SerializeToString()
    write_records(shard, found)


def test_a_label_of_no_class_never_reaches_a_loss(damaged):
    change(
        damaged, **{"segmentation/class/encoded": encode_label_map(np.full((16, 12), 4, np.uint8))}
    )
    stream = pipeline(damaged, "train", image_size=(16, 12), batch_size=2, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="label values that no class has"):
        list(stream)
    with pytest.raises(InputError) as error:
        run(damaged)
    shard = find_shards(damaged, "train")[1]
    assert f"{shard}, record 1: train_00004.png: 4. `deeplab-tf data check" in str(error.value)


def test_a_corrupt_shard_is_named(damaged):
    shard = find_shards(damaged, "train")[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match="damaged after") as error:
        run(damaged)
    assert str(shard) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_cut_shard_is_named(damaged):
    shard = find_shards(damaged, "train")[2]
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(InputError, match="00002-of-00003.tfrecord: damaged after 1 good records"):
        run(damaged)


def test_a_picture_that_cannot_be_decoded_is_named(damaged):
    change(damaged, encoded=b"no picture")
    with pytest.raises(InputError, match="record 1: train_00004.png: Unknown image file format"):
        run(damaged)


def test_an_error_within_fit_is_named_too(damaged):
    import keras

    change(damaged, encoded=b"no picture")
    model = keras.Sequential([keras.Input((16, 12, 3)), keras.layers.Conv2D(4, 1)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    stream = pipeline(damaged, "train", image_size=(16, 12), batch_size=2, training=True)
    with pytest.raises(InputError, match="train_00004.png"), reading(damaged, "train"):
        model.fit(stream, steps_per_epoch=9, shuffle=False, verbose=0)


def test_an_error_of_other_cause_passes_as_it_is(numbered):
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine"), reading(numbered, "train"):
        raise tf.errors.InvalidArgumentError(None, None, "mine")
    with pytest.raises(KeyError), reading(numbered, "train"):
        raise KeyError


def test_mistakes_are_named_before_anything_is_read(damaged, folder):
    options = dict(image_size=(16, 12), batch_size=2, training=True)
    with pytest.raises(InputError, match="no records of the split 'test'. It has: train, val"):
        pipeline(damaged, "test", **options)
    with pytest.raises(InputError, match="isn't a folder of records. Make one with"):
        pipeline(folder.root, "train", **options)
    value = json.loads((damaged / "dataset.json").read_text())
    value["splits"] = {}
    (damaged / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="counts no pictures in 'train'"):
        pipeline(damaged, "train", **options)
    find_shards(damaged, "train")[0].unlink()
    with pytest.raises(InputError, match="incomplete"):
        pipeline(damaged, "train", **options)
    with pytest.raises(InputError, match="style is crop or resized_crop; got 'cut'"):
        Augment(style="cut")
