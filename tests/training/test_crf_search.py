"""The search finds what was planted, scores as `evaluate` does, and goes on where it stopped."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner, softmax
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.crf import CrfParameters, PictureCrf
from deeplab_tf.training import crf_search
from deeplab_tf.training.crf_grid import CrfGrid, write_search
from deeplab_tf.training.crf_search import search_crf
from deeplab_tf.training.evaluate import evaluate

COLORS = np.array([(60, 60, 60), (60, 120, 60), (120, 60, 60)])
# Narrow colours see noise, wide ones no edges; a weak kernel does nothing, a near one too little.
GRID = CrfGrid(w1=(0.01, 4), sigma_alpha=(1, 12), sigma_beta=(1, 20, 600))
PLANTED = (4, 12, 20)
START = CrfParameters(w2=1, sigma_gamma=1, iterations=4)
SMALL = CrfGrid(w1=(2, 4), sigma_alpha=(6, 12), sigma_beta=(20,))


class InDoubt(Runner):
    """Sees each pixel's colour, with much noise of its own; the same for the same picture."""

    def __init__(self, classes=("ground", "green", "red")):
        self.name, self.calls, self.count = "in doubt", 0, len(classes)
        self.info = ModelInfo(tuple(classes), image_size=(32, 32), resize="none")

    def forward(self, batch: np.ndarray) -> np.ndarray:
        self.calls += 1
        return np.stack([self._one(image) for image in batch])

    def _one(self, image: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(zlib.crc32(image.tobytes()))
        apart = np.abs(image[..., None, :].astype(int) - COLORS).sum(-1)
        logits = 1.5 * (apart == apart.min(-1, keepdims=True))
        logits = logits + random.normal(0, 1.5, logits.shape)
        others = np.full((*logits.shape[:-1], self.count - 3), -9.0)
        return softmax(np.concatenate([logits, others], -1))


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Four pictures of slanted stripes in flat colours with some noise, and a cut-out corner."""
    folder = tmp_path_factory.mktemp("stripes")
    y, x = np.indices((24, 32))
    for index in range(4):
        label = ((x + y // (1 + index)) // 5 % 3).astype(np.uint8)
        noise = np.random.default_rng(index).integers(-9, 10, (24, 32, 3))
        image = (COLORS[label] + noise).astype(np.uint8)
        label[:4, :6] = 255
        for part, array in (("images", image), ("masks", label)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / part / f"p{index}.png")
    (folder / "classes.csv").write_text("index,name\n0,ground\n1,green\n2,red\n")
    (folder / "val.txt").write_text("p0\np1\np2\np3\n")
    return folder


def search(data, **options):
    options = {"grid": SMALL, "start": START, "threads": 1, **options}
    return search_crf(options.pop("model", None) or InDoubt(), data, **options)


def plain(found) -> dict:
    """All of a result but how long it took."""
    return {**found.to_json(), "seconds": 0}


def test_it_finds_planted_parameters_that_beat_no_crf(stripes):
    found = search(stripes, grid=GRID, rounds=1)
    (best, score), *others = found.ranking()
    assert best == PLANTED and found.mean_iou == score
    assert found.parameters == CrfParameters(
        w1=4, sigma_alpha=12, sigma_beta=20, w2=1, sigma_gamma=1, iterations=4
    )
    assert score > max(score for _, score in others) + 0.01
    assert score > found.without_crf + 0.1
    assert len(found.scores) == 12 and found.pictures == 4 and found.warnings[0][:3] == "w1 "


def test_scores_are_those_of_evaluate(stripes):
    found = search(stripes, rounds=1)
    alone = evaluate(InDoubt(), stripes)
    assert found.without_crf == alone.mean_iou
    behind = evaluate(load_runner(InDoubt(), crf=found.parameters), stripes)
    assert found.mean_iou == behind.mean_iou > alone.mean_iou


def test_classes_are_matched_behind_the_crf(stripes, tmp_path):
    """The model knows one class more; "green" isn't in the data and counts as background."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for path in (stripes / "masks").iterdir():
        label = np.asarray(Image.open(path))
        other = np.choose(np.minimum(label, 3), [0, 0, 1, 255]).astype(np.uint8)
        Image.fromarray(other).save(tmp_path / "masks" / path.name)
        (tmp_path / "images" / path.name).write_bytes((stripes / "images" / path.name).read_bytes())
    (tmp_path / "classes.csv").write_text("index,name\n0,background\n1,red\n")
    (tmp_path / "val.txt").write_text((stripes / "val.txt").read_text())
    model = InDoubt(("background", "green", "red", "blue"))
    found = search(tmp_path, model=model, rounds=1)
    assert "matched by name" in found.notes[0] and len(found.notes) == 1
    assert found.mean_iou == evaluate(load_runner(model, crf=found.parameters), tmp_path).mean_iou
    with pytest.raises(InputError, match="their names don't match"):
        search(tmp_path, model=InDoubt(("ground", "sky", "car", "blue")))


def test_the_second_round_is_finer_around_the_best(stripes):
    found = search(stripes)
    first, second = found.grids
    assert first == SMALL and second.sigma_beta == (20,)
    best = max((c for c in first.candidates()), key=lambda c: found.scores[c])
    assert second == first.finer(best)
    assert {*found.scores} == {*first.candidates(), *second.candidates()}
    assert found.mean_iou == max(found.scores.values()) >= found.scores[best]


@pytest.fixture
def made(monkeypatch):
    """Lattices that are built and inferences that are run; the latter can be made to fail."""
    made = {"lattices": 0, "inferences": 0, "stop": None}

    class Counted(PictureCrf):
        def __init__(self, *arguments, **options):
            made["lattices"] += 1
            super().__init__(*arguments, **options)

        def infer(self, *arguments):
            made["inferences"] += 1
            if made["inferences"] == made["stop"]:
                raise KeyboardInterrupt
            return super().infer(*arguments)

    monkeypatch.setattr(crf_search, "PictureCrf", Counted)
    return made


def test_the_work_is_shared(stripes, made, monkeypatch):
    model = InDoubt()
    found = search(stripes, model=model)
    assert model.calls == found.pictures
    pairs = [{(a, b) for a in grid.sigma_alpha for b in grid.sigma_beta} for grid in found.grids]
    assert made["lattices"] == sum(map(len, pairs)) * found.pictures
    assert made["inferences"] == len(found.scores) * found.pictures
    monkeypatch.setattr(crf_search, "_KEPT_BYTES", 0)
    again = search(stripes, model=model)
    assert model.calls == 3 * found.pictures and plain(again) == plain(found)


def test_windows_are_run_as_evaluate_runs_them(stripes, tmp_path):
    def windows(overlap: float) -> Runner:
        return load_runner(InDoubt(), window=(16, 16), overlap=overlap)

    options = {"rounds": 1, "partial": tmp_path / "partial"}
    found = search(stripes, model=windows(0.5), **options)
    assert found.without_crf == evaluate(windows(0.5), stripes).mean_iou
    with pytest.raises(InputError, match="its overlap is 0.5, not 0.25"):
        search(stripes, model=windows(0.25), **options)


@pytest.mark.parametrize("free", [0, 10**6, 10**12, np.inf])
def test_threads_and_memory_change_nothing(stripes, monkeypatch, free):
    expected = plain(search(stripes, rounds=1))
    monkeypatch.setattr(crf_search, "free_memory", lambda: free)
    assert plain(search(stripes, rounds=1, threads=3)) == expected


# Among 16 of the first round and 96 of the second: before a picture is done, in the middle of each.
@pytest.mark.parametrize("stops", [(2,), (11,), (30, 31), (6, 20, 70)])
def test_it_goes_on_where_it_stopped_to_the_same_bits(stripes, tmp_path, made, stops):
    model = InDoubt(("Ground", "moss", "rose"))
    expected = plain(search(stripes, model=model))
    assert len(expected["notes"]) == 1
    partial, lines = tmp_path / "partial", []
    for stop in stops:
        made.update(inferences=0, stop=stop)
        with pytest.raises(KeyboardInterrupt):
            search(stripes, model=model, partial=partial)
    assert partial.exists() == (stops != (2,))
    made.update(inferences=0, stop=None)
    found = search(stripes, model=model, partial=partial, say=lines.append)
    assert plain(found) == expected
    assert any("were done before" in line for line in lines) == (stops != (2,))
    assert made["inferences"] < len(found.scores) * found.pictures or stops == (2,)
    # All is done now; only the result was lost.
    made.update(inferences=0)
    assert plain(search(stripes, model=model, partial=partial)) == expected
    assert not made["inferences"]
    assert [path.name for path in tmp_path.iterdir()] == ["partial"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"grid": GRID}, "its w1 is 2,4, not 0.01,4"),
        ({"limit": 3}, "its pictures is 4, not 3"),
        ({"rounds": 2}, "its rounds is 1, not 2"),
        ({"start": CrfParameters(w2=2, iterations=4)}, "its w2 is 1.0, not 2.0"),
    ],
)
def test_the_file_of_another_search_is_refused(stripes, tmp_path, change, reason):
    partial = tmp_path / "crf.json.partial"
    search(stripes, rounds=1, partial=partial)
    before = partial.read_bytes()
    with pytest.raises(InputError, match=f"is of another search: {reason}.* to start anew"):
        search(stripes, **{"rounds": 1, "partial": partial, **change})
    assert partial.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{}", "cut", "other"])
