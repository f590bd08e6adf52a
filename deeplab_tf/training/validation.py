"""Scores during training, and what is kept of them: log, curves, presets, TensorBoard."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor, pipeline, reading
from deeplab_tf.inference.panoptic import merge_settings
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.metrics.panoptic_quality import PanopticQuality
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.panoptic_pictures import panoptic_overlay
from deeplab_tf.pictures import colorize, contact_sheet
from deeplab_tf.postprocess.panoptic_numpy import merge
from deeplab_tf.training.averages import AveragedWeights
from deeplab_tf.training.build import batches, is_panoptic
from deeplab_tf.training.callbacks import Log, StepCallback
from deeplab_tf.training.config import TrainConfig
from deeplab_tf.training.curves import draw_curves
from deeplab_tf.training.tensorboard import Board

# Pictures shown in TensorBoard, and the width of each on the sheet.
_SHOWN = 4
_SHOWN_WIDTH = 240
# Training pictures that batch-norm statistics are taken from, or as many as there are.
_STATISTICS_PICTURES = 1024


class Validation(StepCallback):
    """Scores the validation split, and keeps the best and the last weights as presets.

    Args:
        model: compiled.
        config, descriptor: of the run and its records.
        ignore: label value that doesn't count.
        run: the run folder.
        log: gets a line per evaluation.
        say: called with each line for the user.
        check: called between batches with the step; may raise to stop the run.
        board: where scores and pictures go too, if anywhere.
    """

    def __init__(
        self,
        model: keras.Model,
        config: TrainConfig,
        descriptor: DatasetDescriptor,
        ignore: int,
        run: Path,
        *,
        log: Log,
        say: Callable[[str], Any],
        check: Callable[[int], None] = lambda step: None,
        board: Board | None = None,
    ):
        super().__init__()
        self._network, self._config, self._descriptor = model, config, descriptor
        self._ignore, self._run, self._log, self._say = ignore, run, log, say
        self._check, self._board = check, board
        self._averaged = AveragedWeights(model, self._statistics_batches)

    def on_step(self, step, logs):
        if self.due(step):
            # JAX trains copies of the variables; reading `model` brings the originals up to date.
            self._network = self.model
            self.evaluate(step, logs)

    def due(self, step: int) -> bool:
        """Whether a run evaluates after this step."""
        return step > 0 and (step % self._config.evaluate_every == 0 or step == self._config.steps)

    def evaluate(self, step: int, logs: dict) -> None:
        """Scores, logs and saves; weight averages are used where the optimiser keeps them."""
        self.step = step
        best = max((entry["score"] for entry in self._log.read()), default=-1.0)
        rate = float(keras.ops.convert_to_numpy(self._network.optimizer.learning_rate))
        with self._averaged:
            scores, shown = self._score()
            entry = {
                "step": step,
                "loss": float(logs["loss"]) if "loss" in logs else None,
                # Of a model with several outputs, each one's.
                **{name: float(logs[name]) for name in logs if name.endswith("_loss")},
                "learning_rate": rate,
                **scores,
                # What "best" goes by.
                "score": _score_of(scores),
            }
            self._network.save_to_preset(self._run / "last")
            if entry["score"] > best:
                self._network.save_to_preset(self._run / "best")
            # The presets first: a run killed between the two evaluates this step again.
            self._log.append(entry)
        draw_curves(self._log.read(), self._run / "curves.png")
        if self._board is not None:
            pictures = {} if shown is None else {"validation": shown}
            self._board.write(step, self._scalars(entry), pictures)
        loss = "" if entry["loss"] is None else f"loss {entry['loss']:.4f}, "
        named = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if isinstance(v, float))
        self._say(f"step {step}: {loss}{named}".rstrip(" ,:"))

    def _score(self) -> tuple[dict, np.ndarray | None]:
        """Scores of the validation split, and a page of a few of its pictures."""
        if self._config.val_split not in self._descriptor.splits:
            return {}, None
        kind = _PanopticTally if is_panoptic(self._network) else _Tally
        tally = kind(self._network.info, self._descriptor, self._ignore)
        shown: list[tuple[np.ndarray, ...]] = []
        for images, labels in self._validation_batches(tally.targets):
            self._check(self.step)
            outputs, labels = self._network.predict_on_batch(images), np.asarray(labels)
            predictions = tally.update(labels, outputs)
            few = slice(0, max(0, _SHOWN - len(shown)))
            shown += zip(np.asarray(images[few]), labels[few], predictions[few], strict=True)
        return tally.scores(), self._sheet(shown, tally) if shown else None

    def _validation_batches(self, targets: str) -> Iterable:
        config = self._config
        batches = pipeline(
            config.data,
            config.val_split,
            image_size=config.eval_size or config.image_size,
            batch_size=config.batch_size,
            training=False,
            resize="stretch" if config.resize == "stretch" else "pad",
            targets=targets,
        )
        return _readable(batches, config.data, config.val_split)

    def _sheet(self, shown: list[tuple[np.ndarray, ...]], tally: "_Tally") -> np.ndarray:
        """A row per picture: image, label, prediction."""
        tiles = []
        for image, label, prediction in shown:
            image = image.clip(0, 255).astype(np.uint8)
            tiles += [
                ("picture", image),
                ("label", tally.draw(image, label)),
                ("prediction", tally.draw(image, prediction)),
            ]
        return contact_sheet(tiles, 3, width=_SHOWN_WIDTH)

    def _scalars(self, entry: dict) -> dict[str, float]:
        """Tag -> value, for what the log's line has a number of."""
        names = {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "mean_iou": "validation/mean_iou",
            "foreground_iou": "validation/foreground_iou",
            "pq": "validation/pq",
            "pq_things": "validation/pq_things",
            "pq_stuff": "validation/pq_stuff",
        }
        found = {tag: entry[key] for key, tag in names.items() if entry.get(key) is not None}
        for name, iou in zip(self._descriptor.classes, entry.get("class_iou", ()), strict=False):
            if iou is not None:
                found[f"validation_class_iou/{name}"] = iou
        return found

    def _statistics_batches(self) -> Iterable:
        """The first training batches: the same ones each time."""
        config = self._config
        count = min(_STATISTICS_PICTURES, self._descriptor.splits[config.train_split])
        found = batches(self._network, config).take(max(1, count // config.batch_size))
        for batch in _readable(found, config.data, config.train_split):
            self._check(self.step)
            yield batch

    def finish(self) -> None:
        """At the end of the run the model keeps the averaged weights, as the presets do."""
        with self._averaged:
            self._averaged.keep()


def _readable(batches: Iterable, data: str, split: str) -> Iterable:
    """The batches; a record that can't be used ends them with an `InputError` that names it."""
    with reading(data, split):
        yield from batches


def _score_of(scores: dict) -> float:
    """The one number that says how good a model is."""
    known = (scores[key] for key in ("pq", "foreground_iou", "mean_iou") if key in scores)
    return next(known, 0.0)


class _Tally:
    """Adds up what a model says of the classes of pixels."""

    # What the pipeline gives to compare with.
    targets = "semantic"

    def __init__(self, info: ModelInfo, descriptor: DatasetDescriptor, ignore: int):
        self._descriptor, self._ignore = descriptor, ignore
        self._total = ConfusionMatrix(descriptor.num_classes, ignore)
        self._foreground: list[float] = []

    def update(self, labels: np.ndarray, outputs: Any) -> np.ndarray:
        """Adds a batch; what the model predicts there, [B, h, w]."""
        if isinstance(outputs, dict):
            outputs = outputs[keys.SEMANTIC_LOGITS]
        predictions = np.asarray(outputs).argmax(-1)
        self._total.update(labels, predictions)
        if self._descriptor.num_classes == 2:
            hit = ((labels == 1) & (predictions == 1)).sum((1, 2))
            either = ((labels == 1) | ((predictions == 1) & (labels != self._ignore))).sum((1, 2))
            self._foreground += (hit / np.maximum(either, 1)).tolist()
        return predictions

    def scores(self) -> dict:
        """For the log."""
        found: dict = {"mean_iou": self._total.mean_iou}
        if self._foreground:
            found["foreground_iou"] = float(np.mean(self._foreground))
        found["class_iou"] = [
            None if np.isnan(iou) else round(float(iou), 5) for iou in self._total.class_iou
        ]
        return found

    def draw(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Labels in colours."""
        return colorize(labels, self._descriptor.colors)


class _PanopticTally(_Tally):
    """Adds up what a model says of instances too."""

    targets = "instances"

    def __init__(self, info, descriptor, ignore):
        super().__init__(info, descriptor, ignore)
        self._settings = merge_settings(info)
        self._quality = PanopticQuality(
            descriptor.num_classes,
            descriptor.thing_classes,
            descriptor.label_divisor,
            descriptor.ignore_label,
        )

    def update(self, labels, outputs):
        semantic = super().update(labels // self._settings.label_divisor, outputs)
        heatmaps, offsets = (
            np.asarray(outputs[key]) for key in (keys.CENTER_HEATMAP, keys.OFFSET_MAP)
        )
        found = []
        for truth, maps in zip(labels, zip(semantic, heatmaps, offsets, strict=True), strict=True):
            found.append(merge(*maps, self._settings)[keys.PANOPTIC_LABEL])
            self._quality.update(truth, found[-1])
        return np.stack(found)

    def scores(self):
        quality = self._quality
        parts = {"pq": quality.all, "pq_things": quality.things, "pq_stuff": quality.stuff}
        found = {name: float(part.pq) for name, part in parts.items() if part.classes}
        return {"pq": 0.0, **found, **super().scores()}

    def draw(self, image, labels):
        return panoptic_overlay(
            image,
            labels,
            self._descriptor.colors,
            self._settings.thing_classes,
            self._settings.label_divisor,
            ignore_label=self._settings.void_label,
        )
