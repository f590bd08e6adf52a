"""Pictures per second and core of the training pipeline, beside a bare decode-and-resize loop.

    python benchmarks/input_pipeline.py RECORDS

RECORDS is a folder that `deeplab-tf data build` wrote. The bare loop reads the same records,
decodes picture and mask and resizes both to the size, and that is all: no shuffling, no windows, no
flips, no colours. Both run on one thread and take turns, so that a busy machine slows them alike;
what counts is the ratio.
"""

import argparse
import statistics
import time

import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.datasets import Augment, pipeline
from deeplab_tf.datasets.tfrecord import find_shards

# How pictures get to the size: as the portrait model has it, and as the official code does.
STYLES = {
    "resized_crop, flip, colour": Augment(style="resized_crop", area=(0.3, 1.0), color=1.0),
    "resized_crop, flip": Augment(style="resized_crop", area=(0.3, 1.0)),
    "scale, pad, crop, flip": Augment(style="crop"),
}


def bare(folder: str, split: str, size: int, batch_size: int) -> tf.data.Dataset:
    """Decode, resize, batch; endless."""
    features = {
        key: tf.io.FixedLenFeature([], tf.string) for key in (keys.RECORD_IMAGE, keys.RECORD_LABEL)
    }

    def finish(record):
        parsed = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(parsed[keys.RECORD_IMAGE], channels=3)
        label = tf.io.decode_png(parsed[keys.RECORD_LABEL], channels=1)
        image = tf.image.resize(image, (size, size))
        return image, tf.image.resize(label, (size, size), method="nearest")

    shards = [str(path) for path in find_shards(folder, split)]
    return tf.data.TFRecordDataset(shards).repeat().map(finish).batch(batch_size)


def one_thread(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    return dataset.with_options(options)


def rate(batches, batch_size: int, seconds: float) -> float:
    """Pictures per second over at least so many seconds."""
    start, pictures = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        pictures += batch_size
    return pictures / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 513])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    print(f"{'size':>5s} {'':30s} {'pictures/s/core':>15s} {'of bare':>8s}")
    for size in options.size:
        loops = {"bare decode and resize": bare(options.records, options.split, size, 16)}
        for name, augment in STYLES.items():
            loops[name] = pipeline(
                options.records,
                options.split,
                image_size=(size, size),
                batch_size=options.batch_size,
                training=True,
                augment=augment,
            )
        running = {name: iter(one_thread(loop)) for name, loop in loops.items()}
        for batches in running.values():  # tracing, and the first shuffle
            next(batches)
        rates: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(options.rounds):
            for name, batches in running.items():
                rates[name].append(rate(batches, options.batch_size, options.seconds))
        base = rates["bare decode and resize"]
        for name, values in rates.items():
            ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
            print(f"{size:5d} {name:30s} {statistics.median(values):15.1f} {ratio:8.2f}")


if __name__ == "__main__":
    main()
