"""What happens between training steps: checkpoints, evaluation, log, progress, a stop at NaN."""

import json
import time
from pathlib import Path

import keras
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deeplab_tf.datasets import DatasetDescriptor, pipeline
from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.training import state
from deeplab_tf.training.averages import AveragedWeights
from deeplab_tf.training.config import TrainConfig
from deeplab_tf.training.curves import draw_curves


class StepCallback(keras.callbacks.Callback):
    """Counts steps over several calls of `fit`; the trainer sets `first_step` before each."""

    first_step = 0

    def __init__(self):
        super().__init__()
        self.step = 0

    def on_train_begin(self, logs=None):
        self.step = self.first_step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.on_step(self.step, logs or {})

    def on_step(self, step: int, logs: dict) -> None:
        """After step number `step`, counted from 1."""


class StopOnNaN(StepCallback):
    """Ends a run whose loss is no number, and says what to look at."""

    def __init__(self, run: Path):
        super().__init__()
        self._run = run

    def on_step(self, step, logs):
        if not np.isfinite(logs.get("loss", 0.0)):
            raise InputError(
                f"{self._run}: the loss is {logs['loss']} at step {step}. Likely causes: a "
                "learning rate too high for the batch size, or labels outside the classes. Lower "
                "optimizer.learning_rate and go on with --resume from the last checkpoint, or "
                "look at the data with: deeplab-tf data check"
            )


class Checkpoint(StepCallback):
    """Saves the full state every so many steps."""

    def __init__(self, run: Path, every: int):
        super().__init__()
        self._run, self._every = run, every

    def on_step(self, step, logs):
        if step % self._every == 0:
            state.save(self._run, self.model, step)


class ProgressBar(StepCallback):
    """One line on the terminal: step, loss, pictures per second, time left."""

    def __init__(self, config: TrainConfig, first: int):
        super().__init__()
        self._config, self._started, self._from = config, time.monotonic(), first
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(
            *columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn()
        )
        self._task = self._progress.add_task("", total=config.steps, completed=first, note="")

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._progress.start()

    def on_train_end(self, logs=None):
        self._progress.stop()

    def on_step(self, step, logs):
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = (step - self._from) * self._config.batch_size / seconds
        note = f"loss {logs.get('loss', float('nan')):.4f}  {rate:.0f} pictures/s"
        self._progress.update(self._task, completed=step, note=note)


class Log:
    """log.jsonl: one line per evaluation; lines after the resumed step are dropped."""

    def __init__(self, run: Path, first: int):
        self.path = run / "log.jsonl"
        kept = [entry for entry in self.read() if entry["step"] <= first]
        with atomic_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))

    def read(self) -> list[dict]:
        """All whole lines."""
        if not self.path.exists():
            return []
        entries = []
        for line in self.path.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return entries

    def append(self, entry: dict) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\n")


class Evaluation(StepCallback):
    """Scores the validation split, and keeps the best and the last weights as presets."""

    def __init__(
        self, model, config: TrainConfig, descriptor: DatasetDescriptor, ignore, run, log, say
    ):
        super().__init__()
        self._network, self._config, self._descriptor = model, config, descriptor
        self._ignore, self._run, self._log, self._say = ignore, run, log, say
        self._averaged = AveragedWeights(model, self._statistics_batches)

    def on_step(self, step, logs):
        if step % self._config.evaluate_every == 0 or step == self._config.steps:
            self.evaluate(step, logs)

    def evaluate(self, step: int, logs: dict) -> None:
        """Scores, logs and saves; weight averages are used where the optimiser keeps them."""
        best = max((entry["score"] for entry in self._log.read()), default=-1.0)
        with self._averaged:
            scores = self._score()
            entry = {
                "step": step,
                "loss": float(logs.get("loss", float("nan"))),
                "learning_rate": float(
                    keras.ops.convert_to_numpy(self._network.optimizer.learning_rate)
                ),
                **scores,
                # What "best" goes by.
                "score": scores.get("foreground_iou", scores.get("mean_iou", 0.0)),
            }
            self._log.append(entry)
            self._network.save_to_preset(self._run / "last")
            if entry["score"] > best:
                self._network.save_to_preset(self._run / "best")
        draw_curves(self._log.read(), self._run / "curves.png")
        shown = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if isinstance(v, float))
        self._say(f"step {step}: loss {entry['loss']:.4f}, {shown}")

    def _score(self) -> dict:
        if self._config.val_split not in self._descriptor.splits:
            return {}
        config = self._config
        total = ConfusionMatrix(self._descriptor.num_classes, self._ignore)
        foreground = []
        batches = pipeline(
            config.data,
            config.val_split,
            image_size=config.eval_size or config.image_size,
            batch_size=config.batch_size,
            training=False,
            resize="stretch" if config.resize == "stretch" else "pad",
        )
        for images, labels in batches:
            logits = self._network.predict_on_batch(images)
            predictions, labels = np.asarray(logits).argmax(-1), np.asarray(labels)
            total.update(labels, predictions)
            if self._descriptor.num_classes == 2:
                hit = ((labels == 1) & (predictions == 1)).sum((1, 2))
                either = ((labels == 1) | ((predictions == 1) & (labels != self._ignore))).sum(
                    (1, 2)
                )
                foreground += (hit / np.maximum(either, 1)).tolist()
        scores: dict = {"mean_iou": total.mean_iou}
        if foreground:
            scores["foreground_iou"] = float(np.mean(foreground))
        scores["class_iou"] = [
            None if np.isnan(iou) else round(float(iou), 5) for iou in total.class_iou
        ]
        return scores

    def _statistics_batches(self):
        """The first training batches, enough for a thousand pictures: the same ones each time."""
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
        return batches.take(max(1, 1024 // config.batch_size))

    def finish(self) -> None:
        """At the end of the run the model keeps the averaged weights, as the presets do."""
        with self._averaged:
            self._averaged.keep()
