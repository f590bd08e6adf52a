"""Conversion: every way of storing a model, as one fixed graph of builtin operators."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deeplab_tf as dl
from deeplab_tf.errors import InputError
from deeplab_tf.export.benchmark import LiteModel
from deeplab_tf.export.lite_file import read_lite_file
from deeplab_tf.export.tflite import SCHEMES, convert
from deeplab_tf.export.verify import compare
from deeplab_tf.inference.base import prepare
from deeplab_tf.inference.runner import KerasRunner
from deeplab_tf.layers import axial_attention

SIZE = (64, 64)
# What is left of a dilated convolution that wasn't fused.
UNFUSED = {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}


@pytest.fixture(scope="module")
def small(scenes):
    return [prepare(picture, SIZE, "stretch").image for picture in scenes]


@pytest.fixture(scope="module")
def files(model, small, tmp_path_factory):
    """Scheme -> path of the file."""
    folder, paths = tmp_path_factory.mktemp("tflite"), {}
    for name in SCHEMES:
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(convert(model, SIZE, quantize=name, calibration=small[:8]))
    paths["argmax"] = folder / "argmax.tflite"
    paths["argmax"].write_bytes(
        convert(model, SIZE, quantize="int8", labels="argmax", calibration=small[:8])
    )
    return paths


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_agrees_with_the_model(name, files, model, small):
    runner = KerasRunner(model)
    found = compare(
        lambda picture: runner.forward(picture[None])[0],
        LiteModel(files[name]).run,
        small[8:],
        num_classes=3,
    )
    assert found.agreement >= SCHEMES[name].threshold
    assert found.mean_error < (1e-5 if name == "float32" else 0.01)


@pytest.mark.parametrize("name", [*SCHEMES, "argmax"])
def test_raw_pixels_go_in_and_dilations_are_fused(name, files):
    facts = read_lite_file(files[name])
    assert facts.inputs[0].dtype == "uint8" and facts.inputs[0].shape == (1, *SIZE, 3)
    assert facts.custom == ()
    assert not UNFUSED & set(facts.operators)
    # One operator per convolution: three of 1x1, two of the stem, the logits, three depthwise.
    assert facts.operators["CONV_2D"] == 6 and facts.operators["DEPTHWISE_CONV_2D"] == 3
    assert LiteModel(files[name]).input_name == "image"


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_one_partition_runs_it_all(name, files):
    assert LiteModel(files[name]).partitions == 1


def test_int8_takes_and_gives_bytes_without_a_float_operator(files):
    facts = read_lite_file(files["int8"])
    image, output = facts.inputs[0], facts.outputs[0]
    assert (image.scale, image.zero_point) == (1.0, 0)
    assert (output.dtype, output.scale, output.zero_point) == ("uint8", 1 / 256, 0)
    assert not {"CAST", "DEQUANTIZE"} & set(facts.operators)


def test_quantised_files_are_smaller_in_this_order(files):
    weights = {name: sum(_buffer_sizes(files[name])) for name in ("float32", "float16", "int8")}
    assert weights["int8"] < weights["float16"] < weights["float32"]


def _buffer_sizes(path):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    return [model.Buffers(i).DataLength() for i in range(model.BuffersLength())]


def test_argmax_gives_the_class_of_each_pixel(files, small):
    labels, scores = LiteModel(files["argmax"]), LiteModel(files["int8"])
    assert labels.output_name == "labels" and scores.output_name == "probabilities"
    for picture in small[8:]:
        found = labels.run(picture)
        assert found.dtype == np.uint8 and found.shape == SIZE
        # Equal bytes of two probabilities can come from unequal logits.
        assert (found == scores.run(picture).argmax(-1)).mean() > 0.99


def test_resize_keeps_the_corners_aligned(files):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(files["float32"].read_bytes())
    options = [
        operator.builtinOptions
        for operator in model.subgraphs[0].operators
        if isinstance(operator.builtinOptions, schema.ResizeBilinearOptionsT)
    ]
    assert [(o.alignCorners, o.halfPixelCenters) for o in options] == [(True, False)]


def test_a_real_model_with_decoder_stays_one_graph(tmp_path):
    model = dl.DeepLabV3Plus(
        2, depth_multiplier=0.25, aspp_convs_filters=8, decoder_filters=8, output_stride=16
    )
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, (64, 96)))
    facts, lite = read_lite_file(path), LiteModel(path)
    assert lite.partitions == 1 and not UNFUSED & set(facts.operators)
    assert facts.outputs[0].shape == (1, 64, 96, 2)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    wanted = KerasRunner(model).forward(picture[None])[0]
    np.testing.assert_allclose(lite.run(picture), wanted, atol=1e-4)


def test_an_operator_without_a_builtin_form_is_named():
    class Erfinv(keras.layers.Layer):
        def call(self, x):
            return tf.math.erfinv(x / 300.0)

    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(Erfinv()(image)))
    with pytest.raises(InputError, match=r"no tf\.Erfinv"):
        convert(model, (8, 8))


def test_a_converter_failure_of_another_kind_is_not_hidden(model, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("deeplab_tf.export.tflite._configure", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        convert(model, SIZE)


def test_quantisation_without_pictures_is_refused(model):
    with pytest.raises(InputError, match="int8 needs calibration pictures"):
        convert(model, SIZE, quantize="int8")


@pytest.mark.parametrize(("name", "reason"), [("qat", "trained"), ("int4", "quantize is one of")])
def test_an_unknown_scheme_is_refused(model, name, reason):
    with pytest.raises(InputError, match=reason):
        convert(model, SIZE, quantize=name)


def test_nothing_is_printed(model, capfd):
    convert(model, (32, 32))
    assert capfd.readouterr() == ("", "")


def test_axial_attention_that_predicts_line_by_line_converts(monkeypatch, tmp_path):
    monkeypatch.setattr(axial_attention, "_MOST_LOGITS", 0)
    picture = keras.Input((9, 7, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(picture)
    x = keras.layers.Conv2D(16, 1)(x)
    x = axial_attention.AxialAttention(1, key_depth=8, value_depth=16)(x)
    model = keras.Model(picture, keras.layers.Conv2D(2, 1)(x))
    path = tmp_path / "axial.tflite"
    path.write_bytes(convert(model, (9, 7)))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    wanted = keras.ops.softmax(model(pixels[None].astype(np.float32), training=False))[0]
    np.testing.assert_allclose(LiteModel(path).run(pixels), np.asarray(wanted), atol=1e-5)
