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


@pytest.mark.parametrize(("rates", "scaled"), [(None, (12, 24, 36)), ((2, 3), (4, 6))], ids=str)
def test_another_output_stride_is_the_model_built_at_it(rates, scaled, tmp_path):
    options = dict(depth_multiplier=0.25, aspp_convs_filters=8, decoder_filters=8)
    trained = dl.DeepLabV3Plus(3, **options, output_stride=16, atrous_rates=rates)
    random = np.random.default_rng(0)
    for weight in trained.weights:
        if weight.path.endswith("kernel"):  # as first drawn they let nothing through
            fan_in = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:3])
            weight.assign(random.normal(0, (2 / fan_in) ** 0.5, weight.shape))
    trained.save_to_preset(tmp_path / "preset")
    wanted = dl.DeepLabV3Plus(3, **options, output_stride=8, atrous_rates=scaled)
    load_variables(wanted, tmp_path / "preset" / "weights.npz")
    ours = dl.from_preset(tmp_path / "preset", output_stride=8)
    assert ours.get_config()["atrous_rates"] == [*scaled]
    image = random.integers(0, 256, (1, 65, 49, 3)).astype("float32")
    found, expected, coarse = (np.asarray(model(image)) for model in (ours, wanted, trained))
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
    assert np.abs(found - coarse).max() > 0.1 * expected.std()


def test_rates_go_down_with_a_larger_stride_and_given_ones_stay(tmp_path):
    small = dict(depth_multiplier=0.25, aspp_convs_filters=8)
    dl.DeepLabV3(3, **small, output_stride=8).save_to_preset(tmp_path / "a")
    for stride, rates in dl.models.deeplab_v3.ATROUS_RATES.items():
        config = dl.from_preset(tmp_path / "a", output_stride=stride).get_config()
        assert config["atrous_rates"] == [*rates]
    kept = dl.from_preset(tmp_path / "a", output_stride=16, atrous_rates=(1, 2, 3))
    assert kept.get_config()["atrous_rates"] == [1, 2, 3]
    assert dl.from_preset(tmp_path / "a", num_classes=5).get_config()["output_stride"] == 8


def test_a_stride_that_the_model_cannot_have_is_refused(tmp_path):
    small = dict(depth_multiplier=0.25, aspp_convs_filters=8)
    dl.DeepLabV3(3, **small, atrous_rates=(3, 6, 9)).save_to_preset(tmp_path / "a")
    for stride in (4, 64, 0, -8, "8", None, 8.5):
        with pytest.raises(dl.InputError, match=r"output_stride of mobilenet_v2 is one of \[8, 16"):
            dl.from_preset(tmp_path / "a", output_stride=stride)
    with pytest.raises(dl.InputError, match=r"\(3, 6, 9\) of output stride 16 are no whole .* 32"):
        dl.from_preset(tmp_path / "a", output_stride=32)


def test_a_published_preset_takes_another_stride_too():
    model = dl.from_preset(
        "deeplab_v3_plus_mobilenet_v2_ade20k", load_weights=False, output_stride=8
    )
    assert model.get_config()["output_stride"] == 8 and model.get_config()["atrous_rates"] == []


def test_a_config_that_is_no_preset_is_named(folder):
    (folder / "config.json").write_text(json.dumps({"class_name": "UNet"}))
    with pytest.raises(dl.InputError, match="config.json"):
        dl.from_preset(folder)


def test_an_unknown_preset_says_where_to_look():
    with pytest.raises(dl.InputError, match="deeplab-tf models"):
        dl.from_preset("no_such_model")


def test_weights_that_convert_does_not_read_are_not_offered_to_it():
    name = "deeplab_v3_mobilenet_v2_garden_voc"
    with pytest.raises(dl.InputError, match="convert doesn't read those at https://storage"):
        dl.from_preset(name)
    row = next(row for row in dl.list_presets() if row["name"] == name)
    assert not row["convertible"] and row["weights"].endswith("model_none.tflite")


def test_the_table_of_presets_can_be_printed_and_searched():
    table = dl.list_presets()
    assert "portrait" in table and "unet" not in table
    lines = str(table).splitlines()
    assert lines[0].split() == ["name", "task", "parameters", "multiply_adds", "weights", "source"]
    assert len(lines) == len(table) + 1
    (line,) = [line for line in lines if line.startswith("deeplab_v3_mobilenet_v2_voc ")]
    assert "semantic" in line and "2,113,557" in line and "none (convert)" in line
