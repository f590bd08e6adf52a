"""The merge of Panoptic-DeepLab beside a plain NumPy version and the authors' PyTorch code.

    python benchmarks/panoptic.py
    git clone https://github.com/bowenc0221/panoptic-deeplab /tmp/panoptic-deeplab
    python benchmarks/panoptic.py --pytorch /tmp/panoptic-deeplab     needs PyTorch, too

All sides start from label map, centre heatmap and offsets of one picture in memory, and end with
the panoptic map. Pictures are drawn: discs as instances over bands of stuff, with noise in heatmap
and offsets. The NumPy version is what the paper says, step by step: the largest value of each
window, the distance of each pixel to each centre (in pieces, so that they fit into memory), and
one pass over the picture for each instance and each class.

Rounds alternate between the sides, so that a slower moment of the machine hits all. Times are
medians, ratios those within a round: ours / theirs. The maps must agree in 99.9 % of the pixels:
where two centres are equally far up to rounding, float32 may choose either.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

GOAL = 0.5
THINGS, DIVISOR, VOID = tuple(range(11, 19)), 1000, 255
THRESHOLD, KERNEL, KEEP, STUFF_AREA = 0.1, 13, 200, 2048


# --- Pictures ---


def draw(height: int, width: int, centers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels int32 [H, W], heatmap float32 [H, W] and offsets float32 [H, W, 2] of a network.

    Discs cover a fourth of the picture, whatever their number.
    """
    random = np.random.default_rng(0)
    y, x = np.indices((height, width), np.float32)
    labels = (y * 8 // height).astype(np.int32)
    heatmap = random.random((height, width), np.float32) * 0.05
    offsets = random.normal(0, 20, (height, width, 2)).astype(np.float32)
    for number in range(centers):
        radius = max(3.0, (0.3 * height * width / centers / np.pi) ** 0.5) * random.uniform(
            0.6, 1.3
        )
        row, column = random.integers(0, height), random.integers(0, width)
        reach = int(max(2 * radius, 30))
        part = np.s_[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
        dy, dx = row - y[part], column - x[part]
        distance = dy * dy + dx * dx
        disc = distance < radius * radius
        labels[part][disc] = THINGS[number % len(THINGS)]
        offsets[part][disc] = np.stack([dy, dx], axis=-1)[disc]
        peak = np.exp(-distance / 128) * np.float32(random.uniform(0.3, 1))
        heatmap[part] = np.maximum(heatmap[part], peak)
    return labels, heatmap, offsets + random.normal(0, 2, offsets.shape).astype(np.float32)


# --- Sides: label map, heatmap, offsets -> panoptic map ---


def merge_plainly(labels, heatmap, offsets) -> np.ndarray:
    """The published rule, step by step."""
    height, width = labels.shape
    thing = np.isin(labels, THINGS)
    heatmap = np.where(heatmap > THRESHOLD, heatmap, 0)
    highest = heatmap
    for axis in (0, 1):
        before = [(0, 0), (0, 0)]
        before[axis] = (KERNEL // 2, KERNEL // 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(highest, before), KERNEL, axis)
        highest = windows.max(axis=-1)
    centers = np.argwhere((heatmap == highest) & (heatmap > 0)).astype(np.float32)
    if len(centers) > KEEP:
        scores = heatmap[(heatmap == highest) & (heatmap > 0)]
        centers = centers[np.sort(np.argsort(-scores, kind="stable")[:KEEP])]
    instances = np.zeros((height, width), np.int32)
    if len(centers):
        rows = max(1, 2**22 // (width * len(centers)))
        for top in range(0, height, rows):
            part = offsets[top : top + rows]
            y, x = np.indices(part.shape[:2], np.float32)
            dy = (y + top + part[..., 0])[None] - centers[:, 0, None, None]
            dx = (x + part[..., 1])[None] - centers[:, 1, None, None]
            instances[top : top + rows] = np.argmin(dy * dy + dx * dx, axis=0) + 1
    instances *= thing
    panoptic = np.full((height, width), VOID * DIVISOR, np.int32)
    seen: dict[int, int] = {}
    values, first = np.unique(instances, return_index=True)
    for instance in values[np.argsort(first)]:
        if instance:
            mask = instances == instance
            winner = int(np.bincount(labels[mask]).argmax())
            seen[winner] = seen.get(winner, 0) + 1
            panoptic[mask] = winner * DIVISOR + seen[winner]
    for label in np.unique(labels):
        if label not in THINGS:
            mask = labels == label
            if mask.sum() >= STUFF_AREA:
                panoptic[mask] = label * DIVISOR
    return panoptic


def ours(labels, heatmap, offsets) -> Callable[[], np.ndarray]:
    import tensorflow as tf

    from deeplab_tf.postprocess.panoptic import merge

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, None, None), tf.int32),
            tf.TensorSpec((1, None, None, 1), tf.float32),
            tf.TensorSpec((1, None, None, 2), tf.float32),
        ]
    )
    def run(labels, heatmap, offsets):
        return merge(labels, heatmap, offsets, _settings())

    inputs = [
        tf.constant(array) for array in (labels[None], heatmap[None, ..., None], offsets[None])
    ]
    return lambda: run(*inputs)["panoptic_label"].numpy()[0]


