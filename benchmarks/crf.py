"""The fully connected CRF beside the authors' C++ code, through its Python binding.

    python -m venv /tmp/reference
    /tmp/reference/bin/pip install pydensecrf2          builds it: needs a C++ compiler
    python benchmarks/crf.py --reference-python /tmp/reference/bin/python
    python benchmarks/crf.py --large                    4000 x 3000 pixels, ours alone

`pip install "deeplab-tf[crf]"` first. Both sides start from a picture and its probabilities and
end with Q: unaries, lattices and mean field are all counted, compiling isn't. The picture is drawn
in flat colours with noise of 10 levels either way, which makes more vertices than most photos.

Each side is a process of its own. Rounds alternate between the two, so that a slower moment of the
machine hits both; times are medians, ratios those within a round. The C++ code runs on one thread.
Memory is the peak of resident memory during a run, less what the process held before, picture and
probabilities included (Linux).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import resident_memory

# By the names of `deeplab_tf.postprocess.crf.CRF_PRESETS`, for a process that has no deeplab_tf.
SETS = {
    "deeplab_v1_large_fov": dict(w1=4, sigma_alpha=49, sigma_beta=5, w2=3, sigma_gamma=3),
    "deeplab_v2_resnet_101": dict(w1=4, sigma_alpha=67, sigma_beta=3, w2=3, sigma_gamma=1),
}


def draw(height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 [H, W, 3], and a weak network's answer, float32 [H, W, C]."""
    random = np.random.default_rng(0)
    y, x = np.arange(height)[:, None], np.arange(width)
    labels = (x * 8 // width + y * 7 // height) % classes
    image = random.integers(20, 236, (classes, 3)).astype(np.uint8)[labels]
    image += random.integers(-10, 11, image.shape, np.int8).view(np.uint8)
    probabilities = np.empty((height, width, classes), np.float32)
    for row in range(height):
        part = random.random((width, classes), np.float32) * 2
        part[np.arange(width), labels[row]] += 1
        np.exp(part, out=part)
        probabilities[row] = part / part.sum(axis=1, keepdims=True)
    return image, probabilities


# --- One side, in a process of its own ---


def infer_ours(image, probabilities, name: str, iterations: int, threads: int) -> np.ndarray:
    import dataclasses

    from deeplab_tf.postprocess.crf import CRF_PRESETS, dense_crf

    parameters = dataclasses.replace(CRF_PRESETS[name], iterations=iterations)
    return dense_crf(image, probabilities=probabilities, parameters=parameters, threads=threads)


def infer_reference(image, probabilities, name: str, iterations: int, threads: int) -> np.ndarray:
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    height, width, classes = probabilities.shape
    values = SETS[name]
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(np.ascontiguousarray(probabilities.transpose(2, 0, 1))))
    crf.addPairwiseGaussian(sxy=values["sigma_gamma"], compat=values["w2"])
    crf.addPairwiseBilateral(
        sxy=values["sigma_alpha"], srgb=values["sigma_beta"], rgbim=image, compat=values["w1"]
    )
    q = np.asarray(crf.inference(iterations))
    return q.reshape(classes, height, width).transpose(1, 2, 0)


INFER = {"ours": infer_ours, "reference": infer_reference}


def serve(side: str, options) -> None:
    """Answers each line of standard input, [set, threads], with a run's seconds and peak."""
    image, probabilities = draw(options.height, options.width, options.classes)
    small = [np.ascontiguousarray(array[:32, :32]) for array in (image, probabilities)]
    for name in SETS:  # compiles
        INFER[side](*small, name, 1, 1)
    for line in sys.stdin:
        name, threads = json.loads(line)
        resident_memory.forget_peak()
        held, wall, cpu = resident_memory.read("VmRSS"), time.perf_counter(), time.process_time()
        q = INFER[side](image, probabilities, name, options.iterations, threads)
        answer = dict(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        answer["bytes"] = resident_memory.read("VmHWM") - held
        if options.keep:
            np.save(Path(options.keep) / f"{side}.npy", q)
        del q
        print(json.dumps(answer), flush=True)


class Worker:
    """A side's process."""

    def __init__(self, side: str, python: str, folder: str, options):
        numbers = ("height", "width", "classes", "iterations")
        arguments = [f"--{key}={getattr(options, key)}" for key in numbers]
        self._process = subprocess.Popen(
            [python, __file__, "--serve", side, "--keep", folder, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, threads: int) -> dict:
        print(json.dumps([name, threads]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side's process ended early, see above.")
        return json.loads(line)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


# --- Side by side ---


def compare(options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = Worker("ours", sys.executable, folder, options)
        reference = Worker("reference", options.reference_python, folder, options)
        print(f"{'':24}{'CPU s':>8}{'wall s':>8}{'peak MB':>9}{'CPU ratio':>11}{'wall ratio':>12}")
        for name in SETS:
            rounds: dict[str, list[dict]] = {}
            for _ in range(options.rounds):
                rounds.setdefault("reference", []).append(reference.run(name, 1))
                for threads in options.threads:
                    title = f"ours, {threads} thread" + "s" * (threads > 1)
                    rounds.setdefault(title, []).append(ours.run(name, threads))
            print(f"{name}: {agreement(Path(folder))}")
            for title, answers in rounds.items():
                print_line(title, answers, rounds["reference"])
        ours.end()
        reference.end()


def agreement(folder: Path) -> str:
    ours, theirs = (np.load(folder / f"{side}.npy") for side in INFER)
    equal = (ours.argmax(-1) == theirs.argmax(-1)).mean()
    return f"Q differs by at most {np.abs(ours - theirs).max():.1e}, labels equal in {equal:.3%}"


def print_line(title: str, answers: list[dict], reference: list[dict]) -> None:
    cells = [statistics.median(answer[key] for answer in answers) for key in ("cpu", "wall")]
    ratios = [
        statistics.median(a[key] / b[key] for a, b in zip(answers, reference, strict=True))
        for key in ("cpu", "wall")
    ]
    peak = max(answer["bytes"] for answer in answers) / 1e6
    print(
        f"  {title:22}{cells[0]:8.2f}{cells[1]:8.2f}{peak:9.0f}{ratios[0]:11.2f}{ratios[1]:12.2f}",
        flush=True,
    )


def large(options) -> None:
    """A picture of 12 megapixels: seconds, and the peak with and without what is given."""
    options.keep = ""
    image, probabilities = draw(options.height, options.width, options.classes)
    for name in SETS:
        infer_ours(image[:32, :32], probabilities[:32, :32], name, 1, 1)
        resident_memory.forget_peak()
        held, wall = resident_memory.read("VmRSS"), time.perf_counter()
        infer_ours(image, probabilities, name, options.iterations, max(options.threads))
        peak = resident_memory.read("VmHWM")
        print(
            f"{name}: {time.perf_counter() - wall:.0f} s, peak {peak / 1e9:.2f} GB, "
            f"{(peak - held) / 1e9:.2f} GB beyond the picture and its probabilities",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference-python", help="of an environment with pydensecrf2")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--large", action="store_true", help="12 megapixels, without a reference")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--keep", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.height = options.height or (3000 if options.large else 375)
    options.width = options.width or (4000 if options.large else 500)
    if options.serve:
        serve(options.serve, options)
        return
    print(
        f"{options.width} x {options.height} pixels, {options.classes} classes, "
        f"{options.iterations} iterations, {os.cpu_count()} cores"
    )
    if options.large:
        large(options)
    elif options.reference_python is None:
        parser.error("--reference-python PATH, or --large")
    else:
        compare(options)


if __name__ == "__main__":
    main()