def test_a_broken_file_is_refused(stripes, tmp_path, content):
    partial = tmp_path / "partial"
    search(stripes, rounds=1, partial=partial)
    if content == "cut":
        content = partial.read_bytes()[:-40]
    if content == "other":
        np.savez(tmp_path / "x.npz", header=np.array("[]"))
        content = (tmp_path / "x.npz").read_bytes()
    partial.write_bytes(content)
    with pytest.raises(InputError, match="isn't what an interrupted search leaves"):
        search(stripes, partial=partial)


def test_the_cost_is_said_before_the_work(stripes, monkeypatch):
    lines: list[str] = []
    clock = iter(range(0, 10**6, 600))
    monkeypatch.setattr(crf_search.time, "perf_counter", lambda: next(clock))
    search(stripes, say=lines.append)
    assert lines[0] == "round 1: w1 2,4, sigma_alpha 6,12, sigma_beta 20"
    assert lines[1].endswith(
        "2 x 2 x 1 values, 4 new candidates x 4 pictures: the CRF runs 16 times"
    )
    assert lines[2].endswith("about 1 h 0 min more for this round, by its first picture")


def test_without_options_it_is_the_search_of_the_paper():
    grid = CrfGrid()
    assert (grid.w1[0], grid.w1[-1], len(grid.candidates())) == (5, 10, 6 * 6 * 8)
    assert grid.sigma_alpha == (50, 60, 70, 80, 90, 100) and grid.sigma_beta == (*range(3, 11),)
    start = crf_search.START
    assert (start.w2, start.sigma_gamma, start.iterations) == (3, 3, 10)


