"""State dicts of PyTorch's DeepLabs: every name maps, nothing else goes by."""

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

import deeplab_tf as dl
from deeplab_tf.checkpoints.pytorch import PyTorchNames, read_pytorch
from deeplab_tf.cli import main

HEAD = {"aspp_with_separable_conv": False, "image_pooling_last": True, "align_corners": False}
SMALL = {
    **HEAD,
    **{"backbone": "mobilenet_v2_torch", "depth_multiplier": 0.25, "aspp_convs_filters": 8},
    **{"decoder_use_separable_conv": False, "decoder_num_convs": 1, "decoder_filters": 8},
    "decoder_low_level_first": True,
}
KERNEL = "backbone.high_level_features.5.conv.1.0.weight"


def make_model(num_classes=3, **options):
    return dl.DeepLabV3Plus(num_classes, **{**SMALL, **options})


@pytest.fixture(scope="module")
def model():
    return make_model()


def state_dict(model, names=()):
    """What PyTorch would save of `model`: other random numbers, its names and layouts."""
    rule, random = PyTorchNames(model, names), np.random.RandomState(0)
    arrays = {}
    for weight in model.weights:
        array = random.uniform(0.1, 1, weight.shape).astype("float32")
        if array.ndim == 4:
            depthwise = "depthwise" in weight.path
            array = array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        name = rule.source_name(weight.path, model)
        arrays[name] = np.ascontiguousarray(array)
        if name.endswith("running_var"):
            arrays[name.replace("running_var", "num_batches_tracked")] = np.array(5)
    return arrays


