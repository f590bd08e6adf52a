"""The benchmark of the merge compares all its sides in one run."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "panoptic.py"
SMALL = ["--height", "120", "--width", "160", "--centers", "4", "--rounds", "2"]
# Stands in for the authors' code, which has no other libraries here.
RELEASE = """
import numpy as np
def get_panoptic_segmentation(labels, heatmap, offsets, **settings):
    assert heatmap.array.shape == (1, 1, 120, 160) and offsets.array.shape == (1, 2, 120, 160)
    assert settings["void_label"] == 255000 and settings["thing_list"] == list(range(11, 19))
    import panoptic
    plain = panoptic.merge_plainly(
        labels.array[0], heatmap.array[0, 0], offsets.array[0].transpose(1, 2, 0)
    )
    return torch_like(plain[None]), None
class torch_like:
    def __init__(self, array): self.array = array
    def numpy(self): return self.array + SHIFT
"""
TORCH = """
import contextlib
import post_processing
no_grad = contextlib.nullcontext
from_numpy = post_processing.torch_like
"""


def _run(*options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def _release(folder: Path, shift: int) -> dict[str, str]:
    package = folder / "segmentation" / "model" / "post_processing"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(RELEASE.replace("SHIFT", str(shift)))
    (folder / "torch.py").write_text(TORCH)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(SCRIPT.parent)])}


def test_it_prints_times_and_ratios_of_all_sides(tmp_path):
    done = _run("--pytorch", str(tmp_path), *SMALL, **_release(tmp_path, 0))
    assert done.returncode == 0, done.stderr
    head, discs, *sides = done.stdout.splitlines()
    assert head.startswith("160 x 120 pixels, 2 rounds") and discs.startswith("4 discs, ")
    names = ["ours, Keras", "ours, NumPy", "plain NumPy", "authors' PyTorch"]
    assert [line[2:20].strip() for line in sides] == names
    assert all("equal in 100.000%" in line for line in sides)
    for line in sides[:2]:
        assert line.count(" of plain NumPy") == line.count(" of authors' PyTorch") == 1


def test_maps_that_differ_stop_it(tmp_path):
    done = _run("--pytorch", str(tmp_path), *SMALL, **_release(tmp_path, 1000))
    assert done.returncode == 1 and "only 0" in done.stderr


def test_a_folder_without_the_release_is_refused(tmp_path):
    done = _run("--pytorch", str(tmp_path), *SMALL)
    assert done.returncode == 1 and "isn't a checkout" in done.stderr