@pytest.mark.parametrize(
    ("values", "best", "expected"),
    [
        ((5, 6, 8), 6, (5.5, 5.75, 6, 6.5, 7)),
        ((5, 6, 8), 5, (4, 4.5, 5, 5.25, 5.5)),
        ((5, 6, 8), 8, (7, 7.5, 8, 9, 10)),
        ((1, 4), 1, (1, 1.75, 2.5)),
        ((0.1, 0.4), 0.4, (0.25, 0.325, 0.4, 0.55, 0.7)),
        ((7,), 7, (7,)),
    ],
)
def test_finer_values_lie_around_the_best(values, best, expected):
    grid = CrfGrid(w1=values, sigma_alpha=(50,), sigma_beta=(3,))
    finer = grid.finer((best, 50, 3))
    assert finer.w1 == expected and best in finer.w1
    assert (finer.sigma_alpha, finer.sigma_beta) == ((50,), (3,))


def test_values_are_sorted_and_each_is_tried_once():
    assert CrfGrid(w1=(6, 5, 6)).w1 == (5, 6)


@pytest.mark.parametrize("values", [(), (0,), (5, -1), (float("nan"),), (float("inf"),)])
def test_values_are_numbers_above_zero(values):
    with pytest.raises(InputError, match="sigma_beta to try are numbers above 0; got"):
        CrfGrid(sigma_beta=values)


