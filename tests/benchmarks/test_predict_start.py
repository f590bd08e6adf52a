"""The benchmark of `predict`'s start runs, and fails when what it times fails."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "predict_start.py"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments), "--rounds", "1"]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_prints_seconds_and_ratios(red_lite_files):
    done = run(red_lite_files["int8"])
    assert done.returncode == 0, done.stderr
    head, bare, predict = done.stdout.splitlines()
    assert head.split() == ["median", "s", "best", "s", "ratio"]
    assert bare.startswith("import numpy, PIL ") and bare.endswith(" 1.0")
    assert predict.startswith("predict --tflite ") and float(predict.split()[-1]) > 0


def test_a_failure_of_what_it_times_is_its_own(tmp_path):
    done = run(tmp_path / "none.tflite")
    assert done.returncode == 1 and "predict --tflite: exit code 2" in done.stderr
