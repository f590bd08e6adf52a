"""Checkpoints of deeplab2: named by attributes, loaded whole or not at all."""

import dataclasses
import functools
import json
import logging
from pathlib import Path

import deeplab2_models
import keras
import mask_transformers
import numpy as np
import pytest
from source_files import write_checkpoint, write_object_checkpoint

import deeplab_tf as dl
from deeplab_tf.backbones.convnext import Variant
from deeplab_tf.checkpoints.convert import convert
from deeplab_tf.checkpoints.deeplab2 import OBJECT_GRAPH, Deeplab2Names, by_attributes

GOLDEN = Path(deeplab2_models.__file__).parent
HEADS = dict(
    aspp_channels=8,
    decoder_channels=8,
    head_channels=8,
    instance_aspp_channels=8,
    instance_decoder_channels=8,
    instance_head_channels=8,
)
NARROW = dict(backbone_width_multiplier=0.125, stem_width_multiplier=0.125)
# MaX-DeepLab has one decoder, and other heads.
MASK_HEADS = {
    **{name: 8 for name in HEADS if not name.startswith("instance_")},
    **dict(pixel_head_channels=8, pixel_channels=8, num_mask_slots=4),
}
TINY = dict(
    backbone="axial_resnet_s",
    atrous_rates=(2,),
    low_level=(("res2", 8),),
    instance_low_level=(("res2", 8),),
    backbone_layer_multiplier=0.34,
    **HEADS,
    **NARROW,
)
KERNEL = "encoder/_stage4/_block2/_conv1_bn_act/_conv/kernel"
CASES = (
    "panoptic_deeplab/mobilenet_v3_small_os32",
    "panoptic_deeplab/resnet50_beta_os32",
    "panoptic_deeplab/swidernet_sac_1_1_1_os16",
    "axial_deeplab/max_deeplab_s_backbone_os16",
    "max_deeplab/max_deeplab_s_coco",
    "kmax_deeplab/kmax_convnext_tiny_coco",
    "kmax_deeplab/kmax_r50_cityscapes",
)


def _arrays(model) -> dict[str, np.ndarray]:
    """Key without its suffix -> values that tell every variable from the others."""
    names, random = Deeplab2Names(model), np.random.RandomState(0)
    return {
        names.source_name(w.path, model): random.normal(size=w.shape).astype("float32")
        for w in model.weights
    }


@pytest.fixture(scope="module")
def model():
    """One to load into; a test that depends on its weights fills it first."""
    return dl.PanopticDeepLab(3, **TINY)


@pytest.fixture(scope="module")
def arrays(model):
    return _arrays(model)


@pytest.fixture(scope="module")
def checkpoint(arrays, tmp_path_factory):
    """A prefix to look at; don't write beside it."""
    return write_object_checkpoint(tmp_path_factory.mktemp("ckpt") / "ckpt-60000", arrays)


def _values(model):
    return {w.path: np.asarray(w).copy() for w in model.weights}


def _assert_holds(model, arrays, leave=lambda path: False):
    names = Deeplab2Names(model)
    for weight in model.weights:
        if not leave(weight.path):
            wanted = arrays[names.source_name(weight.path, model)]
            np.testing.assert_array_equal(np.asarray(weight), wanted, err_msg=weight.path)


@pytest.mark.parametrize("case", CASES)
def test_names_are_those_of_the_source_both_ways(case):
    """Of a narrow network: names depend on what there is, not on how wide it is."""
    facts = json.loads((GOLDEN / "data" / f"{case}.json").read_text("utf-8"))
    masks = facts["family"] in ("max_deeplab", "kmax_deeplab")
    description = (mask_transformers if masks else deeplab2_models).describe_model(facts)
    narrow = {"depth_multiplier": 0.25} if "mobilenet" in case else NARROW
    if facts["family"] == "kmax_deeplab":
        narrow = {}  # its decoder has a shortcut's projection only where widths differ
    arguments = {**description["arguments"], **(MASK_HEADS if masks else HEADS), **narrow}
    with keras.StatelessScope(initialize_variables=False):
        network = getattr(dl, description["class_name"])(**arguments)
    names = Deeplab2Names(network)
    ours = {names.source_name(w.path, network): w.path for w in network.weights}
    assert len(ours) == len(network.weights)
    assert set(ours) == {name for name, *_ in facts["variables"]}
    assert all(names.variable_path(name, network) == path for name, path in ours.items())
    assert all(names.is_weight(name, network) for name in ours)


