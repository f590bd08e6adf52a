"""What happens between training steps: checkpoints, log, progress, and reasons to stop."""

import json
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deeplab_tf.errors import InputError
from deeplab_tf.files import atomic_file
from deeplab_tf.training import state
from deeplab_tf.training.config import TrainConfig


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

    def close(self) -> None:
        """When `fit` ends, with or without an error; `on_train_end` is only called without."""


class StopOnNaN(StepCallback):
    """Ends a run whose loss is no number, and says what to look at."""

    def __init__(self, run: Path):
        super().__init__()
        self._run = run

    def on_step(self, step, logs):
        if not np.isfinite(logs.get("loss", 0.0)):
            raise InputError(
                f"{self._run}: the loss is {logs['loss']} at step {step}. Likely causes: a "
                "learning rate too high for the batch size, or wrong labels. Start a new run with "
                "a lower optimizer.learning_rate or with optimizer.clip_norm=1, or look at the "
                "data with: deeplab-tf data check"
            )


class Checkpoint(StepCallback):
    """Saves the full state every so many steps, and after the last."""

    def __init__(self, run: Path, every: int, last: int):
        super().__init__()
        self._run, self._every, self._last = run, every, last

    def on_step(self, step, logs):
        if step % self._every == 0 or step == self._last:
            state.save(self._run, self.model, step)


class Stopped(KeyboardInterrupt):  # noqa: N818 - an interruption, no error
    """Training was asked to stop, and has stopped between two steps.

    Attributes:
        step: how many are done.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}")
        self.step = step


class StopOnInterrupt(StepCallback):
    """Ends a run between two steps after Ctrl-C. The second Ctrl-C ends it at once.

    Args:
        say: called with a line for the user.
    """

    def __init__(self, say):
        super().__init__()
        self._say, self._asked, self._old = say, False, None

    def __enter__(self) -> "StopOnInterrupt":
        # Python lets only the main thread listen to signals; elsewhere Ctrl-C stays as it is.
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _ask(self, *_) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._say("stopping after this step; Ctrl-C again stops at once")

    def check(self, step: int) -> None:
        """Raises `Stopped` if it was asked for; for what takes long within a step."""
        if self._asked:
            raise Stopped(step)

    def on_step(self, step, logs):
        self.check(step)


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

    def close(self):
        self._progress.stop()

    def on_step(self, step, logs):
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = (step - self._from) * self._config.batch_size / seconds
        speed = f"{rate:.{1 if rate < 10 else 0}f} pictures/s"
        note = f"loss {logs.get('loss', float('nan')):.4f}  {speed}"
        self._progress.update(self._task, completed=step, note=note)


class Log:
    """log.jsonl: one line per evaluation; lines after the resumed step are dropped.

    The loss in a line is the mean since the evaluation before it, or since the run was resumed.
    """

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
