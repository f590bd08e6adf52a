"""`deeplab-tf convert`: an official file in, a preset out; a mistake ends with 2 and a line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from source_files import write_checkpoint, write_state_dict

import deeplab_tf as dl
from deeplab_tf.checkpoints import frozen_graph
from deeplab_tf.checkpoints.convert import build_model
from deeplab_tf.checkpoints.tf1 import source_name
from deeplab_tf.cli import main

KERNEL = "MobilenetV2/expanded_conv_3/expand/weights"


def run(*arguments):
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def tiny_arrays(tiny_model):
    return {source_name(w.path, tiny_model): np.asarray(w) for w in tiny_model.weights}


@pytest.fixture(scope="module")
def tiny_checkpoint(tiny_arrays, tmp_path_factory):
    """A folder with the checkpoint of `tiny_model`."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder / "model.ckpt-3", {**tiny_arrays, "global_step": np.int64(3)})
    return folder


@pytest.fixture(scope="module")
def files(tiny_checkpoint, tiny_graph_file, tiny_lite_file):
    return {"checkpoint": tiny_checkpoint, "graph": tiny_graph_file, "tflite": tiny_lite_file}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("checkpoint", "not compared with the file's own answer: a checkpoint holds no graph"),
        ("graph", "the file's own labels are the same in 100.00% of the pixels"),
        ("tflite", "its logits differ by"),
    ],
)
def test_each_format_becomes_a_preset(files, kind, said, tiny_config, tiny_model, tmp_path):
    out = tmp_path / "preset"
    result = run(files[kind], "--model", tiny_config, "--out", out)
    assert result.exit_code == 0, result.output
    assert (
        "272 variables set" in result.output and "Nothing missing, nothing extra" in result.output
    )
    assert said in result.output
    model = dl.from_preset(out)
    image = np.random.RandomState(3).randint(0, 256, (1, 49, 65, 3)).astype(np.float32)
    expected, found = (np.asarray(m(image, training=False)) for m in (tiny_model, model))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert model.info.classes == ("background", "cat", "dog")
    assert files[kind].name in model.info.source or kind == "checkpoint"
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert len(report["variables"]) == 272 and (out / "answer.png").is_file()


def test_the_name_map_is_printed_whole(files, tiny_config, tmp_path):
    result = run(files["graph"], "--model", tiny_config, "--out", tmp_path / "p", "--names")
    assert "MobilenetV2/expanded_conv_3/expand/weights" in result.output
    assert result.output.count("MobilenetV2.expanded_conv_3.expand.BatchNorm/") == 4


def test_other_classes_make_the_last_layer_anew(files, tiny_config, tmp_path):
    out = tmp_path / "p"
    result = run(files["graph"], "--model", tiny_config, "--out", out, "--classes", "a,b,c,d")
    assert result.exit_code == 0, result.output
    assert "the last layer is new and untrained" in result.output
    assert dl.from_preset(out).info.classes == ("a", "b", "c", "d")


def _renamed(arrays):
    return {
        name.replace("expand/", "expansion/") if name == KERNEL else name: array
        for name, array in arrays.items()
    }


def _removed(arrays):
    return {name: array for name, array in arrays.items() if name != KERNEL}


def _transposed(arrays):
    return {
        name: array.transpose(0, 1, 3, 2) if name == KERNEL else array
        for name, array in arrays.items()
    }


def _fewer_classes(arrays):
    return {
        name: array[..., :2] if name.startswith("logits/") else array
        for name, array in arrays.items()
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_renamed, f"1 missing: {KERNEL} (is it "),
        (_removed, f"1 missing: {KERNEL}."),
        (_transposed, "(transposed?)"),
        (_fewer_classes, "The file has 2 classes, the model 3"),
    ],
)
def test_a_variable_that_does_not_fit_ends_with_two(
    change, reason, tiny_arrays, tiny_config, tmp_path
):
    prefix = write_checkpoint(tmp_path / "in" / "model.ckpt-1", change(tiny_arrays))
    out = tmp_path / "preset"
    result = run(prefix, "--model", tiny_config, "--out", out)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {prefix}") and reason in result.stderr
    assert len(result.stderr.splitlines()) <= 2 and not out.exists()


