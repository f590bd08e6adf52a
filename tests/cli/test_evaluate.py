"""`deeplab-tf evaluate` prints a table and warnings, and writes a report when asked."""

import json

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


def test_a_target_that_is_a_file_is_refused_before_the_work(red_lite_files, people, tmp_path):
    out = tmp_path / "scores"
    out.write_text("mine")
    result = run("--model", red_lite_files["int8"], "--data", people, "--out", out)
    assert result.exit_code == 2 and "scores is a file; name a folder" in result.stderr
    assert out.read_text() == "mine" and "IoU" not in result.output


def test_brackets_in_a_path_are_shown_as_they_are(red_lite_files, people):
    odd = people.rename(people.parent / "[red]")
    result = run("--model", red_lite_files["int8"], "--data", odd, "--no-boundary")
    assert "[red]" in result.output.replace("\n", "")


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
