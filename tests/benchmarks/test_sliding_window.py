"""The benchmark of large pictures runs, and prints a peak for every stage."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sliding_window.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_prints_a_peak_for_every_stage():
    options = ["--side", "200", "--window", "65", "--classes", "3"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    title, head, *stages = done.stdout.splitlines()
    assert title == "200 x 200 pixels, windows of 65, 3 classes"
    assert head.split() == ["stage", "peak", "MB", "beyond", "the", "model", "seconds"]
    assert [line[:14].strip() for line in stages] == [
        "read",
        "segment",
        *(f"save {what}" for what in ("mask", "overlay", "cutout", "blur")),
    ]
    for line in stages:
        peak, seconds = map(float, line[14:].split())
        assert peak < 2000 and seconds >= 0
