"""The benchmark of axial attention's memory prints a line for each model and size."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "axial_memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_line_has_cost_memory_and_time():
    options = ["--models", "axial_deeplab_s", "--sizes", "65"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    backbone, size, cost, peak, unit, seconds, _ = done.stdout.splitlines()[-1].split()
    assert (backbone, size, unit) == ("axial_deeplab_s", "65", "MB")
    assert float(cost.removesuffix("G")) > 0.5 and float(peak) > 10 and float(seconds) > 0
