"""`deeplab-tf export` and `deeplab-tf bench` from the command line."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import deeplab_tf as dl
from deeplab_tf.cli import main
from deeplab_tf.export.benchmark import LiteModel
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.inference.runner import KerasRunner


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset folder of a narrow model; what it says doesn't matter here."""
    keras.utils.set_random_seed(0)
    model = dl.DeepLabV3(
        2, depth_multiplier=0.25, atrous_rates=(), aspp_convs_filters=8, output_stride=32
    )
    folder = tmp_path_factory.mktemp("models") / "narrow"
    model.save_to_preset(
        folder,
        dl.ModelInfo(
            classes=("background", "person"),
            colors=((0, 0, 0), (255, 0, 0)),
            image_size=(64, 64),
            resize="stretch",
        ),
    )
    return folder


@pytest.fixture(scope="module")
def exported(preset, tmp_path_factory):
    """(path, result of the command)."""
    path = tmp_path_factory.mktemp("exported") / "narrow.tflite"
    return path, run("export", "--model", preset, "--size", "48x64", "--out", path)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_export_writes_the_file_and_says_what_it_found(exported):
    path, result = exported
    assert result.exit_code == 0, result.output
    report = json.loads((path.parent / "report.json").read_text())
    assert report["size"] == [48, 64] and report["agreement"] >= 0.999
    for line in ("agreement  ", "latency    ", "builtin only", f"wrote {path}", "next: "):
        assert line in result.output
    assert f"size       {path.stat().st_size / 1000:.0f} kB" in result.output
    assert LiteRTRunner(path).info.classes == ("background", "person")


def test_the_line_that_is_proposed_next_works(exported, tmp_path):
    path, result = exported
    photo = tmp_path / "photo.jpg"
    dl.pictures.save_image(photo, np.full((40, 50, 3), 90, np.uint8))
    line = next(line for line in result.output.splitlines() if line.startswith("next: "))
    words = line.removeprefix("next: deeplab-tf ").replace("photo.jpg", str(photo)).split()
    assert run(*words, "--out", tmp_path / "out").exit_code == 0


def test_too_little_agreement_is_exit_code_one_and_keeps_the_file(
    preset, exported, tmp_path, monkeypatch
):
    path = tmp_path / "narrow.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr(
        LiteModel, "run", lambda self, image: np.full(self.size, 1, np.uint8) - (image[..., 0] > 90)
    )
    result = run("export", "--model", preset, "--out", path)
    assert result.exit_code == 1
    assert "failed: only 0." in result.output and "is as it was before" in result.output
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["narrow.tflite"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--quantize", "int8"), "error: integer quantisation measures value ranges"),
        (("--quantize", "qat"), "error: qat needs a model that was trained"),
        (("--quantize", "int8", "--calibration", "nowhere"), "error: nowhere: no such folder"),
        (("--size", "12by14"), "error: --size 12by14 is neither a side"),
        (("--size", "0"), "error: --size 0 is neither a side"),
        (("--size=-1",), "error: --size -1 is neither a side"),
        (("--size", "0x64"), "error: --size 0x64 is neither a side"),
        (("--threshold", "2"), "not in the range"),
    ],
)
def test_mistakes_are_exit_code_two_and_one_line(preset, tmp_path, arguments, reason):
    result = run("export", "--model", preset, "--out", tmp_path / "a.tflite", *arguments)
    assert result.exit_code == 2
    assert reason in result.output and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_saved_model_is_never_replaced(preset, tmp_path):
    photo = tmp_path / "album" / "images" / "only_copy.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"dear")
    result = run("export", "--model", preset, "--to", "saved_model", "--out", tmp_path / "album")
    assert result.exit_code == 2 and "album exists and is no SavedModel" in result.stderr
    assert photo.read_bytes() == b"dear"


def test_without_a_report_the_file_gets_no_name(preset, tmp_path):
    (tmp_path / "report.json").mkdir()
    result = run("export", "--model", preset, "--out", tmp_path / "a.tflite")
    assert result.exit_code == 2 and "report.json is a folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_an_unknown_model_is_named(tmp_path):
    result = run("export", "--model", "no_such_model", "--out", tmp_path / "a.tflite")
    assert result.exit_code == 2 and "no preset or preset folder 'no_such_model'" in result.output


def test_bench_times_files_and_presets(exported, preset):
    path, _ = exported
    result = run("bench", path, preset, "--threads", "1", "--seconds", "0.01", "--json")
    assert result.exit_code == 0, result.output
    lite, keras_model = json.loads(result.output)
    assert lite["size"] == [48, 64] and lite["bytes"] == path.stat().st_size
    assert list(lite["latency_ms"]) == ["1"] and lite["builtin_only"]
    assert keras_model["size"] == [64, 64]
    assert keras_model["bytes"] == 4 * dl.from_preset(preset).count_params()


def test_bench_prints_for_people(exported):
    path, _ = exported
    result = run("bench", path, "--seconds", "0.01")
    assert result.exit_code == 0
    for words in ("48x64", "with 1 thread\n", "with 2 threads\n", "1 part of the graph", "CONV_2D"):
        assert words in result.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("model.tflite",), "model.tflite: no such file"),
        (("nothing",), "no preset or preset folder"),
        (("a.tflite", "--threads", "two"), "--threads is a list of numbers"),
    ],
)
def test_bench_names_mistakes(arguments, reason):
    result = run("bench", *arguments)
    assert result.exit_code == 2 and reason in result.output


def test_a_panoptic_model_goes_all_the_way(tmp_path):
    keras.utils.set_random_seed(0)
    model = dl.PanopticDeepLab(
        2,
        "mobilenet_v2",
        depth_multiplier=0.1,
        divisible_by=1,
        output_stride=16,
        atrous_rates=(1, 2, 3),
        low_level=(("res2", 4),),
        instance_low_level=(("res2", 4),),
        **dict.fromkeys(("aspp_channels", "decoder_channels", "head_channels"), 8),
        **dict.fromkeys(("instance_aspp_channels", "instance_decoder_channels"), 8),
        instance_head_channels=8,
    )
    info = dl.ModelInfo(
        classes=("ground", "person"),
        image_size=(65, 81),
        resize="stretch",
        thing_classes=(1,),
        label_divisor=256,
    )
    model.save_to_preset(tmp_path / "preset", info)
    path = tmp_path / "people.tflite"
    result = run("export", "--model", tmp_path / "preset", "--out", path)
    assert result.exit_code == 0, result.output
    for line in ("segments   panoptic quality 1.0", "merge      ", "builtin only", f"wrote {path}"):
        assert line in result.output
    # The heads stay at their stride; the helper brings them to the input's size.
    image = np.random.default_rng(0).integers(0, 256, (65, 81, 3), np.uint8)
    lite = LiteRTRunner(path)
    assert lite.map_shape == (17, 21, 2)
    model.info = info
    for name, values in KerasRunner(model).maps(image[None]).items():
        np.testing.assert_allclose(lite.maps(image[None])[name], values, atol=1e-4)
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    dl.pictures.save_image(photo, image)
    assert run("predict", "--model", path, photo, "--out", out, "--what", "panoptic").exit_code == 0
    assert (out / "photo_panoptic.json").is_file()
    result = run("bench", path, "--threads", "1", "--seconds", "0.01")
    assert result.exit_code == 0 and "ms beside it" in result.output


@pytest.mark.parametrize("command", ["export", "bench"])
def test_help_has_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0 and f"deeplab-tf {command}" in result.output.split("Examples:")[1]