def test_standard_convolutions_of_the_decoders_have_names_without_parts():
    standard = dict.fromkeys(("decoder_conv_type", "head_conv_type"), "standard_conv")
    network = dl.PanopticDeepLab(3, **TINY, **standard, tasks="semantic")
    names = Deeplab2Names(network)
    found = {names.source_name(w.path, network) for w in network.weights}
    wanted = {
        f"{block}/_conv1_bn_act/{variable}"
        for block in ("semantic_decoder/_fusion_conv1", "semantic_head_without_last_layer")
        for variable in ("_conv/kernel", *(f"_batch_norm/{n}" for n in ("gamma", "moving_mean")))
    }
    assert wanted < found and "semantic_last_layer/bias" in found
    assert not [name for name in found if "wise" in name or name.startswith("instance")]


def test_a_checkpoint_is_loaded_whole_and_what_a_trainer_adds_is_left_out(
    checkpoint, model, arrays
):
    loaded = dl.checkpoints.load(model, checkpoint)
    _assert_holds(model, arrays)
    assert loaded.format == "deeplab2 (TF2) checkpoint" and loaded.path == checkpoint
    assert {v.source: v.path for v in loaded.variables} == {
        name: Deeplab2Names(model).variable_path(name, model) for name in arrays
    }
    assert loaded.left_out == ("global_step", "optimizer/iter")
    assert not loaded.new and not loaded.backbone_only


def test_slots_averages_and_an_unused_decoder_are_left_out(model, arrays, tmp_path):
    ending = "/.ATTRIBUTES/VARIABLE_VALUE"
    slot = f"{KERNEL}/.OPTIMIZER_SLOT/optimizer/m{ending}"
    unused = "encoder/_decoder_stage1/_block1/_conv1_bn_act/_conv/kernel"
    others = {"optimizer/beta_1": np.float32(0.9), "save_counter": np.int64(3), unused: np.ones(2)}
    content = {f"{name}{ending}": x for name, x in {**arrays, **others}.items()}
    content |= {slot: arrays[KERNEL] * 7, OBJECT_GRAPH: np.array(b"a graph", object)}
    prefix = write_checkpoint(tmp_path / "in" / "ckpt-5", content)
    loaded = dl.checkpoints.load(model, tmp_path / "in")
    _assert_holds(model, arrays)
    assert loaded.path == prefix
    assert loaded.left_out == (unused, "optimizer/beta_1", "save_counter")


def test_what_was_saved_below_a_root_is_found(model, arrays, tmp_path):
    rooted = {f"model/{name}": array for name, array in arrays.items()}
    dl.checkpoints.load(model, write_object_checkpoint(tmp_path / "ckpt-5", rooted))
    _assert_holds(model, arrays)


def _refusal(model, arrays, folder) -> str:
    """What is said, and that no weight has changed."""
    before = _values(model)
    with pytest.raises(dl.InputError) as error:
        dl.checkpoints.load(model, write_object_checkpoint(folder / "ckpt-5", arrays))
    for path, value in _values(model).items():
        np.testing.assert_array_equal(value, before[path])
    assert str(error.value).startswith(f"{folder / 'ckpt-5'} doesn't fit panoptic_deeplab: ")
    return str(error.value)


def test_a_missing_variable_is_named(model, arrays, tmp_path):
    less = {name: array for name, array in arrays.items() if name != KERNEL}
    assert f"1 missing: {KERNEL}." in _refusal(model, less, tmp_path)


def test_a_renamed_variable_is_named_with_the_nearest(model, arrays, tmp_path):
    renamed = KERNEL.replace("_stage4", "_stage6")
    changed = {renamed if name == KERNEL else name: array for name, array in arrays.items()}
    message = _refusal(model, changed, tmp_path)
    assert f"1 missing: {KERNEL} (is it {renamed}?)." in message
    assert f"1 that the model doesn't have: {renamed}." in message


def test_a_transposed_variable_is_named_with_both_shapes(model, arrays, tmp_path):
    turned = arrays[KERNEL].transpose(0, 1, 3, 2)
    message = _refusal(model, {**arrays, KERNEL: turned}, tmp_path)
    wanted = f"{KERNEL} {turned.shape} instead of {arrays[KERNEL].shape} (transposed?)"
    assert f"1 of another shape: {wanted}" in message


def test_another_number_of_classes_makes_the_last_layer_anew(checkpoint, arrays, caplog):
    other = dl.PanopticDeepLab(5, **TINY)
    with caplog.at_level(logging.WARNING):
        loaded = dl.checkpoints.load(other, checkpoint)
    last = ("semantic_last_layer/kernel", "semantic_last_layer/bias")
    assert loaded.new == last
    _assert_holds(other, arrays, leave=lambda path: path in last)
    (record,) = caplog.records
    assert "has 3 classes, panoptic_deeplab 5: the last layer is made anew" in record.getMessage()
    with pytest.raises(dl.InputError, match="--num-classes 3"):
        dl.checkpoints.load(other, checkpoint, new_last_layer=False)


