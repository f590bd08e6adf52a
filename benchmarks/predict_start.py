"""How long `deeplab-tf predict` takes with a .tflite file, start of the process included.

    python benchmarks/predict_start.py FILE.tflite
    python benchmarks/predict_start.py FILE.tflite --keras

The photo that matplotlib ships is segmented and all four results are written, each time by a fresh
process. Beside it: a process that only imports NumPy and Pillow, without which no picture can be
read, and with --keras the same command with the preset `portrait`, which loads TensorFlow. They
take turns, so that a busy machine slows all of them alike; what counts is the ratio.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

PREDICT = "import sys; from deeplab_tf.cli import main; main(['predict', *sys.argv[1:]])"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tflite", metavar="FILE.tflite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keras", action="store_true", help="also with Keras")
    options = parser.parse_args()
    from matplotlib.cbook import get_sample_data

    photo = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "import numpy, PIL": ["import numpy, PIL.Image"],
            "predict --tflite": [PREDICT, photo, "--tflite", options.tflite, "--out", folder],
        }
        if options.keras:
            commands["predict"] = [PREDICT, photo, "--out", folder]
        seconds = _measure(commands, options.rounds)
    bare = statistics.median(seconds["import numpy, PIL"])
    print(f"{'':20s} {'median s':>9s} {'best s':>7s} {'ratio':>6s}")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:20s} {median:9.2f} {min(times):7.2f} {median / bare:6.1f}")
    return 0


def _measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every run. A first round, not counted, fills the disk cache."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            before = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", *command], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{name}: exit code {done.returncode}\n{done.stderr.strip()}")
            if number:
                seconds[name].append(time.perf_counter() - before)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
