"""ConvNeXt: its sizes, its padding, and what it begins as."""

import dataclasses
import functools
import itertools

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.backbones.convnext import Variant, convnext
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.layer_scale import LayerScale
from deeplab_tf.models.macs import parameters

SMALL = Variant(blocks=(1, 1, 2, 1), widths=(4, 8, 12, 16))


def _network(variant=SMALL, size=(None, None), **options) -> tuple[keras.Model, dict]:
    image = keras.Input((*size, 3))
    found = convnext(variant, image, output_stride=32, **options)
    return keras.Model(image, found), found


def _randomized(model):
    random = np.random.RandomState(0)
    for weight in model.weights:
        weight.assign(random.normal(0.2, 0.5, weight.shape))
    return model


def _image(height, width):
    return np.random.RandomState(1).uniform(-1, 1, (1, height, width, 3)).astype("float32")


@pytest.mark.parametrize("size", [(65, 97), (64, 33), (37, 50), (1, 2)])
def test_sizes_are_those_of_the_strides_rounded_up(size):
    model, _ = _network()
    found = model(_image(*size))
    for number, stride in ((1, 4), (2, 4), (3, 8), (4, 16), (5, 32)):
        wanted = tuple(-(-side // stride) for side in size)
        for key in (f"stage{number}", f"res{number}"):
            assert found[key].shape[1:3] == wanted, key


def test_activated_maps_are_the_gelu_of_the_others():
    model, _ = _network()
    found = _randomized(model)(_image(40, 33))
    for number in range(1, 6):
        wanted = keras.activations.gelu(found[f"stage{number}"], approximate=False)
        np.testing.assert_array_equal(np.asarray(found[f"res{number}"]), np.asarray(wanted))


def test_a_new_network_is_the_chain_of_its_shortcuts():
    model, _ = _network()
    scales = [layer for layer in model.layers if isinstance(layer, LayerScale)]
    assert len(scales) == sum(SMALL.blocks)
    assert all(np.all(np.asarray(layer.layer_scale) == np.float32(1e-6)) for layer in scales)
    found = model(_image(65, 65))
    np.testing.assert_allclose(found["stage2"], found["stage1"], atol=1e-4)


def test_a_block_is_its_input_and_a_scaled_branch():
    """Written out, with a dense layer for each 1x1 convolution."""
    model, _ = _network(Variant((1, 1, 1, 1), (4, 8, 12, 16)))
    _randomized(model)
    found = {k: np.asarray(x, "float64") for k, x in model(_image(33, 29)).items()}
    weights = {w.path.removeprefix("encoder.stages.0.0."): np.asarray(w) for w in model.weights}
    x = np.pad(found["stage1"], ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (7, 7), axis=(1, 2))
    x = np.einsum("bhwcij,ijc->bhwc", windows, weights["depthwise_conv/kernel"][..., 0])
    x = x + weights["depthwise_conv/bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * weights["norm/gamma"] + weights["norm/beta"]
    x = x @ weights["pointwise_conv1/kernel"][0, 0] + weights["pointwise_conv1/bias"]
    x = np.asarray(keras.activations.gelu(keras.ops.convert_to_tensor(x), approximate=False))
    x = x @ weights["pointwise_conv2/kernel"][0, 0] + weights["pointwise_conv2/bias"]
    wanted = found["stage1"] + x * weights["layer_scale/layer_scale"]
    np.testing.assert_allclose(found["stage2"], wanted, atol=1e-4 * wanted.std())


def test_a_row_behind_an_odd_map_is_normalised_with_it():
    model, _ = _network(size=(4 * 3, 4 * 3))
    norm = model.get_layer("encoder.downsample_layers.1.norm")
    norm.beta.assign([1.0, 2.0, 3.0, 4.0])
    part = keras.Model(model.input, norm.output)
    map_ = np.asarray(part(_image(12, 12)))
    assert map_.shape == (1, 4, 4, 4)
    for edge in (map_[0, -1], map_[0, :, -1]):
        np.testing.assert_array_equal(edge, np.tile([1.0, 2.0, 3.0, 4.0], (4, 1)))


def test_an_even_size_sees_nothing_of_the_padding_behind_its_maps():
    """The same as the network without it, on the picture with the stem's border."""
    model, _ = _network()
    image = _image(64, 96)
    wanted = np.asarray(_randomized(model)(image)["stage5"])
    plain = keras.models.clone_model(model, clone_function=_without_padding)
    plain.set_weights(model.get_weights())
    bordered = np.pad(image, ((0, 0), (1, 2), (1, 2), (0, 0)))
    np.testing.assert_allclose(np.asarray(plain(bordered)["stage5"]), wanted, rtol=1e-5)
    # Of an odd map it would lose the end.
    sides = [network(_image(68, 68))["stage5"].shape[1] for network in (plain, model)]
    assert sides == [2, 3]


def _without_padding(layer):
    config = layer.get_config()
    if isinstance(layer, keras.layers.ZeroPadding2D):
        config["padding"] = ((0, 0), (0, 0))
    return type(layer).from_config(config)


def test_blocks_are_left_out_more_the_deeper_they_are():
    model, _ = _network(Variant((1, 2, 2, 1), SMALL.widths), drop_path_keep_prob=0.5)
    found = [(x.name, x.keep_prob) for x in model.layers if isinstance(x, DropPath)]
    names = [f"encoder.stages.{place}.drop_path" for place in ("1.0", "1.1", "2.0", "2.1", "3.0")]
    assert [name for name, _ in found] == names
    np.testing.assert_allclose([keep for _, keep in found], [0.9, 0.8, 0.7, 0.6, 0.5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drop_path_keep_prob": 0.0}, "above 0 and at most 1; got 0.0"),
        ({"output_stride": 16}, "output_stride of ConvNeXt is 32; got 16"),
    ],
)
def test_what_it_can_not_do_is_refused(options, words):
    with pytest.raises(dl.InputError, match=words):
        convnext(SMALL, keras.Input((None, None, 3)), **{"output_stride": 32, **options})


def test_a_model_names_the_only_output_stride():
    with pytest.raises(dl.InputError, match=r"of convnext_tiny is one of \[32\]; got 16"):
        dl.DeepLabV3(3, "convnext_tiny", output_stride=16)


# With an image classifier's head, in millions of parameters, as the paper's Table 1 has them.
SIZES = {"tiny": 29, "small": 50, "base": 89, "large": 198}


def _count(variant: Variant) -> int:
    """Parameters of the network alone, from its shape."""
    w = variant.widths
    total = 3 * 16 * w[0] + 3 * w[0]
    total += sum(4 * a * b + b + 2 * a for a, b in itertools.pairwise(w))
    return total + sum(n * (8 * c**2 + 58 * c) for n, c in zip(variant.blocks, w, strict=True))


def test_four_sizes_are_as_large_as_the_paper_says():
    assert parameters(_network()[0]) == _count(SMALL)
    for size, millions in SIZES.items():
        (variant,) = dl.BACKBONES[f"convnext_{size}"].build.args
        last = variant.widths[-1]
        assert round((_count(variant) + 2 * last + 1000 * last + 1000) / 1e6) == millions


def test_an_image_classifier_pools_what_has_no_activation_and_normalises_it(monkeypatch):
    record = dl.BACKBONES["convnext_tiny"]
    narrow = dataclasses.replace(record, build=functools.partial(convnext, SMALL))
    monkeypatch.setitem(dl.BACKBONES, "convnext_tiny", narrow)
    model = _randomized(dl.ImageClassifier(5, "convnext_tiny"))
    assert parameters(model) == _count(SMALL) + 2 * 16 + 5 * 16 + 5
    image = 127.5 * (_image(33, 33) + 1)
    found = model.endpoint_model("backbone", "pooled")(image)
    assert np.min(found["backbone"]) < -0.5  # a GELU never is
    pooled = np.asarray(found["pooled"])[0, 0, 0]
    np.testing.assert_allclose(pooled, np.mean(found["backbone"], (0, 1, 2)), rtol=1e-4)
    norm, last = (model.get_layer(f"encoder.{name}") for name in ("norm", "logits"))
    x = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-6)
    x = x * np.asarray(norm.gamma) + np.asarray(norm.beta)
    wanted = x @ np.asarray(last.kernel)[0, 0] + np.asarray(last.bias)
    np.testing.assert_allclose(np.asarray(model(image))[0], wanted, rtol=1e-3, atol=1e-4)
