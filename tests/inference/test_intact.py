"""A damaged .tflite file is noticed before it can do harm."""

import io
import zipfile

import numpy as np
import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.export.metadata import add_metadata
from deeplab_tf.inference import intact
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.models.info import ModelInfo

INFO = ModelInfo(("nothing", "red"), ((0, 0, 0), (9, 9, 9)), image_size=(24, 32), resize="fit")


@pytest.fixture(scope="module")
def exported(red_lite_files) -> bytes:
    """A file as an export writes it."""
    content = red_lite_files["int8"].read_bytes()
    return add_metadata(content, INFO, INFO.classes, name="red")


@pytest.fixture
def trials(monkeypatch) -> list:
    """What was started as a process of its own."""
    started = []
    run = intact.subprocess.run
    monkeypatch.setattr(intact, "_known_to_run", set())
    monkeypatch.setattr(
        intact.subprocess,
        "run",
        lambda *args, **options: started.append(args) or run(*args, **options),
    )
    return started


def opened(content: bytes, tmp_path) -> LiteRTRunner:
    path = tmp_path / "file.tflite"
    path.write_bytes(content)
    return LiteRTRunner(path)


def test_a_whole_file_of_ours_is_opened_without_a_trial(exported, trials, tmp_path):
    assert opened(exported, tmp_path).info == INFO
    assert trials == []


@pytest.mark.parametrize("seed", range(8))
def test_one_wrong_byte_anywhere_in_the_model_is_noticed(exported, seed, tmp_path):
    # Most such files run, and give other answers.
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        end = min(entry.header_offset for entry in archive.infolist())
    place = int(np.random.default_rng(seed).integers(8, end))
    changed = exported[:place] + bytes([exported[place] ^ 16]) + exported[place + 1 :]
    with pytest.raises(InputError, match="file.tflite is damaged: its content isn't what was exp"):
        opened(changed, tmp_path)


@pytest.mark.parametrize("missing", [1, 100, 400, 700])
def test_a_missing_end_is_noticed(exported, missing, tmp_path):
    # The model itself is whole, but labels and the way to resize pictures would be lost.
    with pytest.raises(InputError, match="file.tflite is damaged: its end, where the labels are"):
        opened(exported[:-missing], tmp_path)


def test_a_wrong_byte_in_the_labels_is_noticed(exported, tmp_path):
    with pytest.raises(InputError, match="its end, where the labels are"):
        opened(exported.replace(b"nothing\nred", b"nothing\nrad"), tmp_path)


def test_a_file_of_others_is_tried_once(red_lite_files, trials, tmp_path):
    content = red_lite_files["probabilities"].read_bytes()
    for _ in range(3):
        opened(content, tmp_path)
    assert len(trials) == 1


@pytest.mark.parametrize("death", ["os.abort()", "os.kill(os.getpid(), 11)"])
def test_a_file_that_takes_the_process_down_is_refused(
    red_lite_files, trials, monkeypatch, death, tmp_path
):
    monkeypatch.setattr(intact, "_TRIAL", f"import os; {death}")
    with pytest.raises(InputError, match="file.tflite is damaged: LiteRT breaks down on it"):
        opened(red_lite_files["int8"].read_bytes(), tmp_path)


def test_the_trial_runs_the_file(red_lite_files, trials, monkeypatch):
    # With an error that Python would swallow turned into a death, a good file still passes.
    monkeypatch.setattr(intact, "_TRIAL", intact._TRIAL.replace("    pass\n", "    sys.exit(9)\n"))
    intact.check_intact(red_lite_files["int8"].read_bytes(), "good")
    with pytest.raises(InputError, match="bad is damaged"):
        intact.check_intact(b"\x1c\x00\x00\x00TFL3" + b"\xff" * 40, "bad")


def test_archives_of_others_are_no_checksums(red_lite_files):
    buffer = io.BytesIO(red_lite_files["int8"].read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("labels.txt", "background\nred\n")
    intact.check_intact(buffer.getvalue(), "others")
