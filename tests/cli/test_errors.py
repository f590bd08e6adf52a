"""A preset that can't be used ends with exit code 2 and a line that names it and the fix."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from deeplab_tf.cli import main
from deeplab_tf.models.weights import read_variables


@pytest.fixture
def preset(tiny_preset, tmp_path):
    """A copy to damage."""
    import shutil

    return shutil.copytree(tiny_preset, tmp_path / "mine")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    return path


def _weights(change):
    def damage(folder):
        arrays = read_variables(folder / "weights.npz")
        change(arrays)
        np.savez(folder / "weights.npz", **arrays)

    return damage


def _config(**changes):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["arguments"].update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def _transpose(arrays):
    arrays["aspp0/kernel"] = arrays["aspp0/kernel"].transpose(0, 1, 3, 2)


def _cut(name):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


DAMAGES = {
    "missing variable": (_weights(lambda arrays: arrays.pop("aspp0/kernel")), "1 missing: aspp0"),
    "misshapen variable": (_weights(_transpose), "aspp0/kernel (1, 1, 8,"),
    "extra variable": (_weights(lambda arrays: arrays.update(x=np.ones(1))), "not in the model: x"),
    "cut weights": (_cut("weights.npz"), "isn't a whole weights file"),
    "no weights": (lambda folder: (folder / "weights.npz").unlink(), "no such file"),
    "cut config": (_cut("config.json"), "config.json"),
    "unknown backbone": (
        _config(backbone="mobilenet_v4"),
        "config.json: unknown backbone 'mobilenet_v4'. Did you mean",
    ),
    "impossible stride": (
        _config(output_stride=12),
        "config.json: output_stride of mobilenet_v2 is one of [8, 16, 32]; got 12",
    ),
    "unknown option": (_config(output_strid=8), "'output_strid'. Did you mean 'output_stride'?"),
    "impossible value": (_config(depth_multiplier="wide"), "config.json: not a preset of this"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_predict_names_what_is_wrong_with_a_preset(what, preset, photo):
    damage, reason = DAMAGES[what]
    damage(preset)
    result = CliRunner().invoke(
        main, ["predict", str(photo), "--model", str(preset), "--out", str(preset.parent / "out")]
    )
    assert result.exit_code == 2, result.output
    assert reason in result.stderr and str(preset) in result.stderr
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) <= 2
    assert not (preset.parent / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "export", "bench", "convert"])
def test_every_command_says_it_alike(command, preset, photo, tmp_path, people_folder):
    _config(backbone="mobilenet_v4")(preset)
    arguments = {
        "evaluate": ["--model", preset, "--data", people_folder],
        "export": ["--model", preset, "--to", "tflite", "--out", tmp_path / "x.tflite"],
        "bench": [preset],
        "convert": [photo, "--model", preset, "--out", tmp_path / "converted"],
    }[command]
    if command == "convert":  # what is to be converted is looked at first
        arguments[0] = tmp_path / "model.ckpt-1"
        (tmp_path / "model.ckpt-1.index").write_bytes(b"x")
    result = CliRunner().invoke(main, [command, *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert "unknown backbone 'mobilenet_v4'" in result.stderr
    assert len(result.stderr.splitlines()) <= 2


@pytest.fixture
def people_folder(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "people" / part).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "people" / part / "a.png")
    (tmp_path / "people" / "val.txt").write_text("a\n")
    return tmp_path / "people"


def test_an_unknown_preset_is_answered_with_the_nearest_in_a_process_of_its_own(photo):
    program = "from deeplab_tf.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "predict", str(photo), "--model", "portrat"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: no preset or preset folder 'portrat'. Did you mean 'portrait'? "
        "`deeplab-tf models` lists the presets."
    ]
