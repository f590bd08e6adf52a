"""The confusion matrix of evaluation beside `keras.metrics.MeanIoU`, in one run.

    python benchmarks/metrics.py [--repeats 20]

Both get the same labels and predicted classes. Rounds alternate, so that a slower moment of the
machine hits both. Keras' metric is timed as it is used in an evaluation loop (`update_state` with
arrays), and with its tensors already made. The counts must be equal, or there is no time to read.
"""

import argparse
import os
import statistics
import time
import tracemalloc

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from deeplab_tf.metrics.mean_iou import ConfusionMatrix

GOAL = 5.0
SIZES = ((513, 513, 21), (1025, 2049, 19))


def draw(height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint8 in areas, some ignored; predictions int64 that mostly agree."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, classes, (-(-height // 32), -(-width // 32)))
    labels = np.kron(coarse, np.ones((32, 32), np.int64))[:height, :width].astype(np.uint8)
    wrong = random.random(labels.shape) < 0.1
    predictions = np.where(wrong, random.integers(0, classes, labels.shape), labels)
    labels[random.random(labels.shape) < 0.02] = 255
    return labels, predictions


def milliseconds(function) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e3


def compare(height: int, width: int, classes: int, repeats: int) -> None:
    labels, predictions = draw(height, width, classes)
    # Keras keeps ignored pixels out only if their value is a class below num_classes, and counts
    # it as a class of the mean otherwise; -1 and 255 fail. So they get weight 0 there.
    weight = (labels != 255).astype(np.float32)
    safe = np.where(labels == 255, 0, labels)
    ours = ConfusionMatrix(classes, 255)
    theirs = keras.metrics.MeanIoU(classes)
    tensors = [keras.ops.convert_to_tensor(array) for array in (safe, predictions, weight)]
    contestants = {
        "ours": lambda: ours.update(labels, predictions),
        "keras, arrays": lambda: theirs.update_state(safe, predictions, weight),
        "keras, tensors": lambda: theirs.update_state(*tensors),
    }
    for function in contestants.values():
        function()
    rows = [{name: milliseconds(f) for name, f in contestants.items()} for _ in range(repeats)]
    counted = keras.ops.convert_to_numpy(theirs.total_cm) / (2 * (repeats + 1))
    np.testing.assert_array_equal(counted, ours.matrix / (repeats + 1))

    print(f"{height}x{width}, {classes} classes, {repeats} rounds; the counts are equal")
    for name in contestants:
        times = [row[name] for row in rows]
        ratios = [row[name] / row["ours"] for row in rows]
        print(
            f"  {name:15} median {statistics.median(times):8.2f} ms"
            f"   ratio to ours: median {statistics.median(ratios):5.1f},"
            f" smallest {min(ratios):5.1f}"
        )
    slower = statistics.median(row["keras, tensors"] / row["ours"] for row in rows)
    print(f"  goal: ratio at least {GOAL:g}: {'met' if slower >= GOAL else 'MISSED'}")
    print("  memory on top of the inputs: " + memory(labels, predictions, classes))


def memory(labels, predictions, classes: int) -> str:
    """The peak over one and over twenty pictures, in words."""
    peaks = []
    for count in (1, 20):
        total = ConfusionMatrix(classes, 255)
        tracemalloc.start()
        for _ in range(count):
            total.update(labels, predictions)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    return f"{peaks[0]:.2f} MB at most for one picture, {peaks[1]:.2f} MB for twenty"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    for size in SIZES:
        compare(*size, repeats)


if __name__ == "__main__":
    main()
