"""Output strides and sizes, for every backbone of the registry."""

import math
import re

import keras
import numpy as np
import pytest
from alike import ALIKE

import deeplab_tf as dl
from deeplab_tf.models.deeplab_v3 import ATROUS_RATES
from deeplab_tf.models.weights import assign_variables

# A strip: even at stride 32 it has five rows, so that a rate of 4 still meets other pixels.
IMAGE = np.random.RandomState(0).uniform(0, 255, (1, 129, 33, 3)).astype("float32")
LOW_LEVEL = ("stride4", "stride8", "stride16")


@pytest.fixture(scope="module", params=sorted(set(dl.BACKBONES) - ALIKE))
def networks(request, narrow_model):
    return _networks(narrow_model, request.param)


def _networks(narrow_model, backbone, **options):
    """{output stride: model}, finest first, with the paper's rates and the same weights."""
    models = {}
    for stride in sorted(dl.BACKBONES[backbone].output_strides):
        models[stride] = narrow_model(backbone, output_stride=stride, **options)
        _open_gates(models[stride])
    finest, *others = models.values()
    for model in others:
        assert _copy_what_fits(finest, model) == [] or backbone == "nas_pnasnet"
    return models


def _open_gates(model):
    """Makes squeeze-and-excite gates constant: their means depend on where a map is sampled."""
    for weight in model.weights:
        if weight.path.endswith("squeeze_excite.Conv_1/kernel"):
            weight.assign(np.zeros(weight.shape))


def _copy_what_fits(source, target):
    """Sets the target's weights, but for those that only it has in their shape: their paths."""
    values = {(w.path, w.shape): w for w in source.weights}
    others = []
    for weight in target.weights:
        if (weight.path, weight.shape) in values:
            weight.assign(values[weight.path, weight.shape])
        else:
            others.append(weight.path)
    return others


def _features(model):
    """The endpoints that the encoder has: name -> array."""
    names = [name for name in ("backbone", *LOW_LEVEL) if name in model.endpoints]
    features = model.endpoint_model(*names)(IMAGE, training=False)
    return {name: np.asarray(value) for name, value in features.items()}


def _step(fine, coarse):
    """How many pixels of one map a pixel of the other stands for."""
    return math.ceil(fine.shape[1] / coarse.shape[1])


def _difference(fine, coarse):
    """The largest between a map and another subsampled to its size, of its largest value."""
    step = _step(fine, coarse)
    return np.abs(fine[:, ::step, ::step] - coarse).max() / np.abs(coarse).max()


def _assert_equal(fine, coarse, names):
    differences = {name: _difference(fine[name], coarse[name]) for name in names}
    assert max(differences.values()) <= 2e-5, differences


def _are_equal(models):
    features = {stride: _features(model) for stride, model in models.items()}
    finest = features[min(features)]
    for stride, found in features.items():
        assert abs(found["backbone"].shape[1] * stride - IMAGE.shape[1]) < stride
        _assert_equal(finest, found, found)


