"""A panoptic model by the commands: records, a run, its scores, pictures of its instances."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import deeplab_tf as dl
from deeplab_tf.cli import main
from deeplab_tf.panoptic_format import decode_ids

CONFIG = '''"""Small enough for tests."""
from deeplab_tf.training.config import ModelConfig, OptimizerConfig, PanopticConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        "PanopticDeepLab",
        dict(
            backbone="resnet50",
            backbone_layer_multiplier=0.34,
            backbone_width_multiplier=0.125,
            aspp_use_only_1x1_proj_conv=True,
            low_level=[["res2", 8]],
            instance_low_level=[["res2", 8]],
            aspp_channels=16,
            decoder_channels=16,
            head_channels=8,
            instance_aspp_channels=16,
            instance_decoder_channels=16,
            instance_head_channels=8,
        ),
    ),
    optimizer=OptimizerConfig(learning_rate=0.002, clip_norm=1.0),
    panoptic=PanopticConfig(sigma=2.0, nms_kernel=3, stuff_area_limit=4),
    image_size=(33, 45),
    batch_size=4,
    steps=4,
    batch_norm_momentum=0.8,
    evaluate_every=2,
    checkpoint_every=2,
)
'''
MAPS = ("semantic_logits", "center_heatmap", "offset_map")


def run(*arguments) -> str:
    """What a command that goes well prints."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def place(disc_folder, tmp_path_factory):
    """A folder with records and a run of four steps, made by the commands; don't change it."""
    place = tmp_path_factory.mktemp("place")
    run("data", "build", disc_folder, "--out", place / "records")
    (place / "tiny.py").write_text(CONFIG)
    # Checkpoints of the middle are wanted too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deeplab_tf.training.state._KEEP", 100)
        told = run(
            *("train", "--config", place / "tiny.py", f"data={place / 'records'}"),
            *("--run", place / "run"),
        )
    (place / "told.txt").write_text(told)
    return place


def log_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_records_know_their_things(place):
    stored = json.loads((place / "records" / "dataset.json").read_text())
    assert stored["thing_classes"] == [1] and stored["label_divisor"] == 256
    assert "disc" in run("data", "info", place / "records")


def test_a_run_learns_and_scores_instances(place):
    log = log_of(place / "run")
    assert [entry["step"] for entry in log] == [2, 4]
    for entry in log:
        assert 0 <= entry["pq"] <= 1 and entry["score"] == entry["pq"]
        assert 0 <= entry["mean_iou"] <= 1 and len(entry["class_iou"]) == 3
        assert entry["loss"] == pytest.approx(sum(entry[f"{name}_loss"] for name in MAPS), rel=1e-4)
    assert log[1]["loss"] < log[0]["loss"]
    told = (place / "told.txt").read_text()
    assert re.search(r"step 4: loss [\d.]+, pq [\d.]+", told)
    model = dl.from_preset(place / "run" / "best")
    assert isinstance(model, dl.PanopticDeepLab)
    assert (model.info.thing_classes, model.info.label_divisor) == ((1,), 256)
    assert model.info.merge["nms_kernel"] == 3 and model.info.ignore_label == 255
    assert Image.open(place / "run" / "curves.png").width > 400


def test_a_stopped_run_goes_on_as_if_nothing_had_been(place, tmp_path):
    stopped = tmp_path / "run"
    (stopped / "checkpoints").mkdir(parents=True)
    shutil.copy(place / "run" / "config.json", stopped)
    shutil.copy(place / "run" / "checkpoints" / "step-00000002.npz", stopped / "checkpoints")
    (stopped / "log.jsonl").write_text(json.dumps(log_of(place / "run")[0]) + "\n")
    told = run("train", "--resume", "--run", stopped)
    assert f"resuming {stopped} at step 2 of 4" in told
    assert log_of(stopped) == log_of(place / "run")
    with np.load(place / "run" / "last" / "weights.npz") as whole:
        with np.load(stopped / "last" / "weights.npz") as resumed:
            assert whole.files == resumed.files
            for name in whole.files:
                np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


def test_scores_are_told_and_written(place, tmp_path):
    model, out = place / "run" / "best", tmp_path / "scores"
    told = run("evaluate", "--model", model, "--data", place / "records", "--out", out)
    for words in ("segments of", "PQ", "SQ", "RQ", "found", "missed", "invented", "mean IoU"):
        assert words in told
    assert re.search(r"^all: PQ [\d.]+, SQ [\d.]+, RQ [\d.]+$", told, re.M)
    report = json.loads((out / "report.json").read_text())
    assert set(report["panoptic"]["pq"]) <= {"all", "things", "stuff"}
    assert len(report["panoptic"]["classes"]) == 3 and report["picture_count"] == 4
    assert f"all: PQ {report['panoptic']['pq']['all']:.4f}" in told
    # Seven discs are in the four pictures, whatever the model says.
    disc = report["panoptic"]["classes"][1]
    assert disc["found"] + disc["missed"] == 7
    page = (out / "report.html").read_text()
    assert "segments of" in page and page.count('alt="prediction"') == 4
    rows = [*csv.DictReader((out / "pictures.csv").open())]
    assert [row["name"] for row in rows] == [f"p{i:02d}.png" for i in range(8, 12)]
    assert all(0 <= float(row["pq"]) <= 1 for row in rows)


def test_pictures_of_the_instances_are_written(place, disc_folder, tmp_path):
    model, out = place / "run" / "best", tmp_path / "out"
    pictures = [disc_folder / "images" / f"p{i:02d}.png" for i in (8, 9)]
    told = run("predict", "--model", model, *pictures, "--out", out, "--flip")
    assert "2 pictures done, 0 not" in told
    ends = ("_mask.png", "_overlay.jpg", "_panoptic.json", "_panoptic.png")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{path.stem}{end}" for path in pictures for end in ends
    )
    for path in pictures:
        ids = decode_ids(np.asarray(Image.open(out / f"{path.stem}_panoptic.png")))
        listed = json.loads((out / f"{path.stem}_panoptic.json").read_text())["segments"]
        assert {s["id"]: s["area"] for s in listed} == {
            int(i): int((ids == i).sum()) for i in np.unique(ids) if i
        }
        assert {s["class"] for s in listed} <= {"ground", "disc", "bar"}
        assert ids.shape == (33, 45)
        assert Image.open(out / f"{path.stem}_overlay.jpg").size == (45, 33)
    told = run("predict", "--model", model, pictures[0], "--out", tmp_path / "one")
    assert re.search(r"; \d+ instances?\n", told)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("predict", "{picture}", "--window", "33"), "which windows would cut; leave window out"),
        (("predict", "{picture}", "--crf", "deeplab_v2_resnet_101"), "which the CRF would cut"),
        (
            ("evaluate", "--data", "{semantic}"),
            "its labels tell no instances apart, which the model does",
        ),
    ],
)
def test_what_cannot_be_ends_with_two_and_a_line(
    place, disc_folder, drawn_records, tmp_path, monkeypatch, command, words
):
    monkeypatch.chdir(tmp_path)
    places = {"picture": disc_folder / "images" / "p08.png", "semantic": drawn_records}
    arguments = [part.format(**places) for part in command]
    result = CliRunner().invoke(main, [*arguments, "--model", str(place / "run" / "best")])
    assert result.exit_code == 2, result.output
    assert words in result.stderr and len(result.stderr.splitlines()) == 1