def _config(folder):
    path = folder / "model.json"
    arguments, info = {"num_classes": 3, **TINY}, {"image_size": [33, 33], "resize": "stretch"}
    value = {"class_name": "PanopticDeepLab", "arguments": arguments, "info": info}
    path.write_text(json.dumps(value), "utf-8")
    return path


def test_an_encoder_alone_gives_the_backbone_and_a_line_says_so(model, arrays, tmp_path, caplog):
    encoder = {name: 2 * x for name, x in arrays.items() if name.startswith("encoder/")}
    prefix = write_object_checkpoint(tmp_path / "ckpt-5", encoder)
    before = _values(model)
    with caplog.at_level(logging.WARNING):
        loaded = dl.checkpoints.load(model, prefix)
    assert loaded.backbone_only and len(loaded.variables) == len(encoder)
    assert [record.getMessage() for record in caplog.records] == [str(loaded)]
    assert f"a backbone alone: the {len(encoder)} variables of its backbone are set" in str(loaded)
    _assert_holds(model, encoder, leave=lambda path: not path.startswith("encoder."))
    for path, value in _values(model).items():
        if not path.startswith("encoder."):
            np.testing.assert_array_equal(value, before[path])
    with pytest.raises(dl.InputError, match="only its backbone fits panoptic_deeplab.*init=PATH"):
        convert(prefix, _config(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_something_else_is_named_as_such(model, tmp_path):
    prefix = write_object_checkpoint(tmp_path / "ckpt-5", {"net/dense/kernel": np.ones((2, 2))})
    words = rf"{prefix}: a TF2 \(object-based\) checkpoint, but none of deeplab2's models: "
    with pytest.raises(dl.InputError, match=words + ".*; its first variable is global_step"):
        dl.checkpoints.load(model, prefix)
    with pytest.raises(dl.InputError, match="its first variable is missing"):
        by_attributes({OBJECT_GRAPH: np.array(b"", object)}, "some/file")


def test_a_converted_checkpoint_is_the_model(checkpoint, arrays, tmp_path):
    done = convert(checkpoint, _config(tmp_path), tmp_path / "out")
    assert done.loaded.format == "deeplab2 (TF2) checkpoint"
    made = dl.from_preset(tmp_path / "out")
    _assert_holds(made, arrays)
    assert made.info.source == "Converted from ckpt-60000 (deeplab2 (TF2) checkpoint)."
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert {v["source"] for v in report["variables"]} == set(arrays)
    assert report["left_out"] == ["global_step", "optimizer/iter"]


def _max_deeplab(size="s"):
    options = {**NARROW, **MASK_HEADS, "atrous_rates": (), "backbone_layer_multiplier": 0.34}
    return dl.MaXDeepLab(3, size, **options)


def test_a_pretrained_encoder_gives_all_but_what_masks_need(tmp_path):
    network = _max_deeplab()
    arrays = _arrays(network)
    pretrained = {
        name: array
        for name, array in arrays.items()
        if name.startswith("encoder/")
        and not any(part in name for part in ("_transformer/", "_extra", "memory_feature"))
    }
    before = _values(network)
    loaded = dl.checkpoints.load(network, write_object_checkpoint(tmp_path / "ckpt-5", pretrained))
    assert loaded.backbone_only and len(loaded.variables) == len(pretrained)
    _assert_holds(network, pretrained, leave=lambda path: path in loaded.new)
    after = _values(network)
    for path in loaded.new:
        np.testing.assert_array_equal(after[path], before[path])
    # One more makes it no backbone.
    more = "encoder/memory_feature"
    prefix = write_object_checkpoint(tmp_path / "ckpt-6", {**pretrained, more: arrays[more]})
    with pytest.raises(dl.InputError, match="missing"):
        dl.checkpoints.load(network, prefix)


def test_the_stacked_decoder_is_a_part_of_the_model_that_has_it():
    with keras.StatelessScope(initialize_variables=False):
        network = _max_deeplab("l")
    names = Deeplab2Names(network)
    ours = {names.source_name(w.path, network): w.path for w in network.weights}
    assert len(ours) == len(network.weights)
    assert all(names.is_weight(name, network) for name in ours)
    # None of a name that the model doesn't have is passed over.
    assert names.is_weight("encoder/_decoder_stage1/_block9/_conv1_bn/_conv/kernel", network)
    assert {
        "encoder/_decoder_stage1/_block1/_conv1_bn_act/_conv/kernel",
        "encoder/_decoder_stage3_resized_fuse/_strided_conv_bn1/_batch_norm/gamma",
        "encoder/_decoder_stage4_extra/_block3_transformer/_pixel_attention/"
        "_batch_norm_similarity/gamma",
    } < set(ours)


def test_masks_are_converted(tmp_path):
    network = _max_deeplab()
    arrays = _arrays(network)
    config = {"class_name": "MaXDeepLab", "arguments": network.get_config()}
    config["info"] = {"image_size": [33, 33], "resize": "stretch"}
    (tmp_path / "model.json").write_text(json.dumps(config), "utf-8")
    prefix = write_object_checkpoint(tmp_path / "ckpt-5", arrays)
    convert(prefix, tmp_path / "model.json", tmp_path / "out")
    _assert_holds(dl.from_preset(tmp_path / "out"), arrays)
    assert (tmp_path / "out" / "answer.png").is_file()


def _kmax_deeplab(backbone="resnet50", num_classes=3, **options):
    narrow = {**MASK_HEADS, "pixel_decoder_width_multiplier": 0.125, "transformer_filters": 8}
    narrow |= {"feed_forward_channels": 8, "atrous_rates": (), "low_level": ()}
    if backbone == "resnet50":
        narrow |= {**NARROW, "backbone_layer_multiplier": 0.34}
    return dl.KMaXDeepLab(num_classes, backbone, **narrow, **options)


@pytest.fixture
def convnext(monkeypatch):
    """A model on a narrow ConvNeXt, and its values as deeplab2 lays them out."""
    record = dl.BACKBONES["convnext_tiny"]
    variant = Variant((1, 1, 2, 1), (8, 8, 16, 24))
    narrow = dataclasses.replace(record, build=functools.partial(record.build.func, variant))
    monkeypatch.setitem(dl.BACKBONES, "convnext_tiny", narrow)
    network = _kmax_deeplab("convnext_tiny")
    arrays = _arrays(network)
    theirs = dict(arrays)
    for name, array in arrays.items():
        if name.endswith("/depthwise_conv/kernel"):
            theirs[name] = array.swapaxes(2, 3)
        elif "/pointwise_conv" in name and name.endswith("/kernel"):
            theirs[name] = array[0, 0]
    return network, arrays, theirs


def test_kernels_of_a_convnext_are_laid_out_anew(convnext, tmp_path):
    network, arrays, theirs = convnext
    shapes = {n: theirs[n].shape for n in theirs if theirs[n].shape != arrays[n].shape}
    assert shapes["encoder/stages/2/layer_with_weights-1/depthwise_conv/kernel"] == (7, 7, 1, 16)
    assert shapes["encoder/stages/3/layer_with_weights-0/pointwise_conv1/kernel"] == (24, 96)
    assert len(shapes) == 3 * 5
    dl.checkpoints.load(network, write_object_checkpoint(tmp_path / "ckpt-5", theirs))
    _assert_holds(network, arrays)


def test_a_kernel_of_a_convnext_that_is_turned_already_is_named(convnext, tmp_path):
    network, arrays, theirs = convnext
    name = "encoder/stages/2/layer_with_weights-1/depthwise_conv/kernel"
    prefix = write_object_checkpoint(tmp_path / "ckpt-5", {**theirs, name: arrays[name]})
    with pytest.raises(dl.InputError, match=f"1 of another shape: {name} .*transposed"):
        dl.checkpoints.load(network, prefix)


@pytest.mark.parametrize("root", ["encoder/", ""])
def test_a_convnext_by_itself_gives_the_backbone(convnext, root, tmp_path):
    network, arrays, theirs = convnext
    alone = {
        root + name.removeprefix("encoder/"): array
        for name, array in theirs.items()
        if name.startswith("encoder/")
    }
    loaded = dl.checkpoints.load(network, write_object_checkpoint(tmp_path / "ckpt-5", alone))
    assert loaded.backbone_only and len(loaded.variables) == len(alone)
    _assert_holds(network, arrays, leave=lambda path: not path.startswith("encoder."))


def test_other_classes_make_the_heads_of_all_steps_anew(tmp_path, caplog):
    """Void counts for slots alone, unless it is one of the classes."""
    source = _kmax_deeplab(num_classes=5, ignore_label=0)
    arrays = _arrays(source)
    prefix = write_object_checkpoint(tmp_path / "ckpt-5", arrays)
    network = _kmax_deeplab(num_classes=3)
    with caplog.at_level(logging.WARNING):
        loaded = dl.checkpoints.load(network, prefix)
    heads = {path.rpartition("/")[0].rpartition(".")[2] for path in loaded.new}
    assert heads == {"semantic_last_layer", "transformer_class_head"}
    assert len(loaded.new) == 2 * 8
    _assert_holds(network, arrays, leave=lambda path: path in loaded.new)
    assert "has 5 classes, kmax_deeplab 3: the last layer is made anew" in caplog.text
