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
from deeplab_tf.checkpoints.frozen_graph import read_frozen_graph
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
    with np.load(folder / "checks.npz") as arrays:
        stored = {key: arrays[key] for key in arrays.files if key.split("/")[0] == Path(name).stem}
    assert {key.split("/")[1] for key in stored} == {*checks}
    for which, check in checks.items():
        image = picture(which, side, golden_weights)
        assert zlib.crc32(image.tobytes()) == check["crc32"]
        height, width = image.shape[:2]
        endpoint = model.endpoint_model("logits")(pad(image, (side, side)))["logits"]
        logits = np.asarray(endpoint)
        expected = stored[f"{Path(name).stem}/{which}"]
        np.testing.assert_allclose(logits[0], expected, rtol=0, atol=MOST_DIFFERENCE)
        upsampled = np.asarray(model(pad(image, (side, side))))
        compare_statistics(check, logits, upsampled)
        labels = upsampled[0, :height, :width].argmax(-1)
        assert check.get("label_shape", [1, height, width]) == [1, *labels.shape]
        shares = {str(value): np.mean(labels == value) for value in np.unique(labels)}
        for value in {*shares, *check["label_fractions"]}:
            share = check["label_fractions"].get(value, 0)
            assert shares.get(value, 0) == pytest.approx(share, abs=MOST_OTHER_LABELS), which


def compare_statistics(check: dict, logits: np.ndarray, upsampled: np.ndarray) -> None:
    """Those of a TFLite file are of its output, those of a graph before the last resize."""
    shape = check.get("output_shape") or check["logits_shape"]
    values = upsampled if "output_shape" in check else logits
    assert [*values.shape] == shape
    for statistic in ("min", "max", "mean", "std"):
        found = getattr(values.astype(np.float64), statistic)()
        assert found == pytest.approx(check[statistic], abs=MOST_DIFFERENCE), statistic


def test_every_file_with_stored_answers_is_asked(folder):
    assert {*json.loads((folder / "checks.json").read_text("utf-8"))} == {*PRESETS}


def test_the_frozen_graph_holds_the_listed_variables(folder):
    listed = json.loads((folder / "deeplab_aiseg513_dm05_variables.json").read_text("utf-8"))
    found = read_frozen_graph(folder / "deeplab_aiseg513_dm05_frozen_inference_graph.pb")
    expected = {name: tuple(shape) for name, shape, _ in listed["variables"]}
    assert {name: array.shape for name, array in found.items()} == expected


def test_a_file_and_a_graph_of_one_model_give_one_answer(folder, golden_weights):
    models = []
    for name in sorted(PRESETS):
        if "aiseg513" in name:
            model = dl.from_preset(PRESETS[name], load_weights=False)
            dl.checkpoints.load(model, folder / name)
            models.append(model)
    image = picture("astronaut", 513, golden_weights)
    folded, whole = (np.asarray(m.endpoint_model("logits")(image[None])["logits"]) for m in models)
    np.testing.assert_allclose(folded, whole, rtol=0, atol=1e-4)


def test_the_official_checkpoint_has_the_presets_variables(folder):
    path = folder / "official_mobilenetv2_coco_voc_trainval_variables.json"
    listed = json.loads(path.read_text("utf-8"))
    from deeplab_tf.checkpoints.tf1 import is_weight, source_name

    rows = listed["variables"] if isinstance(listed, dict) else listed
    official = {row[0]: tuple(row[1]) for row in rows if is_weight(row[0])}
    model = dl.from_preset("deeplab_v3_mobilenet_v2_voc_trainval", load_weights=False)
    found = {source_name(weight.path, model): tuple(weight.shape) for weight in model.weights}
    assert found == official
