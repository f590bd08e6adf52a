"""Panoptic quality of 500 pictures beside the official COCO tool, `panopticapi`, in one run.

    git clone https://github.com/cocodataset/panopticapi /tmp/panopticapi
    python benchmarks/panoptic_quality.py --panopticapi /tmp/panopticapi

Pictures are drawn: areas with curved outlines, their predictions moved, some split, of a wrong
class or missing, with void and crowds. Two figures for each side, on one process: from the PNG
files and their lists of segments on, which is what both tools start with; and counting alone, with
label maps in memory. The sides take turns block by block, so that a slower moment of the machine
hits both. The scores must be equal, or there is no time to read. Without --panopticapi ours runs
alone.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from deeplab_tf.metrics.panoptic_quality import PanopticQuality
from deeplab_tf.panoptic_format import Coding, Segment, read_ids, to_panoptic

GOAL = 1.0
# As COCO's: class 0 is void, then things, then stuff.
CLASSES, THINGS, DIVISOR = 134, tuple(range(1, 81)), 256
CODING = Coding(tuple(range(CLASSES)), THINGS, DIVISOR, ignore_label=0)
BLOCK = 25


# --- Pictures ---


def draw(folder: Path, count: int, height: int, width: int) -> list[tuple[dict, dict]]:
    """Writes truth and prediction of each picture; returns their lists of segments, as in COCO."""
    random, annotations = np.random.default_rng(0), []
    for number in range(count):
        areas = int(random.integers(10, 21))
        seeds = random.random((areas, 2)) * (height, width)
        phase = random.random(2) * 6
        classes = random.integers(1, CLASSES, areas)
        truth = _annotate(random, classes, _areas(seeds, phase, height, width), crowds=0.1)
        # Every area's centre moves; some are of another class, or two where there was one.
        moved = seeds + random.normal(0, height / 80, seeds.shape)
        guess = np.where(random.random(areas) < 0.15, random.integers(1, CLASSES, areas), classes)
        split = random.integers(0, areas, 2)
        moved = np.concatenate([moved, moved[split] + random.normal(0, height / 16, (2, 2))])
        guess = np.concatenate([guess, guess[split]])
        found = _annotate(random, guess, _areas(moved, phase + 0.1, height, width), crowds=0)
        pair = []
        for side, (ids, segments) in (("truth", truth), ("prediction", found)):
            name = f"{side}-{number:05}.png"
            rgb = np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1)
            Image.fromarray(rgb.astype(np.uint8)).save(folder / name)
            pair.append({"file_name": name, "image_id": number, "segments_info": segments})
        annotations.append((pair[0], pair[1]))
    return annotations


def _areas(seeds: np.ndarray, phase: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel's nearest seed, on a bent grid: int64 [H, W]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y + 8 * np.sin(x / 23 + phase[0]), x + 8 * np.sin(y / 17 + phase[1])
    result, best = np.zeros((height, width), np.int64), np.full((height, width), np.inf)
    for place, (row, column) in enumerate(seeds.astype(np.float32)):
        distance = (y - row) ** 2 + (x - column) ** 2
        nearer = distance < best
        result[nearer], best[nearer] = place, distance[nearer]
    return result


def _annotate(random, classes, areas: np.ndarray, crowds: float) -> tuple[np.ndarray, list[dict]]:
    """Ids [H, W] of a picture's segments, and what COCO tells of each. An area in ten is void."""
    ids, segments, by_key = np.zeros(len(classes), np.int64), {}, {}
    pixels = np.bincount(areas.ravel(), minlength=len(classes))
    for place, class_ in enumerate(classes.tolist()):
        if random.random() < 0.1 or not pixels[place]:
            continue
        crowd = class_ in THINGS and random.random() < crowds
        # Stuff, and the crowd of a class, is one segment whatever its parts.
        key = (class_, crowd, place if class_ in THINGS and not crowd else None)
        ids[place] = by_key.setdefault(key, int(random.integers(1, 2**24)))
        segment = {"id": int(ids[place]), "category_id": class_, "iscrowd": int(crowd), "area": 0}
        segments.setdefault(key, segment)["area"] += int(pixels[place])
    return ids[areas], list(segments.values())


# --- One side, ours ---


def read_labels(folder: Path, annotation: dict) -> np.ndarray:
    return to_labels(read_ids(folder / annotation["file_name"]), annotation["segments_info"])


def to_labels(ids: np.ndarray, segments: list[dict]) -> np.ndarray:
    """Panoptic labels, int32 [H, W]."""
    known = [
        Segment(segment["id"], segment["category_id"], is_crowd=bool(segment["iscrowd"]))
        for segment in segments
    ]
    return to_panoptic(ids, known, CODING).panoptic


def new_total() -> PanopticQuality:
    return PanopticQuality(CLASSES, THINGS, DIVISOR, 0, crowd="ignore")


