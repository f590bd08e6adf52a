"""`deeplab-tf crf-search` finds, shows and writes parameters, and goes on after a stop."""

import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from deeplab_tf.cli import main
from deeplab_tf.postprocess.crf import CrfParameters, PictureCrf

QUICK = ("--w1", "1,5", "--sigma-alpha", "4,8", "--sigma-beta", "10", "--rounds", 1)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three pictures whose foreground is bluish; red, which the model finds, is mostly noise."""
    folder = tmp_path_factory.mktemp("people")
    for index in range(3):
        random = np.random.default_rng(index)
        label = np.zeros((24, 32), np.uint8)
        label[4:20, 6 + 3 * index :][:, :14] = 255
        image = np.where(label[..., None], [150, 60, 110], [110, 60, 60])
        image[..., 0] += random.integers(-40, 41, (24, 32))
        for part, array in (("images", image.astype(np.uint8)), ("masks", label)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / part / f"p{index}.png")
    (folder / "val.txt").write_text("p0\np1\np2\n")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["crf-search", *map(str, arguments)])


def test_parameters_are_found_shown_and_written(red_lite_files, people, tmp_path):
    out, lite = tmp_path / "new" / "crf.json", red_lite_files["int8"]
    result = run("--model", lite, "--data", people, "--out", out, *QUICK, "--flip")
    assert result.exit_code == 0, result.output
    value = json.loads(out.read_text())
    best = CrfParameters.from_dict(value["parameters"])
    assert (best.w2, best.sigma_gamma, best.iterations) == (3, 3, 10)
    assert value["mean_iou"] > value["without_crf"] + 0.05
    assert "2 x 2 x 1 values, 4 new candidates x 3 pictures: the CRF runs 12 times" in result.output
    assert f"{lite}, flipped too on {people}, val" in result.output
    gain = f"mean IoU {value['mean_iou']:.4f}, without a CRF {value['without_crf']:.4f}: +0."
    assert gain in result.output and "4 candidates on 3 pictures" in result.output
    # Each candidate is a row with its gain.
    assert result.output.count("+0.") + result.output.count("-0.") == 4 + 1
    assert "is the largest that was tried" in result.output or best.w1 == 1
    assert f"use it with: --crf {out}" in result.output
    assert {path.name for path in out.parent.iterdir()} == {"crf.json", "crf.png"}


def test_what_is_not_searched_comes_from_a_set_or_a_file(red_lite_files, people, tmp_path):
    arguments = ("--model", red_lite_files["int8"], "--data", people, *QUICK, "--limit", 1)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    result = run(*arguments, "--start", "deeplab_v2_resnet_101", "--out", first)
    assert result.exit_code == 0, result.output
    value = json.loads(first.read_text())
    assert value["parameters"]["sigma_gamma"] == 1 and value["pictures"] == 1
    assert run(*arguments, "--start", first, "--out", second).exit_code == 0
    assert json.loads(second.read_text())["candidates"] == value["candidates"]


def test_stopped_by_hand_it_goes_on_with_the_same_command(
    red_lite_files, people, tmp_path, monkeypatch
):
    arguments = ("--model", red_lite_files["int8"], "--data", people, *QUICK, "--threads", 1)
    out, whole, calls = tmp_path / "crf.json", tmp_path / "whole.json", []
    infer = PictureCrf.infer

    def stopping(self, *values):
        calls.append(1)
        if len(calls) in (2, 9):
            raise KeyboardInterrupt
        return infer(self, *values)

    assert run(*arguments, "--out", whole).exit_code == 0
    monkeypatch.setattr(PictureCrf, "infer", stopping)
    result = run(*arguments, "--out", out)
    assert (result.exit_code, result.stderr) == (130, "stopped; nothing was done yet\n")
    result = run(*arguments, "--out", out)
    assert result.exit_code == 130 and not out.exists()
    kept = tmp_path / "crf.json.partial"
    assert result.stderr == (
        f"stopped; {kept} keeps what was done: the same command goes on from there\n"
    )
    result = run(*arguments, "--out", out, "--limit", 2)
    assert result.exit_code == 2 and f"{kept} is of another search" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    result = run(*arguments, "--out", out)
    assert result.exit_code == 0 and "1 of 3 pictures were done before" in result.output
    assert not kept.exists()
    one, other = (json.loads(path.read_text()) for path in (out, whole))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--data", "nowhere", "nowhere: no such folder"),
        ("--split", "test", "has no split 'test'; it has val"),
        ("--model", "none.tflite", "none.tflite: no such file"),
        ("--w1", "5,-1", "w1 to try are numbers above 0; got 5,-1"),
        ("--w1", "", "isn't a list of numbers"),
        ("--sigma-alpha", "0", "sigma_alpha to try are numbers above 0; got 0"),
        ("--sigma-beta", "wide", "--sigma-beta wide isn't a list of numbers"),
        ("--sigma-beta", "nan", "sigma_beta to try are numbers above 0"),
        ("--start", "deeplab_v9", "deeplab_v9 is neither"),
        ("--out", ".", "is a folder; name a file for the result, such as crf.json"),
        ("--out", "crf.png", "that name is for the picture"),
        ("--window", "513", "--window 24x32"),
    ],
)
def test_mistakes_end_with_two_and_a_line(
    red_lite_files, people, tmp_path, monkeypatch, option, value, reason
):
    monkeypatch.chdir(tmp_path)
    model = red_lite_files["int8"]
    arguments = {"--model": model, "--data": people, "--out": "crf.json", option: value}
    result = run(*(part for pair in arguments.items() for part in pair))
    assert result.exit_code == 2 and reason in result.stderr, result.output
    assert len(result.stderr.splitlines()) == 1 and not result.stdout
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("option", ["--rounds", "--limit", "--threads"])
def test_counts_are_at_least_one(option):
    result = run("--model", "m", "--data", "d", "--out", "o", option, 0)
    assert result.exit_code == 2 and option in result.stderr


def test_without_numba_it_says_what_to_install(red_lite_files, people, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "deeplab_tf.postprocess.lattice_loops", raising=False)
    out = tmp_path / "crf.json"
    result = run("--model", red_lite_files["int8"], "--data", people, "--out", out)
    assert result.exit_code == 2 and 'pip install "deeplab-tf[crf]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_classes_that_do_not_match_end_with_two_and_a_line(red_lite_files, people, tmp_path):
    model = shutil.copy(red_lite_files["int8"], tmp_path / "red.tflite")
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr("labels.txt", "ground\nsky\n")
    (tmp_path / "set").mkdir()
    shutil.copytree(people, tmp_path / "set", dirs_exist_ok=True)
    (tmp_path / "set" / "classes.csv").write_text("index,name\n0,road\n255,car\n")
    result = run("--model", model, "--data", tmp_path / "set", "--out", tmp_path / "crf.json")
    assert result.exit_code == 2, result.output
    assert "their names don't match" in result.stderr and len(result.stderr.splitlines()) == 1
