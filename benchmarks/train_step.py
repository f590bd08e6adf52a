"""A train step of MobileNetV2 DeepLabv3+ beside a bare MobileNetV2 with a 1x1 head, in one run.

    python benchmarks/train_step.py [--size 129] [--batch 4] [--rounds 10]

Between the two lies a ladder: each rung changes one thing, and its line says what that costs in
time and in multiply-adds. Rounds alternate between the rungs, so that a slower moment of the
machine hits all of them. Times are medians of single steps after the first two, which compile.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from deeplab_tf.backbones import BACKBONES
from deeplab_tf.layers.normalization import BatchNorm
from deeplab_tf.layers.resize import ResizeLike
from deeplab_tf.losses.semantic import SoftmaxCrossEntropy
from deeplab_tf.models.deeplab_v3 import DeepLabV3
from deeplab_tf.models.deeplab_v3_plus import DeepLabV3Plus
from deeplab_tf.models.macs import count
from deeplab_tf.training.optimizers import Momentum, decayed_variables

CLASSES = 21
_KERAS_BATCH_NORM = mock.patch.object(BatchNorm, "call", layers.BatchNormalization.call)


def bare(size: int) -> keras.Model:
    """MobileNetV2 as Keras has it, a 1x1 convolution on its 1280 channels, the same resize."""
    image = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = keras.applications.MobileNetV2(input_tensor=x, include_top=False, weights=None).output
    return keras.Model(image, ResizeLike()([layers.Conv2D(CLASSES, 1)(x), image]))


def backbone_alone(size: int, output_stride: int) -> keras.Model:
    """Our MobileNetV2, which ends at 320 channels as in the papers, with the same bare head."""
    image = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = BACKBONES["mobilenet_v2"].build(x, output_stride=output_stride)["res5"]
    return keras.Model(image, ResizeLike()([layers.Conv2D(CLASSES, 1)(x), image]))


def deeplab(cls: type[DeepLabV3], size: int, rates: tuple | None) -> keras.Model:
    return cls(CLASSES, output_stride=16, atrous_rates=rates, image_shape=(size, size, 3))


def keras_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)


def our_optimizer(model: keras.Model) -> Momentum:
    decayed = [variable.path for variable in decayed_variables(model)]
    return Momentum(0.007, weight_decay_l2=4e-5, decayed=decayed)


class Rung:
    """One line: a compiled model and the times of its steps.

    Args:
        name: what is new.
        make: builds the model.
        loss, optimizer: ours or those of Keras.
        keras_batch_norm: normalise with Keras' own layer.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], keras.Model],
        *,
        ours: tuple[str, ...] = (),
        keras_batch_norm: bool = False,
    ):
        self.name, self.times = name, []
        self._make, self._ours, self._patched = make, ours, keras_batch_norm

    def start(self, images, labels) -> None:
        """Builds, compiles and takes two steps that aren't counted."""
        keras.utils.set_random_seed(0)
        self.model = self._make()
        self.macs, self.parameters = count(self.model).multiply_adds, self.model.count_params()
        loss = SoftmaxCrossEntropy(CLASSES) if "loss" in self._ours else keras_loss()
        optimizer = keras.optimizers.SGD(0.007, momentum=0.9)
        if "optimizer" in self._ours:
            optimizer = our_optimizer(self.model)
        self.model.compile(optimizer, loss, jit_compile="auto")
        # The step is traced here, with whichever normalisation is in place.
        if self._patched:
            with _KERAS_BATCH_NORM:
                self._warm_up(images, labels)
        else:
            self._warm_up(images, labels)

    def _warm_up(self, images, labels) -> None:
        for _ in range(2):
            self.model.train_on_batch(images, labels)

    def step(self, images, labels) -> None:
        started = time.perf_counter()
        self.model.train_on_batch(images, labels)
        self.times.append((time.perf_counter() - started) * 1e3)


def ladder(size: int) -> list[Rung]:
    """From the bare model to ours; each rung changes one thing."""
    both = ("loss", "optimizer")
    return [
        Rung("keras MobileNetV2, stride 32, 1x1 head on 1280", lambda: bare(size)),
        Rung(
            "our MobileNetV2, stride 32, 1x1 head on 320",
            lambda: backbone_alone(size, 32),
            keras_batch_norm=True,
        ),
        Rung("our BatchNorm (fused) for Keras'", lambda: backbone_alone(size, 32)),
        Rung("output stride 16 (dilated last stage)", lambda: backbone_alone(size, 16)),
        Rung("ASPP: 1x1 and image pooling only", lambda: deeplab(DeepLabV3, size, ())),
        Rung("ASPP: three atrous branches", lambda: deeplab(DeepLabV3, size, None)),
        Rung("decoder at stride 4", lambda: deeplab(DeepLabV3Plus, size, None)),
        Rung("our loss", lambda: deeplab(DeepLabV3Plus, size, None), ours=both[:1]),
        Rung(
            "our optimiser, with weight decay",
            lambda: deeplab(DeepLabV3Plus, size, None),
            ours=both,
        ),
    ]


def report(rungs: list[Rung]) -> None:
    """A line per rung; then the ratio in time and in multiply-adds."""
    print(f"{'':50}{'ms':>8}{'more':>8}{'M mult-adds':>13}{'more':>8}{'params':>11}")
    before = None
    for rung in rungs:
        milliseconds, macs = statistics.median(rung.times), rung.macs / 1e6
        more = ("", "")
        if before is not None:
            # Of the same round, so that a slow round doesn't look like a slow rung.
            pairs = zip(rung.times, before.times, strict=True)
            more = (
                f"{statistics.median(a - b for a, b in pairs):+.0f}",
                f"{macs - before.macs / 1e6:+.0f}",
            )
        print(
            f"{rung.name:50}{milliseconds:8.0f}{more[0]:>8}{macs:13.0f}{more[1]:>8}"
            f"{rung.parameters:11,}"
        )
        before = rung
    first, last = rungs[0], rungs[-1]
    ratio = statistics.median(b / a for a, b in zip(first.times, last.times, strict=True))
    print(f"whole: {ratio:.2f} times the time, {last.macs / first.macs:.2f} times the mult-adds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=129)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size)
    images = random.uniform(0, 255, (*shape, 3)).astype(np.float32)
    labels = random.integers(0, CLASSES, shape).astype(np.int32)
    print(f"{options.size}x{options.size}, batch {options.batch}, {options.rounds} rounds")
    rungs = ladder(options.size)
    for rung in rungs:
        rung.start(images, labels)
    for _ in range(options.rounds):
        for rung in rungs:
            rung.step(images, labels)
    report(rungs)


if __name__ == "__main__":
    main()
