import math

import keras
import numpy as np
import pytest

from deeplab_tf.layers.channels import make_divisible
from deeplab_tf.layers.conv import (
    HEAD_BN,
    PANOPTIC_BN,
    activate,
    conv1d_bn_act,
    conv_bn_act,
    separable_conv_bn_act,
)


def test_explicit_padding_does_not_depend_on_the_parity_of_the_size():
    image = keras.Input((None, None, 1))
    y = conv_bn_act(
        image, 1, 3, strides=2, padding="explicit", batch_norm=None, activation=None, name="c"
    )
    model = keras.Model(image, y)
    model.get_layer("c").set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
    x = np.random.rand(1, 9, 9, 1).astype("float32")
    odd, even = np.asarray(model(x)), np.asarray(model(x[:, :8, :8]))
    np.testing.assert_allclose(odd[:, :3, :3], even[:, :3, :3], rtol=1e-5)


def test_separable_convolution_normalises_after_both_parts():
    image = keras.Input((8, 8, 4))
    y = separable_conv_bn_act(image, 6, 3, dilation_rate=2, name="aspp1")
    model = keras.Model(image, y)
    names = [layer.name for layer in model.layers[1:]]
    assert names == [
        "aspp1_depthwise",
        "aspp1_depthwise.BatchNorm",
        "aspp1_depthwise.relu",
        "aspp1_pointwise",
        "aspp1_pointwise.BatchNorm",
        "aspp1_pointwise.relu",
    ]
    assert model.get_layer("aspp1_depthwise.BatchNorm").epsilon == HEAD_BN.epsilon
    assert not model.get_layer("aspp1_pointwise").use_bias


def test_the_quantisable_gate_has_the_official_constant():
    x = keras.Input((1,))
    gate = keras.Model(x, activate(x, "q_sigmoid", name="gate"))
    values = np.asarray(gate(np.array([[-4.0], [0.0], [1.0], [9.0]], "float32"))).ravel()
    np.testing.assert_allclose(values, np.array([0, 3, 4, 6]) * 0.16667, rtol=1e-6)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="got 'mish'"):
        activate(keras.Input((1,)), "mish", name="a")


@pytest.mark.parametrize(
    ("value", "divisor", "wanted"),
    [(18, 8, 24), (12, 8, 16), (9.6, 8, 16), (25.6, 8, 24), (12, 1, 12)],
)
def test_channel_rounding_never_loses_a_tenth(value, divisor, wanted):
    assert make_divisible(value, divisor) == wanted


def test_gelu_is_the_exact_one():
    x = keras.Input((1,))
    model = keras.Model(x, activate(x, "gelu", name="gelu"))
    again = keras.Model.from_config(model.get_config())
    values = np.linspace(-3, 3, 13, dtype="float32")[:, None]
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in values.ravel()]
    # The usual approximation by tanh is off by 5e-4.
    np.testing.assert_allclose(np.asarray(again(values)).ravel(), exact, atol=1e-6)


def test_a_set_is_projected_item_by_item():
    items = keras.Input((None, 4))
    model = keras.Model(items, conv1d_bn_act(items, 6, batch_norm=PANOPTIC_BN, name="slots"))
    assert [layer.name for layer in model.layers[1:]] == [
        *("slots", "slots.BatchNorm", "slots.relu")
    ]
    kernel = np.asarray(model.get_layer("slots").kernel)
    assert kernel.shape == (1, 4, 6) and not model.get_layer("slots").use_bias
    x = np.random.RandomState(0).normal(size=(2, 5, 4)).astype("float32")
    wanted = np.maximum(x @ kernel[0] / np.sqrt(1 + PANOPTIC_BN.epsilon), 0)
    np.testing.assert_allclose(np.asarray(model(x)), wanted, atol=1e-6)
    bare = conv1d_bn_act(items, 6, activation=None, batch_norm=None, name="bare")
    assert keras.Model(items, bare).get_layer("bare").use_bias
