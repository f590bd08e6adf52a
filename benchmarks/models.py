"""Forward pass and training step beside keras-hub's DeepLabV3+ and torchvision's DeepLabV3.

    python benchmarks/models.py [--size 512] [--batch 2] [--rounds 5] [--only TEXT]
    python benchmarks/models.py --profile   also the kernels that a forward pass spends its time in
    python benchmarks/models.py --start     import and build times, graph sizes

`pip install keras-hub torchvision` into the environment first; a comparison whose library isn't
installed is left out, and named. In each comparison both sides have the same backbone, output
stride, size and batch, random weights, SGD with momentum and a cross-entropy on logits of the
picture's size. torchvision's networks are ours, layer for layer. keras-hub's has a decoder of its
own, so its multiply-adds are counted too.

Each side is a process of its own. Rounds alternate between the two, so that a slower moment of the
machine hits both; times are medians of single calls after two that compile. Memory is the peak of
resident memory during the calls, less what the process held with its library imported (Linux).
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import resident_memory

CLASSES = 21
PEERS = ("keras_hub", "torchvision")
_KERNELS = 6  # of a profile


# --- What is compared ---


def ours(preset: str, **arguments):
    import deeplab_tf as dl

    return dl.from_preset(preset, load_weights=False, **arguments)


def ours_as_keras_hub():
    """DeepLabV3+ at keras-hub's output stride, with its plain ASPP and its rates."""
    import deeplab_tf as dl

    return dl.DeepLabV3Plus(
        CLASSES,
        "resnet_50_torch",
        output_stride=32,
        atrous_rates=(6, 12, 18),
        aspp_with_separable_conv=False,
        decoder_num_convs=1,
    )


def keras_hub_v3_plus():
    """Made as its preset `deeplab_v3_plus_resnet50_pascalvoc`; logits of the picture's size."""
    import keras_hub

    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
    )
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        dilation_rates=[6, 12, 18],
        upsampling_size=8,
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=CLASSES)


def torchvision_v3(name: str):
    import torchvision

    build = getattr(torchvision.models.segmentation, name)
    return build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)


@dataclasses.dataclass(frozen=True)
class Side:
    """One contender: the library that it needs, and what makes its model."""

    library: str
    make: Callable[[], Any]


COMPARISONS = {
    "keras-hub DeepLabV3+ ResNet-50, stride 32": (
        Side("deeplab_tf", ours_as_keras_hub),
        Side("keras_hub", keras_hub_v3_plus),
    ),
    "torchvision DeepLabV3 ResNet-50, stride 8": (
        Side("deeplab_tf", lambda: ours("deeplab_v3_resnet_50_torch_coco")),
        Side("torchvision", lambda: torchvision_v3("deeplabv3_resnet50")),
    ),
    "torchvision DeepLabV3 MobileNetV3 large, stride 16": (
        Side("deeplab_tf", lambda: ours("deeplab_v3_mobilenet_v3_large_torch_coco")),
        Side("torchvision", lambda: torchvision_v3("deeplabv3_mobilenet_v3_large")),
    ),
}


# --- One side, in a process of its own ---


class KerasSteps:
    """A Keras model's compiled prediction and training step."""

    def __init__(self, model, options):
        import keras

        model.compile(
            keras.optimizers.SGD(0.007, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[],  # keras-hub has one by default
            jit_compile={"auto": "auto", "on": True, "off": False}[options.jit],
        )
        self.model = model
        self.macs = multiply_adds(model, options.size)
        self.images, self.labels = data(options)

    def forward(self):
        self.model.predict_on_batch(self.images)

    def train(self):
        self.model.train_on_batch(self.images, self.labels)

    def profile(self) -> dict[str, float]:
        """Milliseconds in each kind of kernel of a forward pass, its weights frozen."""
        import tensorflow as tf
        from tensorflow.python.framework import convert_to_constants

        call = tf.function(lambda x: self.model(x, training=False))
        spec = tf.TensorSpec(self.images.shape)
        frozen = convert_to_constants.convert_variables_to_constants_v2(
            call.get_concrete_function(spec)
        )
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen.graph.as_graph_def(), name="")
        feed, record = {frozen.inputs[0].name: self.images}, tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        with tf.compat.v1.Session(graph=graph) as session:
            for _ in range(2):  # the first times are those of getting ready
                session.run(frozen.outputs[0].name, feed)
            session.run(frozen.outputs[0].name, feed, options, record)
        times: collections.Counter = collections.Counter()
        for device in record.step_stats.dev_stats:
            for node in device.node_stats:
                kind = node.timeline_label.rpartition("= ")[2].partition("(")[0]
                times[kind] += (node.op_end_rel_micros - node.op_start_rel_micros) / 1e3
        return dict(times)