def write(path, arrays):
    """As .safetensors."""
    table, data = {}, b""
    for name, array in arrays.items():
        kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        place = [len(data), len(data) + array.nbytes]
        table[name] = {"dtype": kind, "shape": array.shape, "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture(scope="module")
def arrays(model):
    return state_dict(model)


def test_every_variable_is_set_in_tensorflows_layout(model, arrays, tmp_path):
    loaded = dl.checkpoints.load(model, write(tmp_path / "model.safetensors", arrays))
    assert loaded.format == "PyTorch state dict" and not loaded.new
    assert [variable.path for variable in loaded.variables] == [w.path for w in model.weights]
    assert all(name.endswith(".num_batches_tracked") for name in loaded.left_out)
    assert len(loaded.variables) + len(loaded.left_out) == len(arrays)
    depthwise = model.get_layer("MobilenetV2.expanded_conv_4.depthwise").kernel
    np.testing.assert_array_equal(np.asarray(depthwise), arrays[KERNEL].transpose(2, 3, 0, 1))
    kernel = arrays["classifier.classifier.0.weight"]
    ours = model.get_layer("decoder.decoder_conv0.decoder_conv0_1").kernel
    np.testing.assert_array_equal(np.asarray(ours), kernel.transpose(2, 3, 1, 0))


def _removed(arrays):
    return {name: array for name, array in arrays.items() if name != KERNEL}


def _renamed(arrays):
    return {name.replace("conv.1.0", "conv.1.9"): array for name, array in arrays.items()}


def _extra(arrays):
    return {**arrays, "classifier.extra.weight": np.zeros(3, "float32")}


def _transposed(arrays):
    return {**arrays, KERNEL: arrays[KERNEL].transpose(1, 0, 2, 3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_removed, f"1 missing: {KERNEL}."),
        (_renamed, f"{KERNEL} (is it backbone.high_level_features.5.conv.1.9.weight?)"),
        (_extra, "1 that the model doesn't have: classifier.extra.weight."),
        (_transposed, "(transposed?)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_changes(change, words, model, arrays, tmp_path):
    before = [np.asarray(weight).copy() for weight in model.weights]
    path = write(tmp_path / "model.safetensors", change(arrays))
    with pytest.raises(dl.InputError) as error:
        dl.checkpoints.load(model, path)
    assert words in str(error.value) and str(error.value).startswith(str(path))
    assert all(np.array_equal(a, np.asarray(w)) for a, w in zip(before, model.weights, strict=True))


def test_names_of_a_model_on_several_devices_are_mapped_and_shown(model, arrays, tmp_path):
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    loaded = dl.checkpoints.load(model, write(tmp_path / "model.safetensors", wrapped))
    assert {variable.source for variable in loaded.variables} < set(wrapped)


def test_an_auxiliary_head_is_left_out_where_the_model_has_none(tmp_path):
    options = {**HEAD, "head_num_convs": 1, "aspp_convs_filters": 8, "depth_multiplier": 0.25}
    whole, plain = (
        dl.DeepLabV3(3, "mobilenet_v3_large_torch", auxiliary_endpoint=endpoint, **options)
        for endpoint in ("res3", None)
    )
    path = write(tmp_path / "model.safetensors", state_dict(whole))
    assert not any("aux_classifier.4" in name for name in dl.checkpoints.load(whole, path).left_out)
    left_out = dl.checkpoints.load(plain, path).left_out
    assert {"aux_classifier.0.weight", "aux_classifier.4.bias"} <= set(left_out)


def test_both_ways_to_wrap_the_head_of_deeplab_v3_are_known():
    options = {**HEAD, "head_num_convs": 1, "aspp_convs_filters": 8, "depth_multiplier": 0.25}
    model = dl.DeepLabV3(3, "mobilenet_v2_torch", **options)
    path = "logits.semantic/bias"
    assert PyTorchNames(model, ()).source_name(path, model) == "classifier.4.bias"
    wrapped = PyTorchNames(model, ["classifier.classifier.0.convs.0.0.weight"])
    assert wrapped.source_name(path, model) == "classifier.classifier.4.bias"
    assert len({wrapped.source_name(w.path, model) for w in model.weights}) == len(model.weights)


def test_a_file_of_mmsegmentation_is_known_by_its_heads_names(tmp_path, monkeypatch):
    monkeypatch.setattr("deeplab_tf.backbones.resnet._WIDTHS", (8, 8, 8, 8))
    whole, plain = (
        dl.DeepLabV3Plus(
            3,
            "resnet_v1c_50",
            auxiliary_endpoint=endpoint,
            **{"align_corners": False, "concat_projection_kernel_size": 3},
            **{"aspp_convs_filters": 8, "decoder_filters": 8},
        )
        for endpoint in ("res4", None)
    )
    arrays = state_dict(whole, ["decode_head.conv_seg.weight"])
    kernel = arrays["decode_head.aspp_modules.2.depthwise_conv.conv.weight"]
    assert kernel.shape == (32, 1, 3, 3)
    assert arrays["backbone.stem.6.weight"].shape == (64, 32, 3, 3)
    assert arrays["decode_head.bottleneck.conv.weight"].shape == (8, 40, 3, 3)
    path = write(tmp_path / "model.safetensors", arrays)
    loaded = dl.checkpoints.load(whole, path)
    assert not any("auxiliary_head.conv_seg" in name for name in loaded.left_out)
    ours = whole.get_layer("aspp2_depthwise").kernel
    np.testing.assert_array_equal(np.asarray(ours), kernel.transpose(2, 3, 0, 1))
    left_out = dl.checkpoints.load(plain, path).left_out
    assert {"auxiliary_head.convs.0.conv.weight", "auxiliary_head.conv_seg.bias"} <= set(left_out)
    del arrays["decode_head.sep_bottleneck.1.pointwise_conv.bn.running_mean"]
    with pytest.raises(dl.InputError, match="1 missing: decode_head.sep_bottleneck.1.pointwise"):
        dl.checkpoints.load(plain, write(path, arrays))


def test_the_initial_weights_of_v2_give_their_backbone(tmp_path, monkeypatch):
    """A network without ASPP, whose names have nothing before them."""
    monkeypatch.setattr("deeplab_tf.backbones.resnet._WIDTHS", (8, 8, 8, 8))
    options = {"atrous_rates": (), "aspp_with_batch_norm": False, "align_corners": False}
    initial = dl.DeepLabV3(91, "resnet_50_caffe", output_stride=8, **options)
    names = ["layer2.block1.reduce.conv.weight", "fc.weight"]
    arrays = state_dict(initial, names)
    assert {"layer1.conv1.bn.running_var", "layer5.block3.increase.bn.bias", "fc.bias"} < set(
        arrays
    )
    path = write(tmp_path / "model.safetensors", arrays)
    assert not dl.checkpoints.load(initial, path).backbone_only
    model = dl.DeepLabV2(3, "resnet_50_caffe", image_pyramid=(1.0, 0.5))
    loaded = dl.checkpoints.load(model, path)
    assert loaded.backbone_only
    assert {path.split("/")[0].split("_")[0] for path in loaded.new} == {"logits.semantic"}
    kernel = model.get_layer("resnet_50.block1.unit_1.bottleneck_v1.shortcut").kernel
    stored = arrays["layer2.block1.shortcut.conv.weight"]
    np.testing.assert_array_equal(np.asarray(kernel), stored.transpose(2, 3, 1, 0))


def test_other_classes_make_the_last_layer_anew(arrays, tmp_path):
    model = make_model(5)
    loaded = dl.checkpoints.load(model, write(tmp_path / "model.safetensors", arrays))
    assert loaded.new == ("logits.semantic/kernel", "logits.semantic/bias")


def test_a_file_of_another_model_says_so(arrays, tmp_path):
    path = write(tmp_path / "model.safetensors", arrays)
    with pytest.raises(dl.InputError, match="another architecture"):
        dl.checkpoints.load(dl.DeepLabV3(3, "resnet_v1_18"), path)


def test_a_pth_file_goes_the_same_way(tmp_path, model):
    from pathlib import Path

    file = Path(__file__).parent / "torch_files" / "training.pth"
    arrays, _, origins = read_pytorch(file, model)
    assert set(arrays) == {"weight", "bias"} and not origins
    with pytest.raises(dl.InputError, match="doesn't fit deeplab_v3_plus: .* missing: backbone"):
        dl.checkpoints.load(model, file)


@pytest.fixture
def config(model, tmp_path):
    path = tmp_path / "model.json"
    info = {"classes": ["background", "cat", "dog"], "image_size": [65, 65], "resize": "fit"}
    path.write_text(
        json.dumps({"class_name": "DeepLabV3Plus", "arguments": model.get_config(), "info": info})
    )
    return path


def test_convert_makes_a_preset_of_it(arrays, config, tmp_path):
    path, out = write(tmp_path / "model.safetensors", arrays), tmp_path / "preset"
    command = ["convert", str(path), "--model", str(config), "--out", str(out), "--names"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert KERNEL in result.output and "Nothing missing, nothing extra" in result.output
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["format"] == "PyTorch state dict"
    model = dl.from_preset(out)
    np.testing.assert_array_equal(
        np.asarray(model.get_layer("logits.semantic").bias), arrays["classifier.classifier.3.bias"]
    )


class _Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_convert_refuses_code_with_two(config, tmp_path):
    marker, path = tmp_path / "run", tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weight": _Attack(marker)}, 2))
    command = ["convert", str(path), "--model", str(config), "--out", str(tmp_path / "preset")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and not marker.exists()
    assert "holds Python code" in result.stderr and len(result.stderr.splitlines()) <= 2
    assert not (tmp_path / "preset").exists()
