"""Official weights give the stored answers. Collected only with --pretrained-dir."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import deeplab_tf as dl
from deeplab_tf.checkpoints.answer import pad
from deeplab_tf.cli import main

PRESETS = {
    "deeplabv3_257_mv_gpu.tflite": "deeplab_v3_mobilenet_v2_dm05_voc",
    "deeplab_aiseg513_dm05_float.tflite": "deeplab_v3_mobilenet_v2_dm05_portrait",
    "deeplab_aiseg513_dm05_frozen_inference_graph.pb": "deeplab_v3_mobilenet_v2_dm05_portrait",
}
# Ties at the borders of regions fall either way.
MOST_OTHER_LABELS, MOST_DIFFERENCE = 1e-3, 1e-3


@pytest.fixture(scope="module")
def folder(request):
    return request.config.getoption("--pretrained-dir")


@pytest.fixture(scope="module", params=PRESETS)
def converted(request, folder, tmp_path_factory):
    """Name of an official file, and the model that the command line made of it."""
    out = tmp_path_factory.mktemp("converted") / "preset"
    arguments = [str(folder / request.param), "--model", PRESETS[request.param], "--out", str(out)]
    result = CliRunner().invoke(main, ["convert", *arguments])
    assert result.exit_code == 0, result.output
    assert "272 variables set" in result.output and "100.00% of the pixels" in result.output
    return request.param, dl.from_preset(out)


def picture(name: str, side: int, golden_weights) -> np.ndarray:
    if name == "input_image":
        return golden_weights.input_image(side, side)
    image = np.asarray(Image.open(Path(__file__).parent / "astronaut.png"))
    if name == "astronaut_512":
        return image
    at = np.arange(side) * len(image) // side
    return image[at][:, at]


def test_the_stored_answers_are_given(converted, folder, golden_weights):
    name, model = converted
    side = model.info.image_size[0]
    checks = json.loads((folder / "checks.json").read_text("utf-8"))[name]
    for which, check in checks.items():
        image = picture(which, side, golden_weights)
        assert zlib.crc32(image.tobytes()) == check["crc32"]
        height, width = image.shape[:2]
        found = model.endpoint_model("logits")(pad(image, (side, side)))["logits"]
        with np.load(folder / "checks.npz") as arrays:
            expected = arrays[f"{Path(name).stem}/{which}"]
        np.testing.assert_allclose(np.asarray(found)[0], expected, atol=MOST_DIFFERENCE)
        labels = np.asarray(model(pad(image, (side, side))))[0, :height, :width].argmax(-1)
        shares = {str(value): np.mean(labels == value) for value in np.unique(labels)}
        for value in {*shares, *check["label_fractions"]}:
            share = check["label_fractions"].get(value, 0)
            assert shares.get(value, 0) == pytest.approx(share, abs=MOST_OTHER_LABELS), which


def test_the_official_checkpoint_has_the_presets_variables(folder):
    path = folder / "official_mobilenetv2_coco_voc_trainval_variables.json"
    listed = json.loads(path.read_text("utf-8"))
    from deeplab_tf.checkpoints.tf1 import is_weight, source_name

    rows = listed["variables"] if isinstance(listed, dict) else listed
    official = {row[0]: tuple(row[1]) for row in rows if is_weight(row[0])}
    model = dl.from_preset("deeplab_v3_mobilenet_v2_voc_trainval", load_weights=False)
    found = {source_name(weight.path, model): tuple(weight.shape) for weight in model.weights}
    assert found == official
