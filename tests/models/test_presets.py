import json

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.models.weights import load_variables, read_variables, save_variables


@pytest.fixture(scope="module")
def model():
    return dl.DeepLabV3(3, depth_multiplier=0.25, atrous_rates=(), aspp_convs_filters=8)


@pytest.fixture
def folder(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset"


def _rewrite(folder, change):
    arrays = read_variables(folder / "weights.npz")
    change(arrays)
    np.savez(folder / "weights.npz", **arrays)


def test_a_missing_variable_is_named(folder):
    _rewrite(folder, lambda arrays: arrays.pop("aspp0/kernel"))
    with pytest.raises(dl.InputError, match=r"1 missing: aspp0/kernel\."):
        dl.from_preset(folder)


def test_an_extra_variable_is_named(folder):
    _rewrite(folder, lambda arrays: arrays.update({"aspp9/kernel": np.zeros(1)}))
    with pytest.raises(dl.InputError, match="1 not in the model: aspp9/kernel"):
        dl.from_preset(folder)


def test_a_misshapen_variable_is_named_with_both_shapes(folder):
    def transpose(arrays):
        arrays["aspp0/kernel"] = arrays["aspp0/kernel"].transpose(0, 1, 3, 2)

    _rewrite(folder, transpose)
    with pytest.raises(dl.InputError, match=r"aspp0/kernel \(1, 1, 8, 80\) instead of"):
        dl.from_preset(folder)


def test_nothing_is_assigned_when_something_does_not_fit(model, tmp_path):
    save_variables(model, tmp_path / "weights.npz")
    arrays = read_variables(tmp_path / "weights.npz")
    before = {w.path: np.asarray(w).copy() for w in model.weights}
    arrays = {name: array + 1 for name, array in arrays.items() if name != "aspp0/kernel"}
    np.savez(tmp_path / "weights.npz", **arrays)
    with pytest.raises(dl.InputError):
        load_variables(model, tmp_path / "weights.npz")
    assert all(np.array_equal(before[w.path], np.asarray(w)) for w in model.weights)


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_broken_weights_file_is_named(folder, damage):
    path = folder / "weights.npz"
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    with pytest.raises(dl.InputError, match="weights.npz"):
        dl.from_preset(folder)


def test_another_number_of_classes_makes_only_the_last_layer_anew(model, folder):
    other = dl.from_preset(folder, num_classes=5)
    assert other.output.shape[-1] == 5
    kept = {w.path: np.asarray(w) for w in model.weights if not w.path.startswith("logits")}
    for weight in other.weights:
        if weight.path in kept:
            np.testing.assert_array_equal(np.asarray(weight), kept[weight.path])


def test_another_output_stride_takes_the_same_weights(folder):
    assert dl.from_preset(folder, output_stride=8).get_config()["output_stride"] == 8


def test_a_config_that_is_no_preset_is_named(folder):
    (folder / "config.json").write_text(json.dumps({"class_name": "UNet"}))
    with pytest.raises(dl.InputError, match="config.json"):
        dl.from_preset(folder)


def test_an_unknown_preset_says_where_to_look():
    with pytest.raises(dl.InputError, match="deeplab-tf models"):
        dl.from_preset("no_such_model")


def test_the_table_of_presets_can_be_printed_and_searched():
    table = dl.list_presets()
    assert "portrait" in table and "unet" not in table
    lines = str(table).splitlines()
    assert lines[0].split() == ["name", "task", "parameters", "multiply_adds", "weights", "source"]
    assert len(lines) == len(table) + 1
    (line,) = [line for line in lines if line.startswith("deeplab_v3_mobilenet_v2_voc ")]
    assert "semantic" in line and "2,113,557" in line and "none (convert)" in line