def _take_the_new_rate_at_once(layers):
    """They differ by the rate of the layers that lose their stride, and by nothing else.

    Args:
        layers: below which output stride a layer loses its stride -> its name. It doesn't keep
            the old rate, as a layer should; by the middle of its kernel alone it can't tell.
    """

    def check(models):
        for stride, name in layers.items():
            pair = models[stride // 2], models[stride]
            fine, coarse = map(_features, pair)
            assert _difference(fine["backbone"], coarse["backbone"]) > 0.01
            kernel = np.asarray(pair[0].get_layer(name).kernel)
            middle, at = np.zeros_like(kernel), kernel.shape[0] // 2
            middle[at, at] = kernel[at, at]
            for model in pair:
                model.get_layer(name).kernel.assign(middle)
            fine, coarse = map(_features, pair)
            for model in pair:
                model.get_layer(name).kernel.assign(kernel)
            _assert_equal(fine, coarse, coarse)

    return check


def _gain_a_residual(models):
    """A block of equal width in and out has a residual once its stride is lost: at 8 and 16.

    Features are equal up to that sum, and equal maps in its place give equal features.
    """
    _are_equal({stride: model for stride, model in models.items() if stride < 32})
    fine, coarse = models[16], models[32]
    features = _features(fine), _features(coarse)
    _assert_equal(*features, LOW_LEVEL)
    assert _difference(features[0]["backbone"], features[1]["backbone"]) > 0.01
    block, end = "MobilenetV3.expanded_conv_8", fine.endpoints["backbone"]
    projection, total = f"{block}.project.BatchNorm", f"{block}.add"
    assert total not in [layer.name for layer in coarse.layers]
    before = [_part(model, "image", projection)(IMAGE) for model in (fine, coarse)]
    assert _difference(*map(np.asarray, before)) <= 2e-5
    x = np.random.RandomState(0).uniform(-1, 1, (1, 9, 9, 48)).astype("float32")
    after = _part(fine, total, end)(x), _part(coarse, projection, end)(x[:, ::2, ::2])
    assert _difference(*map(np.asarray, after)) <= 2e-5


def _part(model, first, last):
    """What a model does between the outputs of two layers."""
    return keras.Model(model.get_layer(first).output, model.get_layer(last).output)


def _leave_strides_out(models):
    """Without a stride there is no rate in its place, and the cells after it are narrower.

    Up to there the networks are the same, and the weights of one are refused by another.
    """
    for model in models.values():
        layers = [layer for layer in model.layers if layer.name.startswith("pnasnet")]
        assert {getattr(layer, "dilation_rate", (1, 1)) for layer in layers} == {(1, 1)}
    for stride, first_other_cell, same in ((16, 4, LOW_LEVEL[:2]), (32, 8, LOW_LEVEL)):
        fine, coarse = models[stride // 2], models[stride]
        others = _copy_what_fits(fine, coarse)
        cells = {int(cell) for path in others for cell in re.findall(r"pnasnet\.cell_(\d+)", path)}
        assert cells == set(range(first_other_cell, 12))
        features = _features(fine), _features(coarse)
        assert [features[0][x].shape for x in same] == [features[1][x].shape for x in same]
        _assert_equal(*features, same)
        with pytest.raises(dl.InputError, match=r"of another shape: pnasnet\.cell_"):
            assign_variables(coarse, {w.path: np.asarray(w) for w in fine.weights})


def _keep_the_window_of_pools(models):
    """A pool behind an atrous convolution goes on to see the nearest pixels, as the paper's does.

    Up to there features are equal; at stride 8 the last pool then has other neighbours.
    """
    _are_equal({stride: model for stride, model in models.items() if stride > 8})
    features = _features(models[8]), _features(models[16])
    _assert_equal(*features, LOW_LEVEL)
    assert _difference(features[0]["backbone"], features[1]["backbone"]) > 0.01
    last = "vgg_16.conv5_3.relu"
    before = [np.asarray(_part(models[stride], "image", last)(IMAGE)) for stride in (8, 16)]
    assert _difference(*before) <= 2e-5


def _attend_to_the_map_they_have(models):
    """Attention on a finer map has more to look at: equal is only what lies before it."""
    features = {stride: _features(model) for stride, model in models.items()}
    for stride, same in ((16, LOW_LEVEL[:2]), (32, LOW_LEVEL)):
        fine, coarse = features[stride // 2], features[stride]
        _assert_equal(fine, coarse, same)
        assert _difference(fine["backbone"], coarse["backbone"]) > 1e-3


# How the features of those relate that aren't simply equal; nor are they in the original code.
RELATIONS = {
    "mobilenet_v3_small_seg": _gain_a_residual,
    "mobilenet_v3_large_torch": _take_the_new_rate_at_once(
        {16: "MobilenetV3.expanded_conv_6.depthwise", 32: "MobilenetV3.expanded_conv_12.depthwise"}
    ),
    "nas_hnasnet": _take_the_new_rate_at_once(
        {16: "hnasnet.downsample_os16_conv", 32: "hnasnet.downsample_os32_conv"}
    ),
    "nas_pnasnet": _leave_strides_out,
    "vgg_16": _keep_the_window_of_pools,
    "axial_resnet_s": _attend_to_the_map_they_have,
    "axial_deeplab_s": _attend_to_the_map_they_have,
    "axial_swidernet": _attend_to_the_map_they_have,
    "max_deeplab_s_backbone": _attend_to_the_map_they_have,
}


def test_atrous_features_equal_dense_features_subsampled(networks):
    backbone = networks[32].get_config()["backbone"]
    RELATIONS.get(backbone, _are_equal)(networks)


@pytest.mark.parametrize(
    ("backbone", "layer", "stages"),
    [
        ("mobilenet_v2", "MobilenetV2.expanded_conv_{}.depthwise", (6, 13)),
        ("resnet_50_torch", "resnet_50.block{}.unit_1.bottleneck_v1.conv2", (3, 4)),
    ],
)
def test_the_layer_that_loses_its_stride_may_take_the_new_rate(
    backbone, layer, stages, narrow_model
):
    networks = _networks(narrow_model, backbone, new_rate_at_once=True)
    layers = dict(zip((16, 32), map(layer.format, stages), strict=True))
    _take_the_new_rate_at_once(layers)(networks)


def test_any_size_goes_in_and_logits_of_that_size_come_out(networks):
    random = np.random.RandomState(0)
    for stride, model in networks.items():
        # The paper's rates: far larger than a map of at most 3x3 pixels.
        assert model.get_layer("aspp1_depthwise").dilation_rate[0] == ATROUS_RATES[stride][0]
        for size in ((1, 3), (17, 23), (64, 48), (65, 33)) if stride == 32 else ((17, 23),):
            image = random.uniform(0, 255, (1, *size, 3)).astype("float32")
            logits = np.asarray(model(image, training=False))
            assert logits.shape == (1, *size, 3)
            assert logits.dtype == np.float32
            assert np.all(np.isfinite(logits))
    both = np.asarray(model(np.concatenate([255 - image, image]), training=False))
    assert np.abs(both[1:] - logits).max() <= 2e-5 * np.abs(logits).max()


@pytest.mark.parametrize(
    "backbone", sorted(name for name, x in dl.BACKBONES.items() if "multi_grid" in x.options)
)
def test_atrous_features_with_multi_grid_equal_dense_ones(
    backbone, narrow_backbones, random_weights
):
    record = dl.BACKBONES[backbone]
    # One rate for each unit of the last stage, or convolution of the last module.
    grid = (1, 2, 4)[: getattr(record.build.args[0], "units", (3,))[-1]]
    weights, dense = {}, None
    for stride in sorted(record.output_strides):
        x = keras.Input((None, None, 3))
        model = keras.Model(x, record.build(x, output_stride=stride, multi_grid=grid)["res5"])
        rates = [getattr(layer, "dilation_rate", (1, 1))[0] for layer in model.layers]
        assert max(rates) == 32 // stride * grid[-1]
        if dense is None:
            random_weights(model)
            weights = {w.path: np.asarray(w) for w in model.weights}
        else:
            assign_variables(model, weights)
        features = np.asarray(model(IMAGE / 255, training=False))
        dense = features if dense is None else dense
        assert _difference(dense, features) <= 2e-5, stride
