"""A model whose answers the fully connected CRF sharpens, as DeepLabv1 and v2 did."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeplab_tf.errors import InputError
from deeplab_tf.files import read_json
from deeplab_tf.inference.base import PixelScores, Prepared, Runner, ScoreMap
from deeplab_tf.postprocess.crf_parameters import CRF_PRESETS, CrfParameters, find_parameters


def read_parameters(source: str | os.PathLike | CrfParameters) -> CrfParameters:
    """Parameters of the CRF: a preset's name, a file of `crf-search`, or the record itself.

    Raises:
        InputError: no such preset or file, or it holds something else.
    """
    if isinstance(source, CrfParameters) or source in CRF_PRESETS:
        return find_parameters(source)
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"{source} is neither parameters of the CRF, {' or '.join(CRF_PRESETS)}, nor a file "
            "that crf-search wrote."
        )
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("parameters"), dict):
        value = value["parameters"]
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no parameters of the CRF, as crf-search writes them.")
    try:
        return CrfParameters.from_dict(value)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


class CrfRunner(Runner):
    """Another runner's probabilities at the picture's own size, after the CRF.

    Args:
        runner: what to sharpen.
        parameters: see `read_parameters`.
    """

    def __init__(self, runner: Runner, parameters: str | os.PathLike | CrfParameters):
        self.inner = runner
        self.parameters = read_parameters(parameters)
        self.name = f"{runner.name}, CRF"
        self.info, self.size, self.max_pixels = runner.info, runner.size, runner.max_pixels

    @property
    def only_size(self) -> tuple[int, int] | None:
        return self.inner.only_size

    def forward(self, batch: np.ndarray) -> np.ndarray:
        return self.inner.forward(batch)

    def batch_scores(self, images: Sequence[np.ndarray]) -> list[PixelScores]:
        found = self.inner.batch_scores(images)
        return [self.sharpen(*pair) for pair in zip(images, found, strict=True)]

    def sharpen(self, image: np.ndarray, scores: PixelScores) -> ScoreMap:
        """The CRF's answer to what the model says of a picture.

        Raises:
            InputError: numba isn't installed, or the picture takes too much memory.
        """
        from deeplab_tf.postprocess.crf import dense_crf

        values = dense_crf(image, probabilities=scores.probabilities(), parameters=self.parameters)
        return ScoreMap(values, (image.shape[0], image.shape[1]))

    def _prepare(self, image: np.ndarray) -> Prepared:
        return self.inner._prepare(image)
