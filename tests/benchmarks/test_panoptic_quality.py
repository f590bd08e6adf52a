"""The benchmark of panoptic quality runs, alone and beside the COCO tool, and compares counts."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "panoptic_quality.py"
SMALL = ["--pictures", "3", "--height", "60", "--width", "80"]
# Stands in for the tool: reads both files, and finds nothing.
TOOL = """
import collections, types
import numpy as np
from PIL import Image
def rgb2id(color): return color[..., 0] + 256 * color[..., 1] + 65536 * color[..., 2]
class PQStat:
    def __init__(self):
        zeros = lambda: types.SimpleNamespace(iou=0.0, tp=0, fp=0, fn=0)
        self.pq_per_cat = collections.defaultdict(zeros)
    def __getitem__(self, key): return self.pq_per_cat[key]
    def __iadd__(self, other): return self
def pq_compute_single_core(number, annotations, truth, prediction, categories):
    for folder, side in ((truth, 0), (prediction, 1)):
        for pair in annotations:
            opened = Image.open(folder + "/" + pair[side]["file_name"])
            ids = rgb2id(np.array(opened, dtype=np.uint32))
            for segment in pair[side]["segments_info"]:
                assert (ids == segment["id"]).sum() == segment["area"] > 0
    return PQStat()
"""


def _run(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *SMALL, *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_scores_drawn_pictures_without_the_tool():
    done = _run()
    assert done.returncode == 0, done.stderr
    title, *scores, files, counting = done.stdout.splitlines()
    assert title.startswith("3 pictures of 80 x 60, ")
    assert [line.split()[0] for line in scores] == ["all", "things", "stuff"]
    assert 0.2 < float(scores[0].split()[2].strip(",")) < 0.95
    assert files.split()[:2] == ["files", "ours"] and counting.split()[:2] == ["counting", "ours"]


def test_counts_that_differ_leave_no_times_to_read(tmp_path):
    (tmp_path / "panopticapi").mkdir()
    (tmp_path / "panopticapi" / "evaluation.py").write_text(TOOL)
    done = _run("--panopticapi", str(tmp_path))
    assert done.returncode == 1
    assert "the counts differ" in done.stderr and "ratio" not in done.stdout
