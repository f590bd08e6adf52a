"""Golden cases on the other backends of Keras, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# JAX comes with the tests' requirements; PyTorch, a gigabyte, joins in where it is installed.
BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
CASES = (
    "mobilenet_v2_dm05_voc or mobilenet_v3_small_seg_os16_even or decoder_sum_merge or "
    "deeplabv3plus_mobilenet_os16"
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_official_numbers_come_out(backend):
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + ["tests/golden/test_golden.py", "-k", CASES],
        cwd=root,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout
