"""What an image classifier gives to a segmentation model: its backbone, and nothing else."""

import json
import logging

import numpy as np
import pytest
from click.testing import CliRunner
from source_files import write_checkpoint

import deeplab_tf as dl
from deeplab_tf.checkpoints import Source
from deeplab_tf.checkpoints.convert import convert
from deeplab_tf.checkpoints.strict import assign
from deeplab_tf.checkpoints.tf1 import source_name
from deeplab_tf.cli import main

NARROW = {"depth_multiplier": 0.25, "divisible_by": 8}
NAS = {"nas_architecture_options": {"nas_stem_output_num_conv_filters": 2}}


def _values(model):
    return {w.path: np.asarray(w).copy() for w in model.weights}


def _randomized(model):
    random = np.random.RandomState(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


def _tf1(model):
    """Its variables as an official checkpoint has them."""
    arrays = {source_name(w.path, model): np.asarray(w) for w in model.weights}
    return Source("imagenet.ckpt", "TF1 checkpoint", {**arrays, "global_step": np.array(5)})


@pytest.mark.parametrize(
    ("backbone", "options", "left_out"),
    [
        # Convolution with batch norm, and logits; the wide convolution with bias, and logits.
        ("mobilenet_v2", NARROW, 7),
        ("mobilenet_v3_small_seg", {"depth_multiplier": 0.25}, 4),
        # Two convolutions with batch norm, and logits without bias.
        ("nas_pnasnet", {**NAS, "output_stride": 32}, 6),
        ("resnet_v1_18_beta", {}, 2),
    ],
)
def test_only_the_backbone_of_a_classifier_is_taken(backbone, options, left_out):
    classifier = _randomized(dl.ImageClassifier(11, backbone, **options))
    options = {"aspp_convs_filters": 8, "atrous_rates": (), **options}
    model = dl.DeepLabV3(3, backbone, **options)
    before, theirs = _values(model), _values(classifier)
    loaded = assign(model, _tf1(classifier))
    scope = dl.BACKBONES[backbone].scope
    for path, value in _values(model).items():
        wanted = theirs if path.startswith(f"{scope}.") else before
        np.testing.assert_array_equal(value, wanted[path])
    assert loaded.backbone_only
    assert len(loaded.left_out) == left_out + 1  # and the step
    assert ", an image classifier: the" in str(loaded)


def test_the_classifier_itself_takes_all_or_another_number_of_classes():
    classifier = _randomized(dl.ImageClassifier(11, "mobilenet_v2", **NARROW))
    same = dl.ImageClassifier(11, "mobilenet_v2", **NARROW)
    loaded = assign(same, _tf1(classifier))
    assert not loaded.backbone_only
    assert len(loaded.variables) == len(same.weights)
    fewer = assign(dl.ImageClassifier(3, "mobilenet_v2", **NARROW), _tf1(classifier))
    assert [path.split("/")[0] for path in fewer.new] == ["MobilenetV2.Logits.Conv2d_1c_1x1"] * 2


def test_a_backbone_of_another_width_is_refused_and_nothing_changes():
    classifier = dl.ImageClassifier(11, "mobilenet_v2", depth_multiplier=0.5)
    model = dl.DeepLabV3(3, "mobilenet_v2", atrous_rates=(), **NARROW)
    before = _values(model)
    with pytest.raises(dl.InputError, match="of another shape: MobilenetV2/Conv/weights"):
        assign(model, _tf1(classifier))
    for path, value in _values(model).items():
        np.testing.assert_array_equal(value, before[path])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "classifier"
    _randomized(dl.ImageClassifier(11, "mobilenet_v2", **NARROW)).save_to_preset(path)
    return path


def test_a_folder_of_a_classifier_gives_its_backbone_and_one_line_says_so(folder, caplog):
    model = dl.DeepLabV3(3, "mobilenet_v2", atrous_rates=(), **NARROW)
    with caplog.at_level(logging.WARNING):
        loaded = dl.checkpoints.load(model, folder)
    assert [record.getMessage() for record in caplog.records] == [str(loaded)]
    assert loaded.format == "preset folder"
    assert loaded.backbone_only
    theirs = _values(dl.ImageClassifier.from_preset(folder))
    path = "MobilenetV2.expanded_conv_16.project.BatchNorm/gamma"
    np.testing.assert_array_equal(_values(model)[path], theirs[path])


@pytest.mark.parametrize("num_classes", [None, 4])
def test_a_classifier_does_not_become_a_segmentation_model(num_classes, folder, tmp_path):
    config = tmp_path / "model.json"
    config.write_text(
        '{"class_name": "DeepLabV3", "arguments": {"num_classes": 3, "atrous_rates": [], '
        '"depth_multiplier": 0.25, "divisible_by": 8}}'
    )
    words = r"is an image classifier: only its backbone fits .*\(--model mobilenet_v2\)"
    with pytest.raises(dl.InputError, match=words):
        convert(folder, config, tmp_path / "out", num_classes=num_classes)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_a_classifier_becomes_a_folder_by_the_name_of_its_backbone(tmp_path):
    classifier = _randomized(dl.ImageClassifier(11, "resnet_v1_18_beta"))
    arrays = dict(_tf1(classifier).arrays)
    slots = {f"{name}/Momentum": np.zeros_like(array) for name, array in arrays.items()}
    source = write_checkpoint(tmp_path / "in" / "model.ckpt", {**arrays, **slots})
    command = ["convert", source, "--model", "resnet_v1_18_beta", "--num-classes", "11"]
    result = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "Nothing missing, nothing extra." in result.output
    assert f"model.arguments.backbone=resnet_v1_18_beta init={tmp_path / 'out'}" in result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [(v["source"], v["path"], tuple(v["shape"])) for v in report["variables"]] == [
        (source_name(w.path, classifier), w.path, tuple(w.shape)) for w in classifier.weights
    ]
    assert len(report["answer"]["shares"]) == 5 and not report["made_anew"]
    # Its values, and its answer.
    image = np.random.RandomState(1).uniform(0, 255, (1, 33, 33, 3)).astype("float32")
    made = dl.ImageClassifier.from_preset(tmp_path / "out")
    np.testing.assert_array_equal(*(np.asarray(m(image)) for m in (made, classifier)))


def test_another_file_does_not_become_a_classifier(folder, tmp_path):
    dl.DeepLabV3(3, atrous_rates=(), **NARROW).save_to_preset(tmp_path / "in")
    words = r"doesn't fit image_classifier: 7 missing: MobilenetV2/Conv_1/.*: aspp0.BatchNorm/"
    with pytest.raises(dl.InputError, match=words):
        convert(tmp_path / "in", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_classifier_is_no_preset_of_a_segmentation_model(folder, tmp_path):
    with pytest.raises(dl.InputError, match="holds an ImageClassifier: dl.ImageClassifier.from"):
        dl.from_preset(folder)
    dl.DeepLabV3(3, atrous_rates=(), **NARROW).save_to_preset(tmp_path / "other")
    with pytest.raises(dl.InputError, match="holds DeepLabV3, not ImageClassifier"):
        dl.ImageClassifier.from_preset(tmp_path / "other")
