"""`deeplab-tf predict`: every picture gives its results; a bad one stops nobody else."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.progress import Progress

from deeplab_tf.cli import main
from deeplab_tf.cli.predict import _progress
from deeplab_tf.inference.runner import load_runner

ENDINGS = {"_mask.png", "_overlay.jpg", "_cutout.png", "_blur.jpg"}


@pytest.fixture
def photo(tmp_path):
    image = np.full((40, 60, 3), 30, np.uint8)
    image[:, 30:, 0] = 220
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def predict(red_lite_files, tmp_path, monkeypatch):
    """Runs the command in an empty folder with a .tflite file that finds red."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments, tflite=red_lite_files["probabilities"]):
        options = ["--tflite", str(tflite)] if tflite else []
        return CliRunner().invoke(main, ["predict", *map(str, arguments), *options])

    return run


def names(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_picture_gives_four(predict, photo, tmp_path):
    result = predict(photo)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "here" / "predictions") == {f"photo{end}" for end in ENDINGS}
    mask = np.asarray(Image.open("predictions/photo_mask.png"))
    assert mask.shape == (40, 60) and (mask[:, 32:] == 1).all() and (mask[:, :28] == 0).all()
    assert "class 0 5" in result.output and "photo_mask.png" in result.output


def test_what_and_out_are_obeyed(predict, photo, tmp_path):
    assert predict(photo, "--what", "cutout,mask", "--out", "o").exit_code == 0
    assert names(tmp_path / "here" / "o") == {"photo_cutout.png", "photo_mask.png"}


def test_classes_say_what_is_cut_out(predict, photo):
    assert predict(photo, "--what", "cutout", "--classes", "0").exit_code == 0
    alpha = np.asarray(Image.open("predictions/photo_cutout.png"))[..., 3]
    assert alpha[:, :25].min() == 255 and alpha[:, 35:].max() == 0


def test_a_folder_keeps_its_structure(predict, photo, tmp_path):
    folder = tmp_path / "album"
    (folder / "june").mkdir(parents=True)
    shutil.copy(photo, folder / "a.png")
    shutil.copy(photo, folder / "june" / "b.png")
    (folder / "notes.txt").write_text("not a picture")
    result = predict(folder, "--what", "mask")
    assert result.exit_code == 0 and "2 pictures done, 0 not" in result.output
    assert names(tmp_path / "here" / "predictions") == {"a_mask.png", "june/b_mask.png"}


def test_results_are_no_sources_when_run_again(predict, photo, tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    shutil.copy(photo, folder / "a.png")
    for _ in range(2):
        assert predict(folder, "--out", folder / "out").exit_code == 0
    assert names(folder) == {"a.png"} | {f"out/a{end}" for end in ENDINGS}


def test_patterns_are_expanded_and_nothing_is_done_twice(predict, photo, tmp_path):
    shutil.copy(photo, tmp_path / "other.png")
    result = predict(tmp_path / "*.png", photo, "--what", "mask")
    assert "2 pictures done" in result.output
    assert names(tmp_path / "here" / "predictions") == {"photo_mask.png", "other_mask.png"}


def test_pictures_of_one_name_do_not_overwrite_each_other(predict, photo, tmp_path):
    Image.open(photo).save(tmp_path / "photo.jpg")
    assert predict(photo, tmp_path / "photo.jpg", "--what", "mask").exit_code == 0
    assert names(tmp_path / "here" / "predictions") == {"photo_mask.png", "photo-2_mask.png"}


def test_a_bad_picture_among_good_ones_is_reported(predict, photo, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"text")
    result = predict(bad, photo, tmp_path / "gone.jpg", "--what", "mask")
    assert result.exit_code == 1
    assert f"error: {bad} isn't a picture" in result.stderr
    assert "gone.jpg: no such picture" in result.stderr
    assert "1 pictures done, 2 not" in result.stdout
    assert names(tmp_path / "here" / "predictions") == {"photo_mask.png"}


def test_with_bad_pictures_only_the_exit_code_is_two(predict, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"text")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert predict(bad).exit_code == 2
    result = predict(empty)
    assert result.exit_code == 2 and "empty: no pictures in there" in result.stderr
    assert not (tmp_path / "here" / "predictions").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--what", "masks"], "there are mask, overlay, cutout, blur"),
        (["--classes", "tree"], "no class 'tree'"),
        (["--model", "portrait"], "either --model or --tflite"),
        (["--model", ""], "either --model or --tflite"),
    ],
)
def test_options_that_make_no_sense_end_with_two(predict, photo, arguments, reason):
    result = predict(photo, *arguments)
    assert result.exit_code == 2 and reason in result.stderr
    assert "Traceback" not in result.output