def _not_lite(folder, files):
    (folder / "model.tflite").write_bytes(b"\x89PNG and so on, for longer than a header is")
    return folder / "model.tflite"


def _cut_lite(folder, files):
    data = files["tflite"].read_bytes()
    (folder / "model.tflite").write_bytes(data[: len(data) // 2])
    return folder / "model.tflite"


def _cut_graph(folder, files):
    data = files["graph"].read_bytes()
    (folder / "graph.pb").write_bytes(data[: len(data) // 2])
    return folder / "graph.pb"


def _cut_checkpoint(folder, files):
    copy = shutil.copytree(files["checkpoint"], folder / "copy")
    (data,) = copy.glob("*.data-*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    return copy


def _no_index(folder, files):
    copy = shutil.copytree(files["checkpoint"], folder / "copy")
    (copy / "model.ckpt-3.index").unlink()
    return copy


def _cut_state_dict(folder, files):
    path = Path(write_state_dict(folder / "model.pth", {"weight": np.zeros(99, np.float32)}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _changed_graph(folder, files):
    """A constant with fewer numbers than its shape needs."""
    graph = frozen_graph.parse(files["graph"])
    (node,) = [node for node in graph.node if node.name == KERNEL]
    node.attr["value"].tensor.tensor_content = b"1234" * 3
    (folder / "graph.pb").write_bytes(graph.SerializeToString())
    return folder / "graph.pb"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_not_lite, "isn't a TFLite file"),
        (_cut_lite, "damaged or cut-off TFLite"),
        (_cut_graph, "isn't a frozen TensorFlow graph"),
        (_cut_checkpoint, "incomplete or damaged"),
        (_no_index, "half a checkpoint, model.ckpt-3.index is missing"),
        (_cut_state_dict, "is damaged or cut off"),
        (_changed_graph, f"is damaged at {KERNEL}"),
    ],
)
def test_a_file_that_cannot_be_read_ends_with_two(damage, reason, files, tiny_config, tmp_path):
    path = damage(tmp_path, files)
    out = tmp_path / "preset"
    out.mkdir()
    result = run(path, "--model", tiny_config, "--out", out)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {path}") and reason in result.stderr
    assert len(result.stderr.splitlines()) <= 2 and not any(out.iterdir())


def test_a_graph_of_another_stride_is_told_by_its_answer(files, tiny_config, tmp_path):
    out = tmp_path / "p"
    result = run(files["tflite"], "--model", tiny_config, "--out", out, "--output-stride", "32")
    assert result.exit_code == 1, result.output
    assert "labels the stored picture differently" in result.stderr and not out.exists()


def test_an_earlier_preset_outlives_a_mistake(files, tiny_config, tmp_path):
    out = tmp_path / "p"
    assert run(files["graph"], "--model", tiny_config, "--out", out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(tmp_path / "none.pb", "--model", tiny_config, "--out", out).exit_code == 2
    assert run(files["graph"], "--model", "portrait", "--out", out).exit_code == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_that_is_no_preset_is_left_alone(files, tiny_config, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    result = run(files["graph"], "--model", tiny_config, "--out", tmp_path)
    assert result.exit_code == 2 and "exists and is no preset" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("arguments", {"aspp_convs_filters": 10**12}, "a model is "),
        ("arguments", {"num_classes": -3}, "a model is "),
        (
            "info",
            {"image_size": [0, 65]},
            "image_size is [height, width], each from 1 to 4096; got",
        ),
        ("info", {"image_size": [10**6, 10**6]}, "image_size is [height, width]"),
        ("info", {"image_size": "large"}, "image_size is [height, width]"),
    ],
)
def test_a_description_that_makes_no_model_ends_with_two(
    part, change, reason, files, tiny_config, tmp_path
):
    config = json.loads(tiny_config.read_text("utf-8"))
    config[part].update(change)
    (tmp_path / "model.json").write_text(json.dumps(config))
    result = run(files["graph"], "--model", tmp_path / "model.json", "--out", tmp_path / "p")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {tmp_path / 'model.json'}: {reason}")
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "p").exists()


def test_the_atrous_rates_follow_another_output_stride():
    model = build_model("deeplab_v3_mobilenet_v2_aspp_voc", output_stride=8)
    assert model.get_config()["atrous_rates"] == [12, 24, 36]
