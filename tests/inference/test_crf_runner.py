"""The CRF behind a model: at the picture's own size, with parameters by name or from a file."""

import json

import numpy as np
import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner
from deeplab_tf.inference.crf import CrfRunner, read_parameters
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.inference.segment import segment
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.crf_parameters import CRF_PRESETS, CrfParameters


class Unsure(Runner):
    """Sees a quarter of the pixels; where red is bright it says class 1, by a small margin."""

    name = "unsure"
    info = ModelInfo(("background", "red"), image_size=(12, 16), resize="stretch")

    def forward(self, batch: np.ndarray) -> np.ndarray:
        share = 0.3 + 0.4 * (batch[..., :1] > 128)
        noise = np.random.RandomState(0).uniform(-0.25, 0.25, share.shape)
        share = np.clip(share + noise, 0.01, 0.99).astype(np.float32)
        return np.concatenate([1 - share, share], -1)


@pytest.fixture
def picture():
    """A red rectangle on grey, 48x64."""
    image = np.full((48, 64, 3), 90, np.uint8)
    image[10:38, 14:50] = (220, 40, 40)
    return image


def test_edges_move_to_where_colours_change(picture):
    truth = picture[..., 0] > 128
    before = Unsure().scores(picture).labels() == truth
    after = segment(Unsure(), picture, crf="deeplab_v2_resnet_101").labels == truth
    assert before.mean() < 0.95
    assert after.mean() == 1.0


def test_probabilities_are_those_of_the_crf_at_the_pictures_size(picture):
    runner = load_runner(Unsure(), crf=CrfParameters(iterations=0), flip=True)
    assert runner.name == "unsure, flipped too, CRF"
    found = runner.scores(picture).probabilities()
    assert found.shape == (48, 64, 2) and found.dtype == np.float32
    # Without an iteration they are the model's.
    wanted = load_runner(Unsure(), flip=True).scores(picture).probabilities()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_parameters_come_from_a_name_a_file_or_a_record(tmp_path):
    record = CrfParameters(w1=7, sigma_alpha=80)
    assert read_parameters("deeplab_v2_resnet_101") == CRF_PRESETS["deeplab_v2_resnet_101"]
    assert read_parameters(record) is record
    file = tmp_path / "crf.json"
    for value in (record.to_dict(), {"parameters": record.to_dict(), "mean_iou": 0.5}):
        file.write_text(json.dumps(value))
        assert read_parameters(file) == read_parameters(str(file)) == record


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "neither parameters of the CRF, deeplab_v1_.* nor a file"),
        ("[1]", "holds no parameters of the CRF"),
        ('{"w3": 1}', "crf.json: The CRF has no parameter 'w3'"),
        ('{"sigma_beta": 0}', "crf.json: sigma_beta is a width above 0"),
        ("{", "crf.json"),
    ],
)
def test_a_file_of_something_else_is_named(content, words, tmp_path):
    file = tmp_path / "crf.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=words):
        CrfRunner(Unsure(), file)
