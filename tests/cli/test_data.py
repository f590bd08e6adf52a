"""`deeplab-tf data`: check, build, info, show, describe; mistakes end with 2 and a line or two."""

import json

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image

from deeplab_tf.cli import main
from deeplab_tf.datasets.tfrecord import find_shards


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture
def plants(tmp_path):
    """Six pictures of black and white masks."""
    folder = tmp_path / "plants"
    for index in range(6):
        mask = np.zeros((10, 12), np.uint8)
        mask[index : index + 4] = 255
        image = np.random.default_rng(index).integers(0, 256, (10, 12, 3)).astype(np.uint8)
        for part, array in (("images", image), ("masks", mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / part / f"p{index}.png")
    return folder


def test_a_good_folder_is_checked_built_described_and_shown(plants, tmp_path):
    result = run("check", plants)
    assert result.exit_code == 0, result.output
    assert "6 pictures looked at (train 5, val 1)" in result.stdout
    assert "foreground" in result.stdout and "all is well" in result.stdout
    assert f"next: deeplab-tf data build {plants} --out RECORDS" in result.stdout
    out = tmp_path / "records"
    result = run("build", plants, "--out", out)
    assert result.exit_code == 0, result.output
    assert "plants: train 5, val 1; value to ignore: None" in result.stdout
    assert f"next: deeplab-tf train --config portrait data={out}" in result.stdout
    assert run("info", out).stdout == result.stdout.rpartition("next:")[0]
    assert "all is well" in run("check", out).stdout
    for target in (plants, out):
        page = tmp_path / "page.jpg"
        result = run("show", target, "--out", page, "--count", 2)
        assert result.exit_code == 0 and result.stdout == f"wrote {page}: 2 pictures of train\n"
        assert Image.open(page).width > 600


@pytest.fixture
def persons(tmp_path):
    """Three pictures of two persons each, with the numbers of their instances."""
    folder = tmp_path / "persons"
    for index in range(3):
        numbers = np.zeros((20, 24), np.uint8)
        numbers[4:16, index + 2 : index + 8], numbers[6:18, 14:20] = 1, 2
        image = np.random.default_rng(index).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        parts = (("images", image), ("masks", numbers > 0), ("instances", numbers))
        for part, array in parts:
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / part / f"p{index}.png")
    (folder / "classes.csv").write_text("index,name,thing\n0,ground,0\n1,person,1\n")
    return folder


def test_a_folder_with_instances_is_checked_built_described_and_shown(persons, tmp_path):
    result = run("check", persons)
    assert result.exit_code == 0, result.output
    assert "6 instances in 3 of 3 pictures, at most 2 in one; label_divisor 256" in result.stdout
    out = tmp_path / "records"
    result = run("build", persons, "--out", out, "--label-divisor", 1000)
    assert result.exit_code == 0, result.output
    assert "1 things, labels are class * 1000 + instance" in result.stdout
    assert "of the training pixels  thing" in result.stdout
    assert f"next: deeplab-tf data show {out}" in result.stdout
    assert run("info", out).stdout == result.stdout.rpartition("next:")[0]
    assert "all is well" in run("check", out).stdout
    for target in (persons, out):
        page = tmp_path / "page.png"
        assert run("show", target, "--out", page).stdout == f"wrote {page}: 2 pictures of train\n"
    (out / "dataset.json").unlink()
    described = run("describe", out, "--classes", persons / "classes.csv", "--label-divisor", 1000)
    assert described.exit_code == 0 and run("info", out).stdout == described.stdout


def test_a_wrong_divisor_is_said_with_the_right_one(persons, tmp_path):
    out = tmp_path / "records"
    run("build", persons, "--out", out)
    result = run("check", out, "--label-divisor", 100)
    assert result.exit_code == 1
    assert "problem: 3 x labels aren't class * divisor + instance" in result.stdout
    assert "fix: All labels fit the divisor 256 or 1000" not in result.stdout
    assert "--label-divisor 256." in result.stdout


def test_problems_are_listed_with_their_fix_and_end_with_one(plants, tmp_path):
    for index in range(6):
        Image.fromarray(np.full((10, 12), 80, np.uint8)).save(plants / "masks" / f"p{index}.png")
    (plants / "images" / "p0.png").write_bytes(b"hello")
    result = run("check", plants, "--json", tmp_path / "report.json")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "problem: 6 x masks hold values that no class has" in result.stdout
    assert "… and 1 more; --json lists all" in result.stdout
    assert "  fix: Two-class masks hold 0 and 1, or 0 and 255." in result.stdout
    assert "problem: 1 x pictures can't be read" in result.stdout
    assert "kinds of problem" in result.stdout and "next:" not in result.stdout
    value = json.loads((tmp_path / "report.json").read_text())
    assert len(next(p for p in value["problems"] if p["kind"] == "values")["places"]) == 6


def test_many_grey_levels_do_not_fill_the_screen(plants):
    grey = np.arange(120, dtype=np.uint8).reshape(10, 12)
    Image.fromarray(grey).save(plants / "masks" / "p0.png")
    assert run("check", plants).stdout.count("(no class)") == 10


def test_a_class_list_may_be_named(plants):
    result = run("check", plants, "--classes", "voc")
    assert result.exit_code == 1 and "tvmonitor" in result.stdout and "(ignored)" in result.stdout


