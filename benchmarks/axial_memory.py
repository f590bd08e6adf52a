"""Peak memory and time of models with axial attention, beside the same network with convolutions.

    python benchmarks/axial_memory.py [--sizes 513,1025] [--models axial_deeplab_s,...] [--train]

Each model and size runs in a process of its own: one picture through the compiled graph to warm
up, then one more. Printed are the multiply-adds, the resident memory at the peak above that of the
built model, and the time of a pass. `--train` measures a step of training with one picture. Needs
Linux.
"""

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MODELS = ("resnet50_beta", "max_deeplab_s_backbone", "axial_deeplab_s", "axial_deeplab_l")


def main() -> None:
    """Prints a line for each model and size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="513,1025", help="sides of the square pictures")
    parser.add_argument("--models", default=",".join(MODELS), help="backbones")
    parser.add_argument("--train", action="store_true", help="a training step, not a prediction")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], int(options.measure[1]), options.train)
        return
    what = "training step" if options.train else "prediction"
    print(f"one picture, {what}, output stride 16, float32, {os.cpu_count()} cores")
    print(f"{'backbone':24} {'size':>6} {'multiply-adds':>14} {'peak':>9} {'time':>9}")
    for backbone in options.models.split(","):
        for size in map(int, options.sizes.split(",")):
            command = [sys.executable, __file__, "--measure", backbone, str(size)]
            command += ["--train"] if options.train else []
            result = subprocess.run(command, capture_output=True, text=True)
            # Not stripped to the left: numbers stand in columns.
            line = (result.stdout or result.stderr).rstrip().splitlines()[-1:] or ["no answer"]
            print(f"{backbone:24} {size:6} {line[0]}", flush=True)


def measure(backbone: str, side: int, train: bool) -> None:
    """Prints the numbers of one model and size."""
    import keras
    import numpy as np
    from resident_memory import forget_peak, read

    from deeplab_tf.models.macs import count
    from deeplab_tf.models.panoptic_deeplab import AxialDeepLab

    model = AxialDeepLab(19, backbone, image_shape=(side, side, 3))
    image = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype("float32")
    model.compile(keras.optimizers.SGD(1e-3), loss="mean_squared_error", jit_compile=False)
    targets = {name: np.zeros((1, *x.shape[1:]), "float32") for name, x in model.output.items()}
    held = read("VmRSS")
    for _ in range(2):  # the first one traces
        forget_peak()
        started = time.perf_counter()
        if train:
            model.train_on_batch(image, targets)
        else:
            model.predict_on_batch(image)
        seconds = time.perf_counter() - started
    taken = (read("VmHWM") - held) / 2**20
    print(f"{count(model).multiply_adds / 1e9:13.1f}G {taken:6.0f} MB {seconds:7.1f} s")


if __name__ == "__main__":
    main()
