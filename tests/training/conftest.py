"""Runs that several tests look at; each takes seconds, so each is made once."""

import dataclasses
import functools
from pathlib import Path

import pytest

from deeplab_tf.training import state
from deeplab_tf.training.config import OptimizerConfig, TrainConfig, load_config
from deeplab_tf.training.train import train

OPTIMIZERS = {
    "momentum": OptimizerConfig(learning_rate=0.02, clip_norm=1.0, last_layer_multiplier=10.0),
    "adamw with averages": OptimizerConfig(name="adamw", learning_rate=0.01, ema=0.9),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder in which every checkpoint was kept.

    Attributes:
        config: its settings.
        folder: where it is.
        lines: what it said.
        model: with its final weights.
    """

    config: TrainConfig
    folder: Path
    lines: list[str]
    model: object

    def checkpoint(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}.npz"


@pytest.fixture(scope="session")
def tiny(drawn_records, tiny_config) -> TrainConfig:
    """The settings of a run of seconds."""
    return dataclasses.replace(load_config(str(tiny_config)), data=str(drawn_records))


@pytest.fixture(scope="session")
def make_run(tiny, tmp_path_factory):
    """Optimiser -> a run with it that nothing interrupted; made when first asked for."""

    @functools.cache
    def make(optimizer: str) -> Run:
        config = dataclasses.replace(tiny, optimizer=OPTIMIZERS[optimizer])
        folder = tmp_path_factory.mktemp("whole") / "run"
        lines: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state, "_KEEP", 100)
            model = train(config, folder, say=lines.append)
        return Run(config, folder, lines, model)

    return make


# Not of session scope itself: pytest would make each run anew whenever tests change between them.
@pytest.fixture(params=list(OPTIMIZERS))
def whole_run(request, make_run) -> Run:
    """An uninterrupted run with each of the optimisers."""
    return make_run(request.param)
