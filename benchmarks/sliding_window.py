"""How much memory a large picture takes beyond the model when it is seen through windows.

    python benchmarks/sliding_window.py
    python benchmarks/sliding_window.py --side 5000 --classes 151 --overlap 0.5

A narrow MobileNet-v2 with random weights segments a drawn JPEG. Each stage's peak of resident
memory is read anew (Linux: /proc), less what the process held with the model loaded and one
window done. Whole, the probabilities alone of 100 megapixels and 21 classes would be 8.4 GB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import resident_memory

DRAW = """
import sys
import numpy as np
from PIL import Image
side = int(sys.argv[1])
ramp = np.linspace(0, 255, side, dtype=np.uint8)
image = np.empty((side, side, 3), np.uint8)
image[..., 0], image[..., 1], image[..., 2] = ramp, ramp[:, None], ramp[::-1] // 2
image[(np.indices((side, side), np.uint16) // 64).sum(0) % 5 == 0] = 30
Image.fromarray(image).save(sys.argv[2], quality=90)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_000, help="of the picture, in pixels")
    parser.add_argument("--window", type=int, default=513)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--classes", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        # In a process of its own, which takes its memory with it.
        subprocess.run([sys.executable, "-c", DRAW, str(options.side), picture], check=True)
        _measure(picture, Path(folder) / "results", options)
    return 0


def _measure(picture: Path, results: Path, options: argparse.Namespace) -> None:
    import deeplab_tf as dl
    from deeplab_tf import pictures
    from deeplab_tf.inference.runner import load_runner

    model = dl.DeepLabV3(options.classes, depth_multiplier=0.5, atrous_rates=())
    window = (options.window, options.window)
    runner = load_runner(model, window=window, overlap=options.overlap)
    small = np.zeros((*window, 3), np.uint8)
    for _ in range(12):  # it is compiled after some
        runner.scores(small)
    held = resident_memory.read("VmRSS")
    print(
        f"{options.side} x {options.side} pixels, windows of {window[0]}, {options.classes} classes"
    )
    print(f"{'stage':14s} {'peak MB beyond the model':>24s} {'seconds':>8s}")
    image = _stage("read", held, lambda: pictures.read_image(picture))
    result = _stage("segment", held, lambda: dl.segment(runner, image))
    for what in ("mask", "overlay", "cutout", "blur"):
        _stage(f"save {what}", held, lambda what=what: result.save(results, what))


def _stage(name: str, held: int, work):
    """Runs one stage and prints its peak."""
    resident_memory.forget_peak()
    before = time.perf_counter()
    value = work()
    seconds = time.perf_counter() - before
    print(
        f"{name:14s} {(resident_memory.read('VmHWM') - held) / 1e6:24.0f} {seconds:8.1f}",
        flush=True,
    )
    return value


if __name__ == "__main__":
    sys.exit(main())