def test_a_tflite_file_that_is_none_is_named(predict, photo, tmp_path):
    fake = tmp_path / "fake.tflite"
    fake.write_bytes(b"hello")
    result = predict(photo, tflite=fake)
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {fake} isn't a TFLite model")
    assert len(result.stderr.splitlines()) <= 2


def test_a_preset_folder_is_taken_and_fast_takes_the_file_in_it(
    predict, photo, tiny_preset, red_lite_files, tmp_path
):
    folder = tmp_path / "preset"
    shutil.copytree(tiny_preset, folder)
    result = predict(photo, "--model", folder, "--fast", tflite=None)
    assert result.exit_code == 2 and "has no .tflite file" in result.stderr
    assert f"deeplab-tf export --model {folder} --out fast.tflite" in result.stderr
    assert predict(photo, "--model", folder, "--what", "overlay", tflite=None).exit_code == 0
    shutil.copy(red_lite_files["int8"], folder / "int8.tflite")
    assert predict(photo, "--model", folder, "--fast", tflite=None).exit_code == 0
    assert (np.asarray(Image.open("predictions/photo_mask.png"))[:, 32:] == 1).all()


def test_windows_scales_and_flips_are_obeyed(predict, photo, tiny_preset, red_lite_files):
    # In windows of 24x32 the edge of the red part is where it is; shrunk it is blurred.
    assert predict(photo, "--window", "24x32", "--overlap", "0.5", "--flip").exit_code == 0
    mask = np.asarray(Image.open("predictions/photo_mask.png"))
    np.testing.assert_array_equal(mask == 1, np.asarray(Image.open(photo))[..., 0] > 128)
    options = ["--model", tiny_preset, "--scales", "0.5, 1", "--output-stride", 8, "--flip"]
    result = predict(photo, *options, "--window", "33", tflite=None)
    assert result.exit_code == 0, result.output
    assert len(names(Path("predictions"))) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--window", "0"], "--window 0 is neither a side, like 256, nor HEIGHTxWIDTH"),
        (["--window", "24x32x3"], "--window 24x32x3 is neither"),
        (["--window", "513"], "takes 24x32 pixels only: give window=(24, 32)"),
        (["--window", "24x32", "--overlap", "1"], "0 to below 1; got 1.0"),
        (["--overlap", "0"], "overlap is of windows: give window too"),
        (["--scales", "0.5,big"], "--scales 0.5,big isn't a list of numbers"),
        (["--scales", ""], "isn't a list of numbers"),
        (["--scales", "0,1"], "scales are numbers above 0"),
        (["--scales", "0.5,1"], "takes pictures at one size, so scales are impossible"),
        (["--output-stride", "0"], "is built already, so its output stride is fixed"),
    ],
)
def test_ways_of_running_that_make_no_sense_end_with_two(predict, photo, options, reason):
    result = predict(photo, *options)
    assert result.exit_code == 2 and reason in result.stderr, result.output
    assert len(result.stderr.splitlines()) <= 2 and not Path("predictions/photo_mask.png").exists()


def test_a_long_picture_shows_its_windows(red_lite_files, monkeypatch):
    shown = []
    monkeypatch.setattr(Progress, "update", lambda self, task, **fields: shown.append(fields))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    runner = load_runner(red_lite_files["int8"], window=(24, 32), overlap=0)
    with _progress(1, runner) as advance:
        runner.scores(np.zeros((40, 60, 3), np.uint8))
        advance()
    assert [fields["completed"] for fields in shown] == [1, 2, 3, 4]
    assert {fields["total"] for fields in shown} == {4}


@pytest.mark.parametrize("windows", [False, True])
def test_predicting_with_a_tflite_file_loads_no_tensorflow(
    photo, red_lite_files, tmp_path, windows
):
    more = ["--window", "24x32", "--flip"] if windows else []
    arguments = ["predict", str(photo), "--tflite", str(red_lite_files["int8"]), *more]
    code = (
        "import sys\n"
        "from deeplab_tf.cli import main\n"
        f"main({[*arguments, '--out', str(tmp_path / 'o')]!r}, standalone_mode=False)\n"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("[]\n") and result.stderr == ""
    assert len(names(tmp_path / "o")) == 4


def test_the_crf_is_one_option(predict, photo):
    result = predict(photo, "--what", "mask", "--crf", "deeplab_v2_resnet_101")
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open("predictions/photo_mask.png"))
    # The model sees 24x32 pixels; the edge is where the picture has it all the same.
    assert (mask[:, 30:] == 1).all() and (mask[:, :30] == 0).all()
    result = predict(photo, "--crf", "deeplab_v9")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: deeplab_v9 is neither parameters of the CRF")
    assert len(result.stderr.splitlines()) == 1
