"""Maps of several strides become one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.layers.resize import resize_bilinear
from deeplab_tf.layers.resized_fuse import resized_fuse

FILTERS = 4


def _fuse(maps, stride, like=0) -> keras.Model:
    """A model of maps, (stride, channels) each; `like` is the place of the one to be like."""
    inputs = [keras.Input((None, None, channels)) for _, channels in maps]
    features = [(x, own) for x, (own, _) in zip(inputs, maps, strict=True)]
    fused = resized_fuse(features, inputs[like], stride, filters=FILTERS, name="fuse")
    return keras.Model(inputs, fused)


def _maps(maps, side=33, seed=0):
    """What an encoder gives of a picture of that side, and half of it."""
    random, sides = np.random.RandomState(seed), (side, side // 2)
    return [
        random.normal(size=(2, *(-(-n // own) for n in sides), channels)).astype("float32")
        for own, channels in maps
    ]


def _projected(model, name, x):
    """By the weights of one projection."""
    kernel = np.asarray(model.get_layer(f"fuse.{name}").kernel)[0, 0]
    return np.maximum(x, 0) @ kernel / np.sqrt(1 + 1e-3)


def test_a_map_of_as_many_channels_is_added_as_it_is():
    maps = [(8, FILTERS), (8, FILTERS)]
    model, values = _fuse(maps, 8), _maps(maps)
    assert model.weights == []
    np.testing.assert_allclose(np.asarray(model(values)), values[0] + values[1], atol=1e-6)


@pytest.mark.parametrize("side", [33, 32, 30, 1])
def test_each_map_comes_to_the_size_in_its_own_way(side):
    maps = [(8, FILTERS), (16, 6), (4, 3), (8, 5), (16, FILTERS)]
    model, values = _fuse(maps, 8), _maps(maps, max(side, 2))
    names = ["resized_conv_bn2", "strided_conv_bn3", "resized_conv_bn4"]
    found = {w.path.split("/")[0] for w in model.weights if w.path.endswith("kernel")}
    assert found == {f"fuse.{name}" for name in names}

    def resized(x):
        return np.asarray(resize_bilinear(x, values[0].shape[1:3]))

    terms = [
        values[0],
        resized(_projected(model, names[0], values[1])),
        _projected(model, names[1], values[2][:, ::2, ::2]),
        _projected(model, names[2], values[3]),
        resized(values[4]),
    ]
    np.testing.assert_allclose(np.asarray(model(values)), sum(terms), atol=1e-5)


def test_one_map_needs_no_sum():
    model = _fuse([(8, 6)], 8)
    assert [layer.name for layer in model.layers if "add" in layer.name] == []
    assert model.output.shape == (None, None, None, FILTERS)


def test_sizes_are_found_out_when_a_graph_runs():
    maps = [(16, 6), (8, FILTERS), (4, 3)]
    model = _fuse(maps, 8, like=1)
    specs = [tf.TensorSpec((None, None, None, channels)) for _, channels in maps]
    graph = tf.function(lambda *x: model([*x], training=False), specs)
    for side in (33, 20):
        values = _maps(maps, side)
        np.testing.assert_allclose(np.asarray(graph(*values)), np.asarray(model(values)), atol=1e-6)