def test_a_best_value_on_the_border_is_told(stripes):
    inside = search(stripes, grid=CrfGrid((4,), (12,), (1, 20, 600)), rounds=1)
    assert inside.warnings == ()
    (warning,) = search(stripes, grid=CrfGrid((4,), (12,), (20, 600)), rounds=1).warnings
    assert warning.startswith("sigma_beta = 20 is the smallest that was tried")
    (warning,) = search(stripes, grid=CrfGrid((0.01, 4), (12,), (20,)), rounds=1).warnings
    assert warning.startswith("w1 = 4 is the largest that was tried")


def test_a_crf_that_does_not_help_is_told(stripes):
    start = CrfParameters(w2=50, sigma_gamma=50, iterations=5)
    found = search(stripes, grid=CrfGrid((0.01,), (1,), (1,)), start=start)
    assert found.warnings == ("no candidate is better than the model without a CRF.",)
    assert len(found.grids) == 1  # there is nothing finer than one value of each


def test_it_is_written_as_json_and_as_a_picture(stripes, tmp_path):
    found = search(stripes)
    picture = write_search(found, tmp_path / "made" / "crf.json")
    value = json.loads((tmp_path / "made" / "crf.json").read_text())
    assert CrfParameters.from_dict(value["parameters"]) == found.parameters
    assert (value["mean_iou"], value["without_crf"]) == (found.mean_iou, found.without_crf)
    assert (value["model"], value["data"], value["split"]) == ("in doubt", str(stripes), "val")
    scores = {
        (c["w1"], c["sigma_alpha"], c["sigma_beta"]): c["mean_iou"] for c in value["candidates"]
    }
    assert scores == found.scores and value["pictures"] == 4 and value["seconds"] > 0
    assert [each["sigma_alpha"] for each in value["rounds"]][0] == [6, 12]
    assert picture == tmp_path / "made" / "crf.png"
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_mistakes_are_named(stripes, tmp_path, monkeypatch):
    for name in ("rounds", "limit", "threads"):
        with pytest.raises(InputError, match=f"{name} is at least 1; got 0"):
            search(stripes, **{name: 0})
    with pytest.raises(InputError, match="no split 'tset'; it has val"):
        search(stripes, split="tset")
    with pytest.raises(InputError, match="in doubt, CRF has a CRF already"):
        search(stripes, model=load_runner(InDoubt(), crf=START))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "deeplab_tf.postprocess.lattice_loops", raising=False)
    with pytest.raises(InputError, match=r'pip install "deeplab-tf\[crf\]"'):
        search(stripes)


def test_a_label_outside_the_classes_is_named(stripes, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "p0.png").write_bytes((stripes / part / "p0.png").read_bytes())
    label = np.asarray(Image.open(tmp_path / "masks" / "p0.png")).copy()
    label[9, 9] = 7
    Image.fromarray(label).save(tmp_path / "masks" / "p0.png")
    (tmp_path / "classes.csv").write_text((stripes / "classes.csv").read_text())
    (tmp_path / "val.txt").write_text("p0\n")
    with pytest.raises(InputError, match="the label of p0.png has values outside 0..2"):
        search(tmp_path)


def test_importing_it_loads_no_tensorflow():
    code = "import deeplab_tf.training.crf_search, sys; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
