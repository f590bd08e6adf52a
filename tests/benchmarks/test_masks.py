"""The benchmark of mask transformers: its scene, its lines, and what a side answers."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "masks.py"


@pytest.fixture(scope="module")
def masks():
    spec = importlib.util.spec_from_file_location("masks_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_scene_has_twelve_masks_of_things_and_stuff_in_turn(masks):
    picture, label, mask = masks.scene(65)
    assert picture.shape == (65, 65, 3) and np.unique(mask).tolist() == [*range(12)]
    classes = [np.unique(label[mask == i]) for i in range(12)]
    assert all(len(found) == 1 for found in classes)
    assert [bool(found[0] < masks.THINGS) for found in classes] == [False, True] * 6
    assert len({int(found[0]) for found in classes}) == 12 and label.max() < masks.CLASSES


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_side_says_what_it_built_and_what_a_prediction_took():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--worker", "ours", "--size", "65"],
        input="prediction\nprediction\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    # The authors' code counts as many.
    assert built == {"parameters": 72_436_862, "shapes": [1, 17, 17, 128, 1, 128, 134]}
    assert len(answers) == 2
    assert all(answer["seconds"] > 0 and answer["bytes"] > 2**20 for answer in answers)


def test_a_line_has_times_memory_and_the_ratio_within_rounds(masks, capsys):
    rounds = {"ours": [(1.0, 2**20), (3.0, 2**21)], "theirs": [(2.0, 2**22), (4.0, 2**22)]}
    found = {
        name: [{"seconds": seconds, "bytes": taken} for seconds, taken in side]
        for name, side in rounds.items()
    }
    masks._print("prediction", found)
    ours, theirs = capsys.readouterr().out.splitlines()
    assert ours.split() == ["prediction", "ours", "2.00", "s", "2", "MB"]
    assert theirs.split()[-4:] == ["ours", "/", "it:", "0.62"]


def test_times_of_a_step_that_lost_its_way_are_not_printed(masks):
    rounds = [{"seconds": 1.0, "bytes": 0, "result": float("nan")}]
    with pytest.raises(SystemExit, match="ours: the loss isn't finite"):
        masks._print("training step", {"ours": rounds})


def test_the_authors_code_without_detectron2_is_refused():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--peer", "checkout"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--peer needs --detectron2" in done.stderr
