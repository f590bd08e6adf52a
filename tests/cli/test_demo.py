"""`deeplab-tf demo`: every file that it promises, and figures that hold when measured again."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.cbook import get_sample_data
from PIL import Image

import deeplab_tf as dl
from deeplab_tf import export
from deeplab_tf.cli import main
from deeplab_tf.export import VerificationError, read_metadata
from deeplab_tf.inference.litert import LiteRTRunner

ENDINGS = ("_mask.png", "_overlay.jpg", "_cutout.png", "_blur.jpg")
SAMPLE = get_sample_data("grace_hopper.jpg", asfileobj=False)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder that it was started in, result): the sample photo and one stored on its side."""
    folder = tmp_path_factory.mktemp("here")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(SAMPLE) as photo:
        lying = photo.crop((60, 0, 400, 300)).transpose(Image.Transpose.ROTATE_90)
        lying.save(folder / "side.jpg", exif=exif)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run("demo", "side.jpg")


def test_it_writes_what_it_promises_and_nothing_else(demo):
    folder, result = demo
    assert result.exit_code == 0, result.output
    pictures = {f"{name}{end}" for name in ("grace_hopper", "side") for end in ENDINGS}
    files = {path.name for path in (folder / "demo").iterdir()}
    assert files == pictures | {"contact_sheet.jpg", "portrait_int8.tflite", "report.json"}
    assert {path.name for path in folder.iterdir()} == {"demo", "side.jpg"}


@pytest.mark.parametrize(("name", "size"), [("grace_hopper", (512, 600)), ("side", (340, 300))])
def test_every_picture_has_the_size_of_its_photo_upright(demo, name, size):
    for end in ENDINGS:
        with Image.open(demo[0] / "demo" / f"{name}{end}") as picture:
            assert picture.size == size, end


def test_she_is_found_and_the_sky_behind_her_is_not(demo):
    with Image.open(demo[0] / "demo" / "grace_hopper_mask.png") as picture:
        mask = np.asarray(picture)
    with Image.open(demo[0] / "demo" / "grace_hopper_cutout.png") as picture:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    face, sky = np.s_[180:280, 200:320], np.s_[20:150, 440:500]
    assert mask[face].all() and (alpha[face] > 200).all()
    assert not mask[sky].any() and (alpha[sky] < 50).all()


def test_the_sheet_has_a_row_of_six_for_each_picture(demo):
    with Image.open(demo[0] / "demo" / "contact_sheet.jpg") as sheet:
        width, height = sheet.size
        assert 6 * 220 < width < 6 * 260 and 2 * 220 < height < 900
        # The chequered ground of the cut-out says that it isn't just a page of copies.
        assert len(set(np.asarray(sheet.convert("L")).ravel().tolist())) > 200


def test_the_int8_file_agrees_as_much_as_is_printed(demo):
    folder, result = demo
    runner = LiteRTRunner(folder / "demo" / "portrait_int8.tflite")
    assert runner.info.classes == ("background", "person")
    for name, photo in (("grace_hopper", SAMPLE), ("side", folder / "side.jpg")):
        with Image.open(folder / "demo" / f"{name}_mask.png") as picture:
            mask = np.asarray(picture)
        same = float((dl.segment(runner, photo).labels == mask).mean())
        (line,) = (line for line in result.output.splitlines() if f" {name} " in line)
        assert f"{same:.2%} of the pixels" in line and same > 0.97
        assert f"person {float(mask.mean()):.1%}" in line


def test_size_agreement_and_times_are_those_of_the_report(demo):
    folder, result = demo
    report = json.loads((folder / "demo" / "report.json").read_text())
    lite = folder / "demo" / "portrait_int8.tflite"
    assert report["quantize"] == "int8" and report["builtin_only"]
    assert report["bytes"] == lite.stat().st_size <= 700_000
    assert tuple(report["size"]) == dl.from_preset("portrait").info.image_size
    assert read_metadata(lite.read_bytes()).labels == ("background", "person")
    for text in (
        f"{report['bytes'] / 1000:.0f} kB",
        f"{report['agreement']:.2%} of the pixels on {report['pictures']} views",
        f"{report['latency_ms']['1']:.1f} ms (1 thread)",
    ):
        assert text in result.output
    weights = dl.from_preset("portrait").get_weights()
    assert f"{sum(4 * weight.size for weight in weights) / 1000:.0f} kB" in result.output


def test_progress_is_shown_step_by_step(demo):
    steps = re.findall(r"^(\d)/4  .+  \d+\.\d s$", demo[1].output, re.MULTILINE)
    assert steps == ["1", "2", "3", "4"]
    assert "segmenting 2 pictures" in demo[1].output


def test_the_predict_lines_that_come_next_work(demo, tmp_path, monkeypatch):
    folder, result = demo
    lines = re.findall(r"deeplab-tf (predict .+?)$", result.output, re.MULTILINE)
    assert len(lines) == 2
    monkeypatch.chdir(folder)
    for line in lines:
        words = [word.replace("your_photo.jpg", "side.jpg") for word in shlex.split(line)]
        assert run(*words, "--out", tmp_path, "--what", "mask").exit_code == 0
    assert (tmp_path / "side_mask.png").is_file()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "me.jpg: no such picture"),
        (b"hello", "me.jpg isn't a picture"),
        (Path(SAMPLE).read_bytes()[:9000], "me.jpg is damaged or cut short"),
    ],
    ids=["missing", "no picture", "cut short"],
)
def test_a_bad_picture_ends_it_before_anything_is_written(content, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content:
        Path("me.jpg").write_bytes(content)
    result = run("demo", "me.jpg")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and reason in result.stderr
    assert len(result.stderr.splitlines()) <= 2 and result.stdout == ""
    assert not Path("demo").exists()


def test_a_file_where_results_should_go_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine")
    result = run("demo", "--out", tmp_path / "taken")
    assert result.exit_code == 2 and "taken" in result.stderr and "Traceback" not in result.output
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_int8_file_that_differs_is_exit_code_one(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise VerificationError("only 0.5 of the pixels agree.", {})

    monkeypatch.setattr(export, "export_model", refuse, raising=False)
    result = run("demo", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == (
        "failed: only 0.5 of the pixels agree. No portrait_int8.tflite was written.\n"
    )
    assert (tmp_path / "out" / "grace_hopper_mask.png").is_file()