class TorchSteps:
    """The same for a model of torchvision, in eager mode as its own scripts run it."""

    macs = 0  # its networks are ours

    def __init__(self, model, options):
        import torch

        images, labels = data(options)
        self.model = model
        self.images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.labels = torch.from_numpy(labels.astype("int64"))
        self.optimizer = torch.optim.SGD(model.parameters(), 0.007, momentum=0.9)

    def forward(self):
        import torch

        self.model.eval()
        with torch.inference_mode():
            self.model(self.images)["out"]

    def train(self):
        import torch

        self.model.train()
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.model(self.images)["out"], self.labels)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def profile(self) -> dict[str, float]:
        """Milliseconds in each kind of kernel of a forward pass."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            self.forward()
        return {kind.key: kind.self_cpu_time_total / 1e3 for kind in profiler.key_averages()}


def multiply_adds(model, size: int) -> int:
    """Of the convolutions that one picture passes: what `macs.count` finds in our models.

    That reads the layers of a flat graph, and keras-hub's lie within each other.
    """
    import tensorflow as tf
    from keras import layers

    from deeplab_tf.layers.atrous import AtrousConv2D

    total = 0

    def counted(call):
        def count_and_call(layer, inputs):
            nonlocal total
            outputs = call(layer, inputs)
            # A depthwise kernel is [height, width, channels, 1]: one product per output and tap.
            depth = 2 if isinstance(layer, layers.DepthwiseConv2D) else 3
            total += math.prod(outputs.shape[1:]) * math.prod(layer.kernel.shape[:depth])
            return outputs

        return count_and_call

    with contextlib.ExitStack() as patches:
        for kind in (layers.Conv2D.__base__, layers.DepthwiseConv2D, AtrousConv2D):
            patches.enter_context(mock.patch.object(kind, "call", counted(kind.call)))
        call = tf.function(lambda x: model(x, training=False))
        call.get_concrete_function(tf.TensorSpec((1, size, size, 3)))
    return total


def data(options) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size)
    images = random.uniform(0, 1, (*shape, 3)).astype("float32")
    return images, random.integers(0, CLASSES, shape).astype("int32")


def serve(side: Side, options) -> None:
    """Answers each line of standard input, the name of a step, with its seconds and its peak."""
    # What any user of the library has imported before there is a model.
    for library in ("torch",) if side.library == "torchvision" else ("tensorflow", "keras"):
        importlib.import_module(library)
    importlib.import_module(side.library)
    held = resident_memory.read("VmRSS")
    model = side.make()
    steps = (TorchSteps if side.library == "torchvision" else KerasSteps)(model, options)
    print(json.dumps({"macs": steps.macs}), flush=True)
    for line in sys.stdin:
        resident_memory.forget_peak()
        before = time.perf_counter()
        result = getattr(steps, line.strip())()
        seconds = time.perf_counter() - before
        peak = resident_memory.read("VmHWM") - held
        print(json.dumps({"seconds": seconds, "bytes": peak, "result": result}), flush=True)


class Worker:
    """A side's process, and what its calls took."""

    def __init__(self, title: str, number: int, options):
        arguments = [f"--{key}={getattr(options, key)}" for key in ("size", "batch", "jit")]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", title, str(number), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not options.verbose else None,
            text=True,
        )
        self.macs = self._answer()["macs"]
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side's process ended early; --verbose shows what it said.")
        return json.loads(line)

    def ask(self, step: str, counted: bool = False) -> Any:
        self._process.stdin.write(step + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if counted:
            self.seconds.append(answer["seconds"])
            self.bytes.append(answer["bytes"])
        return answer["result"]

    def clear(self) -> None:
        self.seconds, self.bytes = [], []

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


# --- Side by side ---


def compare(title: str, options) -> None:
    print(f"\n{title}")
    workers = [Worker(title, number, options) for number in range(2)]
    if all(worker.macs for worker in workers):
        ours, theirs = (worker.macs / 1e9 for worker in workers)
        print(f"  multiply-adds: ours {ours:.2f}G, theirs {theirs:.2f}G, ratio {ours / theirs:.3f}")
    else:
        print(f"  multiply-adds: {workers[0].macs / 1e9:.2f}G, the same network")
    for step in ("forward", "train"):
        for worker in workers:
            worker.clear()
        for number in range(options.rounds + 2):
            for worker in workers:
                worker.ask(step, counted=number >= 2)
        ours, theirs = (statistics.median(worker.seconds) for worker in workers)
        # Of the same round, so that a slow round doesn't count for one side alone.
        pairs = zip(workers[0].seconds, workers[1].seconds, strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        peaks = [max(worker.bytes) / 1e6 for worker in workers]
        print(
            f"  {step:8}{ours * 1e3:10.0f} ms{theirs * 1e3:10.0f} ms   ratio {ratio:.2f}"
            f"     peak {peaks[0]:8.0f} MB{peaks[1]:8.0f} MB   ratio {peaks[0] / peaks[1]:.2f}",
            flush=True,
        )
    if options.profile:
        for side, worker in zip(("ours", "theirs"), workers, strict=True):
            kernels = sorted(worker.ask("profile").items(), key=lambda item: -item[1])[:_KERNELS]
            print(f"  {side}: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in kernels))
    for worker in workers:
        worker.end()


# --- Starting up ---

BUILDS = {
    "ours, MobileNetV2 v3": "dl.DeepLabV3(21)",
    "ours, ResNet-50 v3+": "dl.DeepLabV3Plus(21, 'resnet_50_torch')",
    "ours, ResNet-101 v3": "dl.DeepLabV3(21, 'resnet_v1_101_beta')",
    "ours, Xception-65 v3+": "dl.DeepLabV3Plus(21, 'xception_65')",
    "ours, Xception-71 v3+": "dl.DeepLabV3Plus(21, 'xception_71')",
    "ours, HNASNet v3+": "dl.DeepLabV3Plus(21, 'nas_hnasnet', output_stride=8)",
}
# Seconds of the build, layers, and operations of the graph that a call traces.
TELL = """
import json, sys, time
{imports}
began = time.perf_counter()
model = {expression}
seconds = time.perf_counter() - began
import tensorflow as tf
call = tf.function(lambda x: model(x, training=False))
graph = call.get_concrete_function(tf.TensorSpec((1, {size}, {size}, 3))).graph.as_graph_def()
nodes = len(graph.node) + sum(len(f.node_def) for f in graph.library.function)
layers = len(list(model._flatten_layers(include_self=False)))
print(json.dumps([seconds, layers, nodes, len(model.variables), graph.ByteSize()]))
"""
IMPORTS = {
    "python alone": "pass",
    "import deeplab_tf": "import deeplab_tf",
    "import tensorflow": "import tensorflow",
    "import keras": "import keras",
    "import deeplab_tf, a model class": "import deeplab_tf; deeplab_tf.DeepLabV3",
    "import keras_hub": "import keras_hub",
    "import torchvision": "import torchvision",
}


def start(options) -> None:
    print(f"seconds of a fresh process, median of {options.rounds}")
    taken: dict[str, list[float]] = {
        name: []
        for name in IMPORTS
        if all(installed(library) for library in PEERS if library in name)
    }
    for _ in range(options.rounds):
        for name, times in taken.items():
            before = time.perf_counter()
            subprocess.run([sys.executable, "-c", IMPORTS[name]], check=True, capture_output=True)
            times.append(time.perf_counter() - before)
    for name, times in taken.items():
        print(f"  {name:38}{statistics.median(times):6.2f}")
    print(f"\n{'':26}{'build s':>9}{'layers':>8}{'variables':>11}{'graph nodes':>13}{'MB':>7}")
    builds = {
        name: ("import deeplab_tf as dl; dl.DeepLabV3", text) for name, text in BUILDS.items()
    }
    if installed("keras_hub"):
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import models"
        builds["keras-hub, ResNet-50 v3+"] = (
            f"{code}; import keras_hub; keras_hub.models.ResNetBackbone",
            "models.keras_hub_v3_plus()",
        )
    for name, (imports, expression) in builds.items():
        program = TELL.format(imports=imports, expression=expression, size=options.size)
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        seconds, layers, nodes, variables, size = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:26}{seconds:9.2f}{layers:8}{variables:11}{nodes:13,}{size / 1e6:7.2f}")


def installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512, help="a multiple of 32 for keras-hub")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="comparisons whose title has this in it")
    parser.add_argument("--jit", choices=("auto", "on", "off"), default="auto", help="XLA in Keras")
    parser.add_argument("--profile", action="store_true", help="kernels of a forward pass too")
    parser.add_argument("--start", action="store_true", help="import, build and graph instead")
    parser.add_argument("--verbose", action="store_true", help="what the two sides say")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        title, number = options.serve
        serve(COMPARISONS[title][int(number)], options)
        return
    if options.start:
        start(options)
        return
    print(
        f"{options.size}x{options.size}, batch {options.batch}, {options.rounds} rounds, "
        f"{os.cpu_count()} cores, jit_compile {options.jit}; ours first, then theirs"
    )
    for title, sides in COMPARISONS.items():
        if options.only.lower() not in title.lower():
            continue
        missing = [side.library for side in sides if not installed(side.library)]
        if missing:
            print(f"\n{title}: left out, {', '.join(missing)} is not installed")
        else:
            compare(title, options)


if __name__ == "__main__":
    main()
