"""The benchmark of the CRF runs each side in a process of its own, and compares them."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "crf.py"
SMALL = ["--height", "30", "--width", "40", "--classes", "3", "--iterations", "2"]
# Stands in for the C++ code: leaves the probabilities as they are.
BINDING = """
import numpy as np
class DenseCRF2D:
    def __init__(self, width, height, classes): self.shape = (classes, width * height)
    def setUnaryEnergy(self, unary): self.unary = unary
    def addPairwiseGaussian(self, sxy, compat): assert (sxy, compat) in ((3, 3), (1, 3))
    def addPairwiseBilateral(self, sxy, srgb, rgbim, compat):
        assert (sxy, srgb, compat) in ((49, 5, 4), (67, 3, 4)) and rgbim.dtype == np.uint8
    def inference(self, iterations):
        assert self.unary.shape == self.shape
        return np.exp(-self.unary)
"""
UTILS = """
import numpy as np
def unary_from_softmax(softmax): return -np.log(softmax).reshape(len(softmax), -1)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _run(*options: str, **keywords) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, **keywords
    )


def test_it_compares_both_sides_for_both_sets(tmp_path, monkeypatch):
    (tmp_path / "pydensecrf").mkdir()
    (tmp_path / "pydensecrf" / "densecrf.py").write_text(BINDING)
    (tmp_path / "pydensecrf" / "utils.py").write_text(UTILS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = _run("--reference-python", sys.executable, "--rounds", "1", *SMALL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("40 x 30 pixels, 3 classes, 2 iterations")
    for number, name in enumerate(("deeplab_v1_large_fov", "deeplab_v2_resnet_101")):
        head, *sides = lines[2 + 4 * number : 6 + 4 * number]
        assert head.startswith(f"{name}: Q differs by at most")
        assert float(head.partition("most ")[2].split(",")[0]) > 0.01
        for title, line in zip(
            ("reference", "ours, 1 thread", "ours, 2 threads"), sides, strict=True
        ):
            assert line.startswith(f"  {title}") and len(line[24:].split()) == 5
        assert sides[0].split()[-2:] == ["1.00", "1.00"]


def test_a_large_picture_is_measured_alone():
    done = _run("--large", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 and "GB beyond the picture" in done.stdout


def test_it_asks_for_the_reference():
    done = _run(*SMALL)
    assert done.returncode == 2 and "--reference-python" in done.stderr
