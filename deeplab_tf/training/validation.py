"""Scores during training, and what is kept of them: log, curves, presets, TensorBoard."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor, pipeline, reading
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.pictures import colorize, contact_sheet
from deeplab_tf.training.averages import AveragedWeights
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
                "score": scores.get("foreground_iou", scores.get("mean_iou", 0.0)),
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
        config = self._config
        total = ConfusionMatrix(self._descriptor.num_classes, self._ignore)
        foreground: list[float] = []
        shown: list[tuple[np.ndarray, ...]] = []
        batches = pipeline(
            config.data,
            config.val_split,
            image_size=config.eval_size or config.image_size,
            batch_size=config.batch_size,
            training=False,
            resize="stretch" if config.resize == "stretch" else "pad",
        )
        for images, labels in _readable(batches, config.data, config.val_split):
            self._check(self.step)
            logits = self._network.predict_on_batch(images)
            if isinstance(logits, dict):
                logits = logits[keys.SEMANTIC_LOGITS]
            predictions, labels = np.asarray(logits).argmax(-1), np.asarray(labels)
            total.update(labels, predictions)
            if self._descriptor.num_classes == 2:
                hit = ((labels == 1) & (predictions == 1)).sum((1, 2))
                either = ((labels == 1) | ((predictions == 1) & (labels != self._ignore))).sum(
                    (1, 2)
                )
                foreground += (hit / np.maximum(either, 1)).tolist()
            few = slice(0, max(0, _SHOWN - len(shown)))
            shown += zip(np.asarray(images[few]), labels[few], predictions[few], strict=True)
        scores: dict = {"mean_iou": total.mean_iou}
        if foreground:
            scores["foreground_iou"] = float(np.mean(foreground))
        scores["class_iou"] = [
            None if np.isnan(iou) else round(float(iou), 5) for iou in total.class_iou
        ]
        return scores, self._sheet(shown) if shown else None

    def _sheet(self, shown: list[tuple[np.ndarray, ...]]) -> np.ndarray:
        """A row per picture: image, label, prediction."""
        colors = self._descriptor.colors
        tiles = []
        for image, label, prediction in shown:
            tiles += [
                ("picture", image.clip(0, 255).astype(np.uint8)),
                ("label", colorize(label, colors)),
                ("prediction", colorize(prediction, colors)),
            ]
        return contact_sheet(tiles, 3, width=_SHOWN_WIDTH)

    def _scalars(self, entry: dict) -> dict[str, float]:
        """Tag -> value, for what the log's line has a number of."""
        names = {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "mean_iou": "validation/mean_iou",
            "foreground_iou": "validation/foreground_iou",
        }
        found = {tag: entry[key] for key, tag in names.items() if entry.get(key) is not None}
        for name, iou in zip(self._descriptor.classes, entry.get("class_iou", ()), strict=False):
            if iou is not None:
                found[f"validation_class_iou/{name}"] = iou
        return found

    def _statistics_batches(self) -> Iterable:
        """The first training batches: the same ones each time."""
        config = self._config
        batches = pipeline(
            config.data,
            config.train_split,
            image_size=config.image_size,
            batch_size=config.batch_size,
            training=True,
            augment=config.augment,
            seed=config.seed,
        )
        count = min(_STATISTICS_PICTURES, self._descriptor.splits[config.train_split])
        batches = batches.take(max(1, count // config.batch_size))
        for batch in _readable(batches, config.data, config.train_split):
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
