"""`deeplab-tf evaluate` prints a table and warnings, and writes a report when asked."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from deeplab_tf.cli import main


@pytest.fixture
def people(tmp_path):
    """Two pictures whose red parts are the foreground, one of which is labelled wrongly."""
    folder = tmp_path / "people"
    for index, name in enumerate(("sup_1", "ccp_1")):
        label = np.zeros((40, 60), np.uint8)
        label[:, 30:] = 255
        image = np.full((40, 60, 3), 30, np.uint8)
        image[:, 30:, 0] = 220
        for part, array in (("images", image), ("masks", label if index else 255 - label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / part / f"{name}.png")
    (folder / "val.txt").write_text("sup_1\nccp_1\n")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_a_table_and_warnings_are_printed(red_lite_files, people):
    result = run("--model", red_lite_files["int8"], "--data", people)
    assert result.exit_code == 0, result.output
    assert "boundary IoU" in result.output and "background" in result.output
    # One picture is labelled as its opposite, so nothing agrees there.
    expected = "foreground IoU, mean over pictures: 0.5000 (ccp 1.0000, sup 0.0000)"
    assert expected in result.output
    assert "warning: only 2 pictures" in result.output


def test_a_report_is_written_when_asked(red_lite_files, people, tmp_path):
    out = tmp_path / "scores"
    result = run("--model", red_lite_files["int8"], "--data", people, "--out", out, "--limit", 1)
    assert result.exit_code == 0 and "report.html" in result.output
    assert json.loads((out / "report.json").read_text())["picture_count"] == 1
    assert (out / "worst.png").is_file()


def test_the_report_says_how_pictures_were_run(red_lite_files, people, tiny_preset, tmp_path):
    lite = red_lite_files["int8"]
    result = run("--model", lite, "--data", people, "--window", "24x32", "--flip")
    assert result.exit_code == 0, result.output
    assert f"{lite}, flipped too, windows of 24x32 on {people}" in result.output
    options = ["--scales", "0.5,1", "--output-stride", 8, "--out", tmp_path / "scores"]
    result = run("--model", tiny_preset, "--data", people, *options)
    assert result.exit_code == 0, result.output
    model = json.loads((tmp_path / "scores" / "report.json").read_text())["model"]
    assert model == f"{tiny_preset}, output stride 8, scales 0.5, 1"


def test_a_window_that_the_model_cannot_have_ends_with_two(red_lite_files, people):
    result = run("--model", red_lite_files["int8"], "--data", people, "--window", 513)
    assert result.exit_code == 2 and "--window 24x32" in result.stderr


def test_a_target_that_is_a_file_is_refused_before_the_work(red_lite_files, people, tmp_path):
    out = tmp_path / "scores"
    out.write_text("mine")
    result = run("--model", red_lite_files["int8"], "--data", people, "--out", out)
    assert result.exit_code == 2 and "scores is a file; name a folder" in result.stderr
    assert out.read_text() == "mine" and "IoU" not in result.output


def test_brackets_in_a_path_are_shown_as_they_are(red_lite_files, people):
    odd = people.rename(people.parent / "[red]")
    result = run("--model", red_lite_files["int8"], "--data", odd, "--no-boundary")
    assert f"on {odd}, val" in result.output


def test_boundary_iou_can_be_left_out(red_lite_files, people):
    result = run("--model", red_lite_files["int8"], "--data", people, "--no-boundary")
    assert "boundary IoU 0" not in result.output and "mean IoU" in result.output


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--data", "nowhere", "nowhere: no such folder"),
        ("--split", "test", "has no split 'test'; it has val"),
        ("--model", "none.tflite", "none.tflite: no such file"),
    ],
)
def test_mistakes_end_with_two_and_a_line(red_lite_files, people, option, value, reason):
    arguments = {"--model": red_lite_files["int8"], "--data": people, option: value}
    result = run(*(part for pair in arguments.items() for part in pair))
    assert result.exit_code == 2 and reason in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def damaged(records, target, change):
    """A copy of records whose only validation shard has been changed."""
    shutil.copytree(records, target)
    (shard,) = target.glob("val-*.tfrecord")
    shard.write_bytes(change(shard.read_bytes()))
    return target, shard


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-3],
        lambda data: data[: len(data) // 3],
        lambda data: data[:400] + bytes([data[400] ^ 255]) + data[401:],
    ],
    ids=["end", "third", "byte"],
)
def test_a_damaged_shard_is_named_and_the_earlier_report_stays(
    red_lite_files, drawn_records, tmp_path, change
):
    records, shard = damaged(drawn_records, tmp_path / "records", change)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "report.json").write_text("old")
    model = three_colours(red_lite_files, tmp_path)
    result = run("--model", model, "--data", records, "--out", tmp_path / "scores")
    assert result.exit_code == 2, result.output
    assert f"error: {shard}: damaged after" in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert (tmp_path / "scores" / "report.json").read_text() == "old"


def test_a_record_that_holds_no_picture_is_an_error_in_words(
    red_lite_files, drawn_records, tmp_path
):
    import tensorflow as tf

    records, shard = damaged(drawn_records, tmp_path / "records", lambda data: data)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        writer.write(b"something else")
    result = run("--model", three_colours(red_lite_files, tmp_path), "--data", records)
    assert result.exit_code == 2, result.output
    assert f"{shard}, record 0: " in result.stderr
    assert "node" not in result.stderr and len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize(("listed", "limit"), [(40, ()), (40, ("--limit", 30)), (5, ())])
def test_fewer_records_than_listed_are_an_error(
    red_lite_files, drawn_records, tmp_path, listed, limit
):
    # Four are there. A shard that is cut off between two records reads without a complaint.
    records = listing(drawn_records, tmp_path / "records", listed)
    model = three_colours(red_lite_files, tmp_path)
    result = run("--model", model, "--data", records, *limit)
    assert result.exit_code == 2
    assert f"records: 4 pictures in 'val', though {listed} are listed" in result.stderr
    assert run("--model", model, "--data", records, "--limit", 4).exit_code == 0


def test_all_records_count_even_if_fewer_are_listed(red_lite_files, drawn_records, tmp_path):
    records = listing(drawn_records, tmp_path / "records", 3)
    result = run("--model", three_colours(red_lite_files, tmp_path), "--data", records)
    assert result.exit_code == 0 and "4 pictures in" in result.output
    assert "note: only 3 pictures are listed, but 4 were found" in result.output


def listing(records, target, count):
    """A copy of records that says to have so many validation pictures."""
    shutil.copytree(records, target)
    content = json.loads((target / "dataset.json").read_text())
    content["splits"]["val"] = count
    (target / "dataset.json").write_text(json.dumps(content))
    return target


def three_colours(red_lite_files, tmp_path):
    """The red-finding file with the names of the drawn records' classes."""
    path = tmp_path / "red.tflite"
    path.write_bytes(red_lite_files["argmax"].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "ground\ndisc\nbar\n")
    return path