def ours_numpy(labels, heatmap, offsets) -> Callable[[], np.ndarray]:
    from deeplab_tf.postprocess.panoptic_numpy import merge

    return lambda: merge(labels, heatmap, offsets, _settings())["panoptic_label"]


def plain(labels, heatmap, offsets) -> Callable[[], np.ndarray]:
    return lambda: merge_plainly(labels, heatmap, offsets)


def pytorch(labels, heatmap, offsets) -> Callable[[], np.ndarray]:
    import torch
    from post_processing import get_panoptic_segmentation

    labels = torch.from_numpy(labels[None].astype(np.int64))
    heatmap = torch.from_numpy(heatmap[None, None])
    offsets = torch.from_numpy(np.ascontiguousarray(offsets.transpose(2, 0, 1)[None]))

    def run():
        with torch.no_grad():
            panoptic, _ = get_panoptic_segmentation(
                labels,
                heatmap,
                offsets,
                thing_list=list(THINGS),
                label_divisor=DIVISOR,
                stuff_area=STUFF_AREA,
                void_label=VOID * DIVISOR,
                threshold=THRESHOLD,
                nms_kernel=KERNEL,
                top_k=KEEP,
            )
        return panoptic.numpy()[0]

    return run


def _settings(rule: str = "tensorflow"):
    from deeplab_tf.postprocess.merge_settings import MergeSettings

    return MergeSettings(THINGS, DIVISOR, VOID, THRESHOLD, KERNEL, KEEP, STUFF_AREA, rule)


# --- Side by side ---


def compare_merge(options) -> None:
    """Prints a table of times and ratios for each number of centres."""
    sides = {"ours, Keras": ours, "ours, NumPy": ours_numpy, "plain NumPy": plain}
    if options.pytorch:
        folder = Path(options.pytorch) / "segmentation" / "model"
        if not (folder / "post_processing").is_dir():
            raise SystemExit(f"{options.pytorch} isn't a checkout of the authors' release.")
        # The folder of the module alone: the package around it asks for more libraries.
        sys.path.insert(0, str(folder))
        sides["authors' PyTorch"] = pytorch
    for centers in options.centers:
        inputs = draw(options.height, options.width, centers)
        runs = {name: side(*inputs) for name, side in sides.items()}
        maps = {name: run() for name, run in runs.items()}  # compiles
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        found = len(np.unique(maps["plain NumPy"][np.isin(inputs[0], THINGS)]))
        print(f"{centers} discs, {found} instances found")
        for name in runs:
            print_line(name, times, agreement(maps, name))


def agreement(maps: dict[str, np.ndarray], name: str) -> float:
    """Share of pixels that are as in the plain version; instances by their pixels alone."""
    first, second = maps["plain NumPy"].astype(np.int64), maps[name].astype(np.int64)
    pairs, counts = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1, return_counts=True)
    best: dict[int, int] = {}
    for (value, other), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if value // DIVISOR == other // DIVISOR:
            best[value] = max(best.get(value, 0), count)
    share = sum(best.values()) / first.size
    if share < 0.999:
        raise SystemExit(f"{name}: only {share:.2%} of the pixels are as in the plain version.")
    return share


def print_line(name: str, times: dict[str, list[float]], equal: float) -> None:
    line = f"  {name:18}{statistics.median(times[name]) * 1e3:9.0f} ms   equal in {equal:.3%}"
    for other in times:
        if name.startswith("ours") and not other.startswith("ours"):
            ratio = statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))
            line += f"   {ratio:.2f} of {other}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pytorch", help="folder of the authors' release")
    parser.add_argument("--height", type=int, default=1025)
    parser.add_argument("--width", type=int, default=2049)
    parser.add_argument("--centers", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"{options.width} x {options.height} pixels, {options.rounds} rounds, "
        f"{os.cpu_count()} cores; goal: ours, Keras at most {GOAL} of theirs"
    )
    compare_merge(options)


if __name__ == "__main__":
    main()
