"""Scores during training, and what is kept of them: log, curves, presets, TensorBoard."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deeplab_tf.datasets import DatasetDescriptor, pipeline, reading
from deeplab_tf.pictures import contact_sheet
from deeplab_tf.training.averages import AveragedWeights
from deeplab_tf.training.callbacks import Log, StepCallback
from deeplab_tf.training.config import TrainConfig
from deeplab_tf.training.curves import draw_curves
from deeplab_tf.training.objectives import batches
from deeplab_tf.training.tallies import Tally, tally_for
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
        tally = tally_for(self._network, self._descriptor, self._ignore)
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

    def _sheet(self, shown: list[tuple[np.ndarray, ...]], tally: Tally) -> np.ndarray:
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