def test_other_classes_than_the_models_end_with_two_and_a_line(
    red_lite_files, drawn_records, tmp_path
):
    path = tmp_path / "red.tflite"
    path.write_bytes(red_lite_files["int8"].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "background\nperson\n")
    result = run("--model", path, "--data", drawn_records)
    assert result.exit_code == 2
    assert "2 classes (background, person), the data has 3 (ground, disc, bar)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_trimap_curve_is_told_and_drawn_with_and_without_the_crf(
    red_lite_files, people, tmp_path
):
    # Between two pixels of the model, so that it alone misses the edge.
    for part, value in (("images", 30), ("masks", 0)):
        picture = people / part / "ccp_1.png"
        moved = np.array(Image.open(picture))
        moved[:, 30:33] = value
        Image.fromarray(moved).save(picture)
    out = tmp_path / "scores"
    model = red_lite_files["probabilities"]
    options = ["--crf", "deeplab_v2_resnet_101", "--trimap", "--out", out]
    result = run("--model", model, "--data", people, *options)
    assert result.exit_code == 0, result.output
    assert f"{model}, CRF on {people}" in result.output
    assert "(mean IoU without the CRF " in result.output
    assert "mean IoU near outlines without the CRF: 1 px " in result.output
    report = json.loads((out / "report.json").read_text())
    curve = report["trimap"]
    assert curve["widths"] == list(range(1, 41))
    # One picture is labelled as its opposite. On the other the CRF finds the edge.
    assert curve["mean_iou"][0] == pytest.approx(1 / 3)
    assert curve["without_crf"][0] < 0.3
    assert report["without_crf"] < report["mean_iou"]
    assert Image.open(out / "trimap.png").size[0] > 400
    assert "data:image/png;base64," in (out / "report.html").read_text()


def test_the_curve_needs_no_crf(red_lite_files, people, tmp_path):
    out = tmp_path / "scores"
    result = run("--model", red_lite_files["int8"], "--data", people, "--trimap", "--out", out)
    assert result.exit_code == 0, result.output
    assert "mean IoU near outlines: 1 px " in result.output and "CRF" not in result.output
    report = json.loads((out / "report.json").read_text())
    assert report["trimap"]["without_crf"] == [] and report["without_crf"] is None