def test_drawn_shapes_are_built_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("build", "synthetic", "--out", "shapes")
    assert result.exit_code == 0 and "triangle" in result.stdout
    assert "next: deeplab-tf train --config camvid data=shapes" in result.stdout


def test_records_of_other_code_are_described(plants, tmp_path):
    out = tmp_path / "records"
    run("build", plants, "--out", out)
    (out / "dataset.json").unlink()
    result = run("info", out)
    assert result.exit_code == 2 and "data describe" in result.stderr
    result = run("describe", out, "--classes", "portrait")
    assert result.exit_code == 0 and "person" in result.stdout
    assert run("info", out).stdout == result.stdout


def no_folder(plants, tmp_path):
    return ["check", plants / "nowhere"], "nowhere: no such folder"


def empty_folder(plants, tmp_path):
    for path in (plants / "images").iterdir():
        path.unlink()
    return ["build", plants, "--out", tmp_path / "out"], "images: no pictures in there"


def cut_picture(plants, tmp_path):
    path = plants / "images" / "p1.jpg"
    Image.open(plants / "images" / "p1.png").save(path)
    (plants / "images" / "p1.png").unlink()
    path.write_bytes(path.read_bytes()[:-9])
    return ["build", plants, "--out", tmp_path / "out"], "p1.jpg is damaged or cut short"


def other_size(plants, tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(plants / "masks" / "p1.png")
    return ["build", plants, "--out", tmp_path / "out"], "p1.png is 4 x 4 but p1.png is 12 x 10"


def strange_values(plants, tmp_path):
    Image.fromarray(np.full((10, 12), 9, np.uint8)).save(plants / "masks" / "p1.png")
    return ["build", plants, "--out", tmp_path / "out"], "label values 9 are outside 0..1"


def class_file(plants, tmp_path):
    (plants / "classes.csv").write_text("index,name\n0,a\n5,b\n")
    return ["build", plants, "--out", tmp_path / "out"], "classes.csv: class indices must be"


def full_disk(plants, tmp_path):
    tf.io.TFRecordWriter = lambda path: _raise()  # the test puts it back
    return ["build", plants, "--out", tmp_path / "out"], "the disk is full. Free some space"


def no_panoptic_json(plants, tmp_path):
    (plants / "panoptic").mkdir()
    return ["build", plants, "--out", tmp_path / "out"], "there is no panoptic.json beside it"


def no_things(plants, tmp_path):
    (plants / "instances").mkdir()
    (plants / "instances" / "p0.png").write_bytes((plants / "masks" / "p0.png").read_bytes())
    arguments = ["build", plants, "--out", tmp_path / "out", "--classes", "portrait"]
    return arguments, "portrait: says of no class that it is a thing"


def divisor_of_nothing(plants, tmp_path):
    return ["show", plants, "--label-divisor", "9"], "--label-divisor means nothing"


def _raise():
    raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")


def no_records(plants, tmp_path):
    return ["info", plants], "no dataset.json in there"


def no_split(plants, tmp_path):
    return ["show", plants, "--split", "test"], "has no split 'test'; it has train, val"


def no_extra(plants, tmp_path):
    return ["build", "tfds:oxford", "--out", tmp_path / "out"], "tfds:oxford: unknown here"


def no_picture_name(plants, tmp_path):
    return ["show", plants, "--out", tmp_path / "page"], "name a picture to write"


@pytest.mark.parametrize(
    "make",
    [
        *(no_folder, empty_folder, cut_picture, other_size, strange_values, class_file),
        *(full_disk, no_records, no_split, no_extra, no_picture_name),
        *(no_panoptic_json, no_things, divisor_of_nothing),
    ],
)
def test_mistakes_end_with_two_and_a_line_or_two(plants, tmp_path, monkeypatch, make):
    monkeypatch.setattr(tf.io, "TFRecordWriter", tf.io.TFRecordWriter)
    arguments, reason = make(plants, tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and reason in result.stderr
    assert len(result.stderr.splitlines()) <= 2 and "Traceback" not in result.output
    assert not [*(tmp_path / "out").glob("*.tfrecord")]


def test_a_build_stopped_by_hand_goes_on_with_the_same_command(plants, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("deeplab_tf.datasets.build.encode_item", stop)
        result = run("build", plants, "--out", out)
    assert result.exit_code == 130
    assert result.stderr == "stopped; the same command goes on from here\n"
    assert not [*out.glob("*.tfrecord")] and not [*out.glob(".*.tfrecord.*")]
    assert run("build", plants, "--out", out).exit_code == 0


def test_a_place_that_takes_no_files_is_refused_before_the_work(plants, tmp_path):
    (tmp_path / "file").write_text("mine")
    for arguments in (
        ("check", plants, "--json", tmp_path / "file" / "report.json"),
        ("build", plants, "--out", tmp_path / "file" / "out"),
        ("show", plants, "--out", tmp_path / "file" / "page.jpg"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and "file, not a folder" in result.stderr
        assert "pictures" not in result.stdout


def test_a_failed_build_leaves_earlier_records_whole(plants, tmp_path):
    out = tmp_path / "out"
    run("build", plants, "--out", out)
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    strange_values(plants, tmp_path)
    assert run("build", plants, "--out", out).exit_code == 2
    assert {path: path.read_bytes() for path in before} == before
    assert "train 5, val 1" in run("info", out).stdout
    assert len(find_shards(out, "train")) == 1
