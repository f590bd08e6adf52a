"""Timing, and reading files that may not be models."""

import os
import subprocess
import sys

import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.export.benchmark import LiteModel, median_ms, noise
from deeplab_tf.export.lite_file import read_lite_file
from deeplab_tf.export.quiet import quiet


def test_the_median_is_over_at_least_five_calls_and_at_most_the_limit():
    calls = []
    assert median_ms(lambda: calls.append(1), seconds=0) >= 0
    assert len(calls) == 2 + 5
    calls.clear()
    median_ms(lambda: calls.append(1), seconds=60, most=9)
    assert len(calls) == 2 + 9


def test_noise_is_the_same_each_time():
    assert (noise((4, 6)) == noise((4, 6))).all() and noise((4, 6)).shape == (4, 6, 3)


@pytest.mark.parametrize("read", [read_lite_file, LiteModel])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"hello", "isn't a TFLite model"), (b"\x1c\0\0\0TFL3" + b"\xff" * 64, "isn't a TFLite")],
)
def test_a_file_that_is_no_model_is_named(read, content, reason, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read(path)


@pytest.mark.parametrize("read", [read_lite_file, LiteModel])
def test_a_missing_file_and_a_folder_are_named(read, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.tflite")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_quiet_holds_back_what_other_processes_and_native_code_print(capfd):
    with quiet() as printed:
        print("from Python", flush=True)
        os.write(1, b"from below\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    print("after")
    assert "from below" in printed.text and "from a child" in printed.text
    assert capfd.readouterr() == ("after\n", "")


def test_quiet_lets_errors_through_and_gives_the_streams_back(capfd):
    with pytest.raises(KeyError), quiet():
        raise KeyError("x")
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_timing_a_file_needs_no_tensorflow():
    code = (
        "import sys, deeplab_tf.cli.bench\n"
        "import deeplab_tf.export.benchmark, deeplab_tf.export.metadata\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
