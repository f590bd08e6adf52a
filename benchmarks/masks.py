"""kMaX-DeepLab with ResNet-50 beside the authors' PyTorch code: a prediction and a training step.

    python benchmarks/masks.py                        beside our own Panoptic-DeepLab
    git clone https://github.com/bytedance/kmax-deeplab /tmp/kmax
    git clone https://github.com/facebookresearch/detectron2 /tmp/detectron2
    python -m venv /tmp/peer
    /tmp/peer/bin/pip install torch scipy fvcore iopath omegaconf pycocotools \\
        opencv-python-headless cloudpickle termcolor tabulate yacs tensorboard matplotlib
    python benchmarks/masks.py --peer /tmp/kmax --detectron2 /tmp/detectron2 \\
        --peer-python /tmp/peer/bin/python
    python benchmarks/masks.py --table                 what fits: our training step alone

One picture, float32, COCO's 133 classes, 128 slots, twelve masks in the picture. A training step
is the forward pass in training, all losses with their matching, the backward pass and AdamW; its
targets are made before, and the first step, which traces, isn't counted. A prediction ends with the
logits of masks and classes: making a map of them isn't in it. Ours has the semantic logits in it,
too, which theirs computes in training alone. Each side is a process of its own with two threads,
and only one works at a time; rounds alternate between the sides, so that a slower moment of the
machine hits both. Times are medians, ratios those within a round: ours / theirs. Memory is the
resident memory at the peak above that of the built model: the averages that AdamW keeps are in it.

Times count on a machine that does nothing else. PyTorch's threads spin while they wait for each
other, beside another program for long; set OMP_WAIT_POLICY=PASSIVE there.

Nothing of detectron2 is compiled, and neither torchvision nor timm is needed: stand-ins take their
places, which end the run if something calls them. Synchronised batch norm, which wants GPUs, is a
plain one here, and takes a single value per channel, as that of the image-level feature is.

With --table each line is a process of its own: "mixed_bfloat16" has that policy, "recompute"
computes maps again on the way back (`recompute=true` in `train`). Needs Linux.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, THINGS, SLOTS, MASKS = 133, 80, 128, 12
THREADS = 2
WORKS = ("prediction", "training step")
VARIANTS = ("float32", "recompute", "mixed_bfloat16", "mixed_bfloat16, recompute")
_CONFIG = "configs/coco/panoptic_segmentation/kmax_r50.yaml"


def scene(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture uint8 [H, W, 3], and the class and the mask of each pixel, int32 [H, W].

    Masks are tiles, in turn a thing and a stuff class; classes count from 0, things first.
    """
    random = np.random.default_rng(0)
    place = np.arange(side)
    mask = ((place * 3 // side)[:, None] * 4 + place * 4 // side).astype(np.int32)
    of_mask = np.array([i * 5 if i % 2 else THINGS + i * 4 for i in range(MASKS)], np.int32)
    picture = random.integers(0, 256, (side, side, 3), np.uint8)
    return picture, of_mask[mask], mask


# --- Sides: the parameters of each, and what it can do once: its output's shapes, or its loss ---

Side = tuple[int, dict[str, Callable[[], Any]]]


def ours(side: int, variant: str) -> Side:
    import keras

    from deeplab_tf.losses.mask_transformer import MaskTransformerLoss
    from deeplab_tf.models.kmax_deeplab import KMaXDeepLab

    keras.utils.set_random_seed(0)
    if "bfloat16" in variant:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = KMaXDeepLab(
        CLASSES + 1,
        ignore_label=0,
        num_mask_slots=SLOTS,
        transformer_drop_path_keep_prob=0.8,
        image_shape=(side, side, 3),
    )
    model.set_recompute("recompute" in variant)
    loss = MaskTransformerLoss(
        CLASSES + 1,
        range(1, THINGS + 1),
        0,
        instance_sample_k=4096,
        instance_sample_temperature=1.5,
        semantic_sample_k=4096,
        semantic_sample_temperature=2.0,
    )
    return _keras_side(model, loss, side, _mask_targets)


def panoptic_deeplab(side: int) -> Side:
    import keras

    from deeplab_tf import keys
    from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss
    from deeplab_tf.models.panoptic_deeplab import PanopticDeepLab

    keras.utils.set_random_seed(0)
    model = PanopticDeepLab(CLASSES + 1, "resnet50", output_stride=32, image_shape=(side, side, 3))
    losses = {
        keys.SEMANTIC_LOGITS: SemanticLoss(CLASSES + 1, 0),
        keys.CENTER_HEATMAP: CenterLoss(200.0),
        keys.OFFSET_MAP: OffsetLoss(0.01),
    }
    return _keras_side(model, losses, side, _center_targets)


def _keras_side(model, loss, side: int, targets: Callable) -> Side:
    """A model of ours, compiled as `train` does it."""
    import keras

    from deeplab_tf import keys
    from deeplab_tf.training.optimizers import AdamW

    # The optimiser is built by the first step, as PyTorch's: its memory counts on both sides.
    model.compile(AdamW(5e-5, weight_decay=0.05), loss=loss, jit_compile="auto")
    picture, label, mask = scene(side)
    image = picture[None].astype(np.float32)
    # Void is 0, so that COCO's classes begin with 1; an instance's number is its mask's.
    panoptic = (label + 1) * 1000 + np.where(label < THINGS, mask + 1, 0)
    learnt = keras.tree.map_structure(lambda x: x.numpy()[None], targets(panoptic))

    def predict():
        found = model.predict_on_batch(image)
        names = (keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS)
        return [side for name in names if name in found for side in found[name].shape]

    def train():
        # The whole loss comes first where there are several.
        return float(np.ravel(model.train_on_batch(image, *learnt))[0])

    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return parameters, {"prediction": predict, "training step": train}


def _mask_targets(panoptic) -> tuple:
    from deeplab_tf.datasets.targets import mask_targets

    return (mask_targets(panoptic, label_divisor=1000, thing_classes=range(1, THINGS + 1)),)


def _center_targets(panoptic) -> tuple:
    from deeplab_tf.datasets.targets import panoptic_targets

    things = range(1, THINGS + 1)
    return panoptic_targets(panoptic, label_divisor=1000, thing_classes=things, ignore_label=0)


def theirs(side: int, checkout: Path, detectron2: Path) -> Side:
    """The authors' code, from a checkout of it and one of detectron2."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    _stand_in(torch)
    sys.path.insert(0, str(detectron2))
    # Without what its `__init__` imports: data sets and their scores.
    package = types.ModuleType("kmax_deeplab")
    package.__path__ = [str(checkout / "kmax_deeplab")]
    sys.modules["kmax_deeplab"] = package
    import kmax_deeplab.kmax_model
    import kmax_deeplab.modeling  # noqa: F401
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config
    from kmax_deeplab.config import add_kmax_deeplab_config

    picture, label, mask = scene(side)
    # The matcher wants masks at the stride of the mask logits.
    label, mask = label[::4, ::4], mask[::4, ::4]
    config = get_cfg()
    add_deeplab_config(config)
    add_kmax_deeplab_config(config)
    config.merge_from_file(str(checkout / _CONFIG))
    config.MODEL.DEVICE, config.INPUT.IMAGE_SIZE = "cpu", [side, side]
    # Of a small picture all pixels, as ours: theirs can't draw more than there are.
    for key in ("PIXEL_INSDIS_SAMPLE_K", "AUX_SEMANTIC_SAMPLE_K"):
        config.MODEL.KMAX_DEEPLAB[key] = min(mask.size, config.MODEL.KMAX_DEEPLAB[key])
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-5, weight_decay=0.05)

    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    masks = torch.from_numpy(np.stack([mask == i for i in range(MASKS)]))
    classes = torch.tensor([int(label[mask == i][0]) for i in range(MASKS)])
    semantic = torch.from_numpy(label.astype(np.int64))

    class Instances:
        gt_masks, gt_classes = masks, classes

        def to(self, device):
            return self

    def predict():
        model.eval()
        with torch.no_grad():
            pixels = (image[None] - model.pixel_mean) / model.pixel_std
            found = model.sem_seg_head(model.backbone(pixels))
        masks = found["pred_masks"].permute(0, 2, 3, 1)
        return [*masks.shape, *found["pred_logits"].shape]

    def train():
        model.train()
        example = {"image": image, "instances": Instances(), "sem_seg_gt": semantic}
        loss = sum(model([example]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    parameters = sum(weight.numel() for weight in model.parameters())
    return parameters, {"prediction": predict, "training step": train}


def _stand_in(torch) -> None:
    """Puts something in the place of what the authors' code imports and doesn't call."""
    from importlib.machinery import ModuleSpec

    class BatchNorm(torch.nn.modules.batchnorm._BatchNorm):
        def forward(self, x):
            # PyTorch's own refuses to train with one value per channel.
            state = (self.weight, self.bias, self.running_mean, self.running_var)
            return torch.batch_norm(x, *state, self.training, self.momentum, self.eps, False)

    class DropPath(torch.nn.Module):
        """timm's: leaves a branch out of whole pictures."""

        def __init__(self, drop_prob=0.0):
            super().__init__()
            self.keep = 1.0 - drop_prob

        def forward(self, x):
            if not self.training or self.keep == 1.0:
                return x
            drawn = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(self.keep)
            return x * drawn / self.keep

    class NotCalled:
        def __init__(self, *arguments, **options):
            raise SystemExit("the authors' code calls what has a stand-in here")

    def draw(tensor, mean=0.0, std=1.0):
        return torch.nn.init.trunc_normal_(tensor, mean, std, mean - 2 * std, mean + 2 * std)

    def put(name: str, **values) -> None:
        module = types.ModuleType(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []
        vars(module).update(values)

        def missing(key):
            if key.startswith("__"):
                raise AttributeError(key)
            return NotCalled

        module.__getattr__ = missing
        sys.modules[name] = module

    torch.nn.SyncBatchNorm = BatchNorm
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "detectron2._C"):
        put(name, __version__="0.28.0")
    for name in ("torchvision.transforms", "timm", "timm.models"):
        put(name)
    put("timm.models.layers", DropPath=DropPath, trunc_normal_tf_=draw)


# --- One process for each side ---


class Worker:
    """A side in a process of its own, which works when it is told to."""

    def __init__(self, python: str, name: str, side: int, *options: str):
        command = [python, __file__, "--worker", name, "--size", str(side), *options]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment |= dict.fromkeys(
            ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(THREADS)
        )
        # A file: nobody empties a pipe while a side works, and a full one would stop it.
        self._words = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env=environment,
        )
        self.built = self._answer()

    def do(self, work: str) -> dict[str, Any]:
        """The result, and the seconds and bytes that it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print what they like
                return json.loads(line)
        self._words.seek(0)
        words = self._words.read().strip().splitlines()
        raise SystemExit(words[-1] if words else "a side ended without a word")

    def close(self) -> None:
        self._process.communicate()
        self._words.close()


def work(build: Callable[[], Side]) -> None:
    """Answers each line of the standard input by what that work gave and took."""
    from resident_memory import forget_peak, read

    # Nothing but answers may be printed.
    answers, sys.stdout = sys.stdout, sys.stderr
    parameters, works = build()
    held = read("VmRSS")
    built = {"parameters": parameters, "shapes": works["prediction"]()}
    print(json.dumps(built), file=answers, flush=True)
    for line in sys.stdin:
        forget_peak()
        started = time.perf_counter()
        result = works[line.strip()]()
        seconds = time.perf_counter() - started
        taken = max(0, read("VmHWM") - held)
        found = {"result": result, "seconds": seconds, "bytes": taken}
        print(json.dumps(found), file=answers, flush=True)


# --- Side by side ---


def compare(options) -> None:
    """Prints times, ratios and memory of both sides for each size."""
    for side in options.size:
        sides = {"ours": Worker(sys.executable, "ours", side)}
        if options.peer:
            places = ("--peer", options.peer, "--detectron2", options.detectron2)
            sides["authors' PyTorch"] = Worker(options.peer_python, "theirs", side, *places)
        else:
            sides["our Panoptic-DeepLab"] = Worker(sys.executable, "panoptic_deeplab", side)
        counts = [f"{name}: {x.built['parameters'] / 1e6:.1f}M" for name, x in sides.items()]
        shapes = [worker.built["shapes"] for worker in sides.values()]
        if options.peer and shapes[0] != shapes[1]:
            raise SystemExit(f"the sides' outputs differ: {shapes[0]}, {shapes[1]}")
        print(f"{side} x {side} pixels; parameters of " + ", ".join(counts))
        for what in WORKS:
            found: dict[str, list[dict]] = {name: [] for name in sides}
            for worker in sides.values():
                worker.do(what)  # compiles
            for _ in range(options.rounds):
                for name, worker in sides.items():
                    found[name].append(worker.do(what))
            _print(what, found)
        for worker in sides.values():
            worker.close()


def _print(what: str, found: dict[str, list[dict]]) -> None:
    first = next(iter(found))
    for name, rounds in found.items():
        if what == "training step":
            _check_losses(name, rounds)
        seconds = statistics.median(one["seconds"] for one in rounds)
        taken = max(one["bytes"] for one in rounds) / 2**20
        line = f"  {what:14} {name:21}{seconds:7.2f} s {taken:7.0f} MB"
        if name != first:
            ratios = [
                ours["seconds"] / theirs["seconds"]
                for ours, theirs in zip(found[first], rounds, strict=True)
            ]
            line += f"   ours / it: {statistics.median(ratios):.2f}"
        print(line, flush=True)


def _check_losses(name: str, rounds: list[dict]) -> None:
    if not all(math.isfinite(one["result"]) for one in rounds):
        raise SystemExit(f"{name}: the loss isn't finite, so that its times mean nothing.")


def table(options) -> None:
    """Prints what a training step of ours takes, for each size and variant."""
    print(f"{'size':>6} {'':27} {'peak':>8} {'time':>8}")
    for side in options.size:
        for variant in options.variants:
            worker = Worker(sys.executable, "ours", side, "--variants", variant)
            rounds = [worker.do("training step") for _ in range(1 + options.rounds)][1:]
            worker.close()
            _check_losses(variant, rounds)
            seconds = statistics.median(one["seconds"] for one in rounds)
            taken = max(one["bytes"] for one in rounds) / 2**30
            print(f"{side:6} {variant:27} {taken:5.2f} GB {seconds:6.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs="+", default=[385, 641], help="sides of pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="folder of the authors' release")
    parser.add_argument("--detectron2", help="folder of detectron2, which it needs")
    parser.add_argument("--peer-python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--table", action="store_true", help="what fits, of ours alone")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="lines of the table"
    )
    options = parser.parse_args()
    if options.peer and not options.detectron2:
        parser.error("--peer needs --detectron2, too")
    if options.peer and not (Path(options.peer) / _CONFIG).is_file():
        parser.error(f"{options.peer} isn't a checkout of the authors' release: no {_CONFIG}")
    if options.worker == "theirs":
        work(lambda: theirs(options.size[0], Path(options.peer), Path(options.detectron2)))
    elif options.worker == "ours":
        work(lambda: ours(options.size[0], options.variants[0]))
    elif options.worker:
        work(lambda: panoptic_deeplab(options.size[0]))
    elif options.table:
        table(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
