"""Builds check what they write, go on where they stopped, and leave nothing half-made."""

import dataclasses
import errno
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.datasets import DatasetDescriptor, build_folder, load
from deeplab_tf.datasets.build import build
from deeplab_tf.datasets.parallel import map_ahead
from deeplab_tf.datasets.synthetic import Shapes
from deeplab_tf.datasets.tfrecord import find_shards
from deeplab_tf.errors import InputError


def built(folder, out, **options) -> DatasetDescriptor:
    return build_folder(folder.root, out, quiet=True, **options)


def labels(out, split="train") -> dict[str, np.ndarray]:
    return {
        example["name"].decode(): example["semantic_label"]
        for example in load(out, split).as_numpy_iterator()
    }


def files(out) -> dict[str, int]:
    """Name -> time of change, of the shards and whatever else has a final name."""
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name[0] != "."}


def test_records_hold_what_the_folder_holds(folder, tmp_path):
    Image.open(folder.image("p1")).save(folder.root / "images" / "p1.jpg")
    (folder.root / "images" / "p1.png").unlink()
    descriptor = built(folder, tmp_path / "out")
    assert descriptor == DatasetDescriptor.load(tmp_path / "out")
    assert descriptor.splits == {"train": 3, "val": 1} and descriptor.ignore_label is None
    assert descriptor.pixel_share == (0.5, 0.5)
    for example in load(tmp_path / "out", "train").as_numpy_iterator():
        name = example["name"].decode()
        image = tf.io.decode_image((folder.root / "images" / name).read_bytes())
        np.testing.assert_array_equal(example["image"], image)
        assert example["semantic_label"].tolist() == [[1] * 8] * 3 + [[0] * 8] * 3
    assert sorted(labels(tmp_path / "out")) == ["p0.png", "p1.jpg", "p2.png"]


def test_shards_share_a_split_evenly(shapes_folder, shapes_records):
    assert [path.name for path in find_shards(shapes_records, "train")] == [
        f"train-0000{i}-of-00003.tfrecord" for i in range(3)
    ]
    names = [example["name"] for example in load(shapes_records, "train").as_numpy_iterator()]
    assert len({*names}) == 11


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_pictures_of_any_kind_become_rgb(folder, tmp_path, mode):
    from deeplab_tf.pictures import read_image

    pixels = np.random.default_rng(3).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    folder.image("p0").unlink()
    path = folder.root / "images" / ("p0.jpg" if mode in ("L", "CMYK") else "p0.png")
    image.save(path)
    built(folder, tmp_path / "out")
    found = {e["name"]: e["image"] for e in load(tmp_path / "out", "train").as_numpy_iterator()}
    wanted = read_image(path).astype(int)
    assert abs(found[path.name.encode()].astype(int) - wanted).max() <= 2


def test_a_lying_picture_is_set_upright_with_its_mask(folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8))
    folder.image("p0").unlink()
    image.save(folder.root / "images" / "p0.jpg", exif=exif)
    built(folder, tmp_path / "out")
    example = next(load(tmp_path / "out", "train").as_numpy_iterator())
    assert example["image"].shape == (6, 8, 3)


def test_labels_above_255_come_back(folder, tmp_path):
    folder.write("classes.csv", "\n".join(f"class {i}" for i in range(400)))
    (folder.root / "classes.csv").rename(folder.root / "classes.txt")
    mask = np.full((6, 8), 399, np.uint16)
    mask[0], mask[1] = 255, 65535
    folder.add("p0", mask)
    descriptor = built(folder, tmp_path / "out")
    assert descriptor.ignore_label == 65535 and descriptor.num_classes == 400
    np.testing.assert_array_equal(labels(tmp_path / "out")["p0.png"], mask)


def as_bytes(data: bytes):
    return lambda path: path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


