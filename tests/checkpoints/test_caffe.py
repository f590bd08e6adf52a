"""Caffe's files: both generations of layers, shared copies, sums of batch norms."""

import re

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.checkpoints.caffe import net_parameter, read_caffemodel

BRANCHES = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "shortcut": "1"}


def _add(layer, name, *arrays, old=False):
    layer.name = name
    for array in arrays:
        blob = layer.blobs.add(data=array.ravel())
        if old:  # four sides, ones in front
            sides = (1, 1, 1, *array.shape)[-4:]
            blob.num, blob.channels, blob.height, blob.width = sides
        else:
            blob.shape.dim.extend(array.shape)


def _caffe_layout(kernel):
    return kernel.transpose(3, 2, 0, 1)


def resnet_file(model, path, head="fc1_voc12_c{}"):
    """What Caffe would save of a ResNet with random weights, with copies for another scale."""
    net, random, values = net_parameter()(name="ResNet"), np.random.RandomState(0), {}
    for weight in model.weights:
        values[weight.path] = random.uniform(0.5, 1.5, weight.shape).astype("float32")
    for layer in model.layers:
        kernel = values.get(f"{layer.name}/kernel")
        if kernel is None:
            continue
        found = re.fullmatch(r"resnet_50\.block(\d)\.unit_(\d)\.\w+\.(\w+)", layer.name)
        if found:
            # Deep stages number their units from the second on, others go through the alphabet.
            unit = "abcdef"[int(found[2]) - 1]
            if found[1] == "3" and found[2] != "1":
                unit = f"b{int(found[2]) - 1}"
            name = f"{int(found[1]) + 1}{unit}"
            names = [
                f"{start}{name}_branch{BRANCHES[found[3]]}" for start in ("res", "bn", "scale")
            ]
        elif layer.name == "resnet_50.conv1":
            names = ["conv1", "bn_conv1", "scale_conv1"]
        else:
            number = int(layer.name.partition("_")[2] or 0)  # logits.semantic, logits.semantic_1
            for suffix in ("", "_res05"):
                bias = values[f"{layer.name}/bias"] + len(suffix)
                kernel_ = _caffe_layout(kernel) + len(suffix)
                _add(net.layer.add(), head.format(number) + suffix, kernel_, bias)
            continue
        part = {key: values[f"{layer.name}.BatchNorm/{key}"] for key in NORM}
        for suffix in ("", "_res05"):
            _add(net.layer.add(), names[0] + suffix, _caffe_layout(kernel) + len(suffix))
            steps = np.float32([4])
            moving = [part["moving_mean"] * 4, part["moving_variance"] * 4, steps]
            _add(net.layer.add(), names[1] + suffix, *moving)
            _add(net.layer.add(), names[2] + suffix, part["gamma"], part["beta"])
    path.write_bytes(net.SerializeToString())
    return values


NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr("deeplab_tf.backbones.resnet._WIDTHS", (4, 4, 4, 4))


def test_the_resnet_of_v2_takes_each_weight_once(narrow, tmp_path):
    model = dl.DeepLabV2(3, "resnet_50_caffe", image_pyramid=(1.0, 0.5))
    path = tmp_path / "train_iter_20000.caffemodel"
    values = resnet_file(model, path)
    loaded = dl.checkpoints.load(model, path)
    assert loaded.format == "Caffe model" and len(loaded.variables) == len(model.weights)
    for weight in model.weights:
        np.testing.assert_allclose(np.asarray(weight), values[weight.path], rtol=1e-6)


def test_a_file_of_a_vgg_is_read_by_its_names_whatever_the_data_set(tmp_path):
    model = dl.DeepLabV1(4, fc6_filters=8)
    net, random = net_parameter()(), np.random.RandomState(0)
    for layer in model.layers:
        if not layer.weights:
            continue
        arrays = [random.uniform(-1, 1, w.shape).astype("float32") for w in layer.weights]
        layer.set_weights(arrays)
        name = layer.name.removeprefix("vgg_16.")
        name = "fc8_pascal" if name == "fc8" else name
        _add(net.layers.add(), name, _caffe_layout(arrays[0]), arrays[1], old=True)
    path = tmp_path / "train_iter_6000.caffemodel"
    path.write_bytes(net.SerializeToString())
    wanted = [np.array(w) for w in model.weights]
    model.set_weights([np.zeros_like(w) for w in wanted])
    dl.checkpoints.load(model, path)
    for weight, value in zip(model.weights, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), value)
    # Its last layer for other classes is made anew, as of any file.
    other = dl.DeepLabV1(6, fc6_filters=8)
    assert dl.checkpoints.load(other, path).new == ("fc8/kernel", "fc8/bias")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x0a\xff", "isn't a Caffe model, or it is cut off"),
        (b"\x0a\x03net", "isn't a Caffe model with weights"),
    ],
)
def test_another_file_is_named(content, words, tmp_path):
    path = tmp_path / "model.caffemodel"
    path.write_bytes(content)
    with pytest.raises(dl.InputError, match=f"model.caffemodel {words}"):
        read_caffemodel(path)


def test_numbers_that_do_not_fill_a_shape_are_named(tmp_path):
    net = net_parameter()()
    _add(net.layer.add(), "conv1", np.ones((2, 3, 1, 1), "float32"))
    net.layer[0].blobs[0].shape.dim[0] = 5
    path = tmp_path / "model.caffemodel"
    path.write_bytes(net.SerializeToString())
    with pytest.raises(dl.InputError, match=r"conv1 has 6 numbers for the shape \(5, 3, 1, 1\)"):
        read_caffemodel(path)
    net.layer[0].name, net.layer[0].blobs[0].shape.dim[0] = "bn_conv1", 2
    path.write_bytes(net.SerializeToString())
    with pytest.raises(dl.InputError, match="bn_conv1 has 1 arrays; it is another kind"):
        read_caffemodel(path)
