"""Export from end to end: nothing gets its name before it has been compared with the model."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.errors import InputError
from deeplab_tf.export import VerificationError, export_model, read_metadata
from deeplab_tf.export.benchmark import measure_lite_file
from deeplab_tf.export.verify import compare
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.models.info import ModelInfo


@pytest.fixture(scope="module")
def exported(model, picture_folder, tmp_path_factory):
    """(path, report) of an int8 file."""
    path = tmp_path_factory.mktemp("exported") / "tiny.tflite"
    return path, export_model(model, path, quantize="int8", calibration=picture_folder)


def test_the_report_says_what_was_measured(exported, model):
    path, report = exported
    assert json.loads((path.parent / "report.json").read_text()) == report
    assert report["file"] == "tiny.tflite" and report["quantize"] == "int8"
    assert report["bytes"] == path.stat().st_size
    assert report["size"] == [64, 64]
    assert report["parameters"] == model.count_params()
    # Sixteen pictures: a fifth is held out for the comparison.
    assert (report["calibration_pictures"], report["pictures"]) == (13, 3)
    assert report["threshold"] <= report["agreement"] <= 1
    assert 0.9 < report["mean_iou"] <= 1
    assert 0 < report["mean_error"] < report["max_error"] < 0.5
    assert report["builtin_only"] and report["partitions"] == 1
    assert report["input"] == {
        "name": "image",
        "dtype": "uint8",
        "shape": [1, 64, 64, 3],
        "scale": 1.0,
        "zero_point": 0,
    }
    assert sorted(report["latency_ms"]) == ["1", "2"]
    assert min(report["latency_ms"].values()) > 0


def test_the_file_knows_its_classes_and_its_size(exported, model):
    path, _ = exported
    info = LiteRTRunner(path).info
    assert info == dataclasses.replace(model.info, training={})
    assert read_metadata(path.read_bytes()).labels == model.info.classes


def test_predict_runs_the_file_on_a_picture_of_any_size(exported, model, scenes):
    from deeplab_tf.inference.runner import KerasRunner

    path, _ = exported
    picture = scenes[2]
    lite = LiteRTRunner(path).scores(picture).labels()
    assert lite.shape == picture.shape[:2]
    assert (lite == KerasRunner(model).scores(picture).labels()).mean() > 0.97


def test_below_the_threshold_the_old_files_stay(model, scenes, tmp_path):
    path = tmp_path / "tiny.tflite"
    path.write_bytes(b"old")
    (tmp_path / "report.json").write_text("old")
    with pytest.raises(VerificationError, match="less than the threshold of 1") as caught:
        export_model(model, path, quantize="int8", calibration=scenes, threshold=1.0)
    assert caught.value.report["agreement"] < 1
    assert path.read_bytes() == b"old"
    assert (tmp_path / "report.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "tiny.tflite"]


def test_without_pictures_views_of_a_sample_photo_are_compared(model, tmp_path):
    report = export_model(
        model, tmp_path / "a.tflite", size=(32, 48), report=tmp_path / "sub" / "r.json"
    )
    assert report["pictures_from"] == "views of matplotlib's sample photo"
    assert report["pictures"] == 16 and report["size"] == [32, 48]
    assert json.loads((tmp_path / "sub" / "r.json").read_text()) == report
    assert not (tmp_path / "report.json").exists()


def test_measuring_a_file_finds_the_same_facts(exported):
    path, report = exported
    measured = measure_lite_file(path, threads=(1,), seconds=0.01)
    for key in ("size", "bytes", "operators", "partitions"):
        assert measured[key] == report[key]
    assert list(measured["latency_ms"]) == ["1"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quantize": "int8"}, "--calibration"),
        ({"quantize": "int8", "calibration": []}, "no calibration pictures"),
        ({"quantize": "int8", "calibration": "no/such/folder"}, "no such folder"),
        ({"quantize": "qat"}, "qat needs a model that was trained"),
        ({"to": "onnx"}, "to is one of"),
        ({"to": "saved_model", "quantize": "int8"}, "stays float32"),
        ({"labels": "masks"}, "labels is one of"),
        ({"threshold": 99}, "0 to 1; got 99"),
        ({"size": 0}, "at least 1x1"),
    ],
)
def test_a_mistake_is_named_before_anything_is_written(model, tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        export_model(model, tmp_path / "a.tflite", **options)
    assert list(tmp_path.iterdir()) == []


def test_another_ending_or_a_folder_in_the_way_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="ends in .tflite"):
        export_model(model, tmp_path / "model.bin")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        export_model(model, tmp_path / "folder.tflite", size=(32, 32), check_pictures=1)


def test_a_model_of_fixed_size_takes_no_other(build_tiny, tmp_path):
    with pytest.raises(InputError, match="built for 48x32"):
        export_model(build_tiny((48, 32, 3)), tmp_path / "a.tflite", size=64)


def test_a_model_without_a_size_needs_one(tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(image))
    with pytest.raises(InputError, match="no picture size of its own"):
        export_model(model, tmp_path / "a.tflite")


def test_a_classifier_is_refused(tmp_path):
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(InputError, match="only semantic models"):
        export_model(model, tmp_path / "a.tflite")


def test_numbers_that_are_none_agree_with_nothing():
    wanted = np.zeros((2, 2, 3), np.float32)
    wanted[..., 0] = 1
    found = compare(lambda p: wanted, lambda p: wanted * np.nan, [wanted], num_classes=3)
    assert found.agreement == 0 and found.max_error == 1


def test_agreement_counts_pixels_over_pictures_of_all_sizes():
    def labels(picture):
        return (picture[..., 0] > 100).astype(np.uint8)

    def shifted(picture):
        return np.roll(labels(picture), 1, axis=1)

    small, large = np.zeros((2, 2, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)
    large[:, 4:] = 255
    found = compare(labels, shifted, [small, large], num_classes=2)
    # Two columns of four pixels differ, of 36 pixels.
    assert found.agreement == pytest.approx(1 - 8 / 36)
    assert found.mean_iou == pytest.approx((16 / 24 + 12 / 20) / 2)
    assert found.max_error is None


def test_of_several_outputs_the_first_is_exported(picture_folder, tmp_path):
    """Auxiliary heads and the scales of DeepLabV2 are for training."""
    options = {"depth_multiplier": 0.1, "divisible_by": 1, "atrous_rates": ()}
    model = dl.DeepLabV3(3, auxiliary_endpoint="res3", aspp_convs_filters=8, **options)
    model.info = ModelInfo(image_size=(33, 49), resize="stretch")
    kernel = model.get_layer("logits.semantic").kernel
    kernel.assign(np.random.RandomState(0).normal(size=kernel.shape))
    report = export_model(model, tmp_path / "model.tflite", calibration=picture_folder)
    assert report["agreement"] > 0.99
    assert report["output"]["shape"] == [1, 33, 49, 3]