SPOILED = {
    "cut JPEG": ("p1.jpg", cut, "p1.jpg is damaged or cut short"),
    "text called JPEG": ("p1.jpg", as_bytes(b"hello"), "p1.jpg isn't a picture, whatever"),
    "empty JPEG": ("p1.jpg", as_bytes(b""), "p1.jpg is empty; copy or download it again"),
    "HEIC called JPEG": ("p1.jpg", as_bytes(b"\0\0\0\x18ftypheic"), "p1.jpg is a HEIC picture"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_broken_picture_names_the_file(folder, tmp_path, what):
    name, spoil, reason = SPOILED[what]
    Image.open(folder.image("p1")).save(folder.root / "images" / name)
    (folder.root / "images" / "p1.png").unlink()
    spoil(folder.root / "images" / name)
    with pytest.raises(InputError) as error:
        built(folder, tmp_path / "out")
    assert reason in str(error.value) and str(folder.root) in str(error.value)
    assert str(error.value).endswith(f"To see all there is: deeplab-tf data check {folder.root}")
    assert [path for path in (tmp_path / "out").glob("*") if path.suffix != ".json"] == []


@pytest.mark.parametrize(
    ("suffix", "content"), [(".jpg", "PNG"), (".png", "JPEG"), (".bmp", "PNG")]
)
def test_a_good_picture_under_a_wrong_suffix_is_taken_for_what_it_is(
    folder, tmp_path, suffix, content
):
    pixels = np.asarray(Image.open(folder.image("p1")))
    folder.image("p1").unlink()
    Image.fromarray(pixels).save(folder.root / "images" / f"p1{suffix}", content)
    built(folder, tmp_path / "out")
    formats = {
        features["image/filename"].bytes_list.value[0]: features["image/format"].bytes_list.value[0]
        for features in (
            tf.train.Example.FromString(record.numpy()).features.feature
            for record in tf.data.TFRecordDataset(str(find_shards(tmp_path / "out", "train")[0]))
        )
    }
    assert formats[f"p1{suffix}".encode()] == content.lower().encode()


def test_a_png_without_its_end_is_mended_since_tensorflow_would_refuse_it(folder, tmp_path):
    path = folder.image("p1")
    pixels = np.asarray(Image.open(path))
    path.write_bytes(path.read_bytes()[:-12])
    built(folder, tmp_path / "out")
    found = {e["name"]: e["image"] for e in load(tmp_path / "out", "train").as_numpy_iterator()}
    np.testing.assert_array_equal(found[b"p1.png"], pixels)


def test_a_mask_of_another_size_names_both_files(folder, tmp_path):
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(folder.mask("p1"))
    with pytest.raises(InputError, match=r"p1\.png is 8 x 5 but p1\.png is 8 x 6; make them the"):
        built(folder, tmp_path / "out")


def test_label_values_of_no_class_name_the_mask_the_values_and_the_classes(folder, tmp_path):
    folder.classes("ground", "plant", "stone")
    folder.add("p1", np.full((6, 8), 7))
    with pytest.raises(InputError) as error:
        built(folder, tmp_path / "out")
    assert "p1.png: label values 7 are outside 0..2 (ground, plant, stone)" in str(error.value)


def test_a_class_file_that_fits_no_mask_is_refused(folder, tmp_path):
    folder.classes("ground", "plant")  # masks hold 0 and 255: all plants would be ignored
    with pytest.raises(InputError) as error:
        built(folder, tmp_path / "out")
    assert "the training masks hold nothing but 'ground'" in str(error.value)
    assert "write 255 as its index in the class file" in str(error.value)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_an_error_ends_a_build_before_the_rest_is_read(folder, tmp_path, monkeypatch):
    folder.image("p0").write_bytes(b"no picture")
    for index in range(4, 60):
        folder.add(f"p{index}", np.zeros((6, 8)))
    folder.write("train.txt", "".join(f"p{index}\n" for index in range(60) if index != 3))
    read = []
    from deeplab_tf.datasets import build as module

    encode = module.encode_item
    monkeypatch.setattr(module, "encode_item", lambda i, c: read.append(i.name) or encode(i, c))
    with pytest.raises(InputError, match="p0"):
        built(folder, tmp_path / "out")
    assert len(read) < 40


class InterruptError(Exception):
    """Stops a build."""


def interrupted(monkeypatch, after: int):
    """Lets a build write so many shards and then stops it in the midst of the next."""
    from deeplab_tf.datasets import build as module

    write, written = module.write_records, []

    def stop(path, records):
        if len(written) == after:
            path.write_bytes(b"half a shard")
            raise InterruptError
        written.append(path)
        return write(path, records)

    monkeypatch.setattr(module, "write_records", stop)


def test_an_interrupted_build_keeps_its_good_shards(shapes_folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(InterruptError):
        interrupted(patch, 2)
        build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    before = files(out)
    assert sorted(before) == [f"train-0000{i}-of-00003.tfrecord" for i in range(2)]
    build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    after = files(out)
    assert {name: after[name] for name in before} == before and len(after) == 5
    assert len(labels(out)) == 11 and len(labels(out, "val")) == 3


def test_a_killed_build_is_completed_by_the_next(tmp_path, shapes_folder):
    out = tmp_path / "out"
    program = (
        "import sys, time\n"
        "from deeplab_tf.datasets import build as module, build_folder\n"
        "write, written = module.write_records, []\n"
        "def slow(path, records):\n"
        "    written.append(path)\n"
        "    if len(written) == 3:\n"
        "        path.write_bytes(b'half'); print('now', flush=True); time.sleep(600)\n"
        "    return write(path, records)\n"
        "module.write_records = slow\n"
        "build_folder(*sys.argv[1:], records_per_shard=4, quiet=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(shapes_folder), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = files(out)
    assert len(before) == 2 and len([*out.glob(".*.tfrecord.*")]) == 1
    build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    after = files(out)
    assert {name: after[name] for name in before} == before and len(after) == 5
    assert [*out.glob(".*.tfrecord.*")] == [] and len(labels(out)) == 11


def test_a_damaged_shard_is_made_again_and_no_other(shapes_folder, shapes_records, tmp_path):
    out = shutil.copytree(shapes_records, tmp_path / "out")
    damaged = find_shards(out, "train")[1]
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-10])
    before = files(out)
    build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    after = files(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {damaged.name, "dataset.json"} and damaged.read_bytes() == good


def test_other_inputs_replace_finished_records_only_once_they_are_finished_too(folder, tmp_path):
    out = tmp_path / "out"
    build(Shapes({"train": 5}, (16, 16)), out, records_per_shard=2, quiet=True)
    before = files(out)
    folder.add("p2", np.full((6, 8), 77))
    with pytest.raises(InputError, match="77"):
        built(folder, out)
    assert files(out) == before and DatasetDescriptor.load(out).name == "synthetic"
    folder.add("p2", np.full((6, 8), 1))
    built(folder, out)
    assert DatasetDescriptor.load(out).name == "mine" and len(labels(out)) == 3
    assert sorted(files(out)) == [
        "dataset.json",
        "train-00000-of-00001.tfrecord",
        "val-00000-of-00001.tfrecord",
    ]


def test_records_of_other_code_are_not_taken_for_part_of_a_build(shapes_records, folder, tmp_path):
    out = shutil.copytree(shapes_records, tmp_path / "out")
    (out / ".build.json").write_text("[]")
    built(folder, out)
    assert len(labels(out)) == 3 and len(find_shards(out, "train")) == 1


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_leaves_no_half_shard_and_is_said_in_words(
    shapes_folder, tmp_path, monkeypatch, error
):
    out, writer, opened = tmp_path / "out", tf.io.TFRecordWriter, []

    def full(path):
        opened.append(path)
        if len(opened) > 1:
            raise error
        return writer(path)

    with monkeypatch.context() as patch, pytest.raises(InputError) as raised:
        patch.setattr(tf.io, "TFRecordWriter", full)
        build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    assert str(raised.value).startswith(f"{out / 'train-00001-of-00003.tfrecord'}: the disk is")
    assert "Free some space and run the command again." in str(raised.value)
    before = files(out)
    assert [*before] == ["train-00000-of-00003.tfrecord"] and not [*out.glob(".train*")]
    build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    assert files(out)["train-00000-of-00003.tfrecord"] == before["train-00000-of-00003.tfrecord"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
def test_a_system_that_takes_no_more_bytes_really_is_said_in_words(tmp_path):
    """A limit of file sizes stands in for a full disk: the same writes fail, in a real way."""
    import resource

    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError) as error:
            build(Shapes({"train": 20}), out, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).startswith(f"{out}: no more can be written there (File too large)")
    assert [*out.glob("*")] == [] and [*out.glob(".*.tfrecord.*")] == []


def test_a_target_that_is_a_file_is_refused(folder, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file"):
        built(folder, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_work_ahead_is_bounded_and_in_order():
    from concurrent.futures import ThreadPoolExecutor

    taken = []

    def values():
        for value in range(100):
            taken.append(value)
            yield value

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda value: value * 2, values(), workers=2)
        assert next(results) == 0
        assert len(taken) <= 10
        assert [*results] == [2 * value for value in range(1, 100)]


def test_threads_really_work_at_the_same_time():
    """Two pictures are encoded at once: each waits until the other is under way."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    both = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        assert len([*map_ahead(pool, lambda _: both.wait(), range(4), workers=2)]) == 4


def test_the_settings_of_a_source_are_part_of_what_a_build_is(tmp_path):
    shapes = Shapes({"train": 4}, (16, 16))
    build(shapes, tmp_path / "out", quiet=True)
    before = labels(tmp_path / "out")
    build(dataclasses.replace(shapes, seed=1), tmp_path / "out", quiet=True)
    after = labels(tmp_path / "out")
    assert any((before[name] != after[name]).any() for name in before)