# --- Side by side ---


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def load_reference(checkout: str | None):
    if checkout is None:
        return None
    sys.path.insert(0, checkout)
    from panopticapi import evaluation

    return evaluation


def measure(folder: Path, annotations: list, evaluation) -> None:
    """Counts all pictures in every way, and prints times and ratios."""
    ours, again, theirs = new_total(), new_total(), evaluation and evaluation.PQStat()
    categories = {c: {"id": c, "isthing": int(c in THINGS)} for c in range(1, CLASSES)}
    rows: list[dict[str, float]] = []
    for start in range(0, len(annotations), BLOCK):
        block = annotations[start : start + BLOCK]
        ids = {a["file_name"]: read_ids(folder / a["file_name"]) for pair in block for a in pair}
        labels = [
            tuple(to_labels(ids[a["file_name"]], a["segments_info"]) for a in pair)
            for pair in block
        ]

        def files(block=block):
            for true, found in block:
                ours.update(read_labels(folder, true), read_labels(folder, found))

        def counting(labels=labels):
            for pair in labels:
                again.update(*pair)

        row = {"ours, files": seconds(files), "ours, counting": seconds(counting)}
        if evaluation:

            def count(total, block=block):
                with contextlib.redirect_stdout(io.StringIO()):
                    place = str(folder)
                    total += evaluation.pq_compute_single_core(0, block, place, place, categories)

            row["panopticapi, files"] = seconds(lambda count=count: count(theirs))
            with in_memory(evaluation, ids):
                row["panopticapi, counting"] = seconds(
                    lambda count=count: count(evaluation.PQStat())
                )
        rows.append(row)
    for name in ("iou_sum", "tp", "fn", "fp"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(again, name))
    if evaluation:
        check_equal(ours, theirs, categories)
    report(ours, rows)


@contextlib.contextmanager
def in_memory(evaluation, ids: dict[str, np.ndarray]):
    """Lets panopticapi find ids in memory where it opens a file and adds up its colours."""
    maps = {name: value.astype(np.uint32) for name, value in ids.items()}
    kept = evaluation.Image, evaluation.rgb2id
    evaluation.Image = SimpleNamespace(open=lambda path: maps[Path(path).name])
    evaluation.rgb2id = lambda value: value
    try:
        yield
    finally:
        evaluation.Image, evaluation.rgb2id = kept


def check_equal(ours: PanopticQuality, theirs, categories: dict) -> None:
    """Counts are equal, and IoUs up to the order in which they are summed."""
    for class_ in categories:
        counted = theirs[class_]
        mine = [int(counts[class_]) for counts in (ours.tp, ours.fn, ours.fp)]
        if mine != [counted.tp, counted.fn, counted.fp]:
            raise SystemExit(f"class {class_}: the counts differ: {mine}, {vars(counted)}")
        np.testing.assert_allclose(ours.iou_sum[class_], counted.iou, rtol=1e-12)
    for quality, things in ((ours.all, None), (ours.things, True), (ours.stuff, False)):
        mean = theirs.pq_average(categories, isthing=things)[0]
        np.testing.assert_allclose(quality, [mean[k] for k in ("pq", "sq", "rq", "n")], rtol=1e-12)


def report(ours: PanopticQuality, rows: list[dict[str, float]]) -> None:
    compared = len(rows[0]) > 2
    for name, quality in (("all", ours.all), ("things", ours.things), ("stuff", ours.stuff)):
        print(f"{name:7} PQ {quality.pq:.4f}, SQ {quality.sq:.4f}, RQ {quality.rq:.4f}")
    if compared:
        print("the counts of every class are equal")
    for what in ("files", "counting"):
        mine = [row[f"ours, {what}"] for row in rows]
        print(f"{what:9} ours {sum(mine):6.2f} s", end="")
        if compared:
            its = [row[f"panopticapi, {what}"] for row in rows]
            ratios = [a / b for a, b in zip(mine, its, strict=True)]
            ratio = sum(mine) / sum(its)
            print(
                f"   panopticapi {sum(its):6.2f} s   ratio {ratio:.2f}, of the blocks"
                f" median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}"
                f"   goal: at most {GOAL:g}: {'met' if ratio <= GOAL else 'MISSED'}",
                end="",
            )
        print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--panopticapi", metavar="FOLDER", help="a checkout of it")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    options = parser.parse_args()
    evaluation = load_reference(options.panopticapi)
    with tempfile.TemporaryDirectory() as folder:
        annotations = draw(Path(folder), options.pictures, options.height, options.width)
        segments = sum(len(true["segments_info"]) for true, _ in annotations) / len(annotations)
        print(
            f"{options.pictures} pictures of {options.width} x {options.height}, "
            f"{segments:.1f} true segments each; one process"
        )
        measure(Path(folder), annotations, evaluation)


if __name__ == "__main__":
    main()
