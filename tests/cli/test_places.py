"""A place that can't be written is refused before the work, with one line."""

import os
import tempfile

import pytest
from click.testing import CliRunner

from deeplab_tf.cli import main
from deeplab_tf.cli.places import check_place
from deeplab_tf.errors import InputError


def test_places_that_can_be_written_are_left_as_they_are(tmp_path):
    check_place(tmp_path)
    check_place(tmp_path / "new")
    check_place(tmp_path / "some" / "way" / "down.tflite")
    assert list(tmp_path.iterdir()) == []


def test_relative_places_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_place("scores")
    check_place("a/b/c")
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file, not a folder. Choose another place"):
        check_place(tmp_path / "file" / "scores")


def test_what_the_system_says_is_passed_on(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"nothing can be written in .*\(Read-only file system\)"):
        check_place(tmp_path / "scores")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a place that takes no files")
@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "convert"])
def test_commands_ask_before_the_work(command, tiny_preset, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    arguments = {
        "predict": [tmp_path / "photo.png", "--out", "/proc/deeplab"],
        "evaluate": ["--model", tiny_preset, "--data", tmp_path, "--out", "/proc/deeplab"],
        "export": ["--model", tiny_preset, "--out", "/proc/deeplab/a.tflite"],
        "convert": [tmp_path, "--model", tiny_preset, "--out", "/proc/deeplab/preset"],
    }[command]
    result = CliRunner().invoke(main, [command, *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert "nothing can be written in /proc" in result.stderr
    assert len(result.stderr.splitlines()) == 1
