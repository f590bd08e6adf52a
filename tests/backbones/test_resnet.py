"""ResNet's cascade of further blocks (v3, Sec. 3.2)."""

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.backbones import resnet
from deeplab_tf.models.macs import parameters
from deeplab_tf.models.weights import assign_variables


def _network(variant=resnet.RESNET_18, size=(None, None), **options):
    image = keras.Input((*size, 3))
    return keras.Model(image, resnet.resnet_v1(variant, image, **options)["res5"])


def _rates(model, block):
    """Rates of a block's 3x3 convolutions, one per unit; its first one loses no stride."""
    return [
        layer.dilation_rate[0]
        for layer in model.layers
        if f".block{block}." in layer.name and layer.name.endswith(".conv2")
    ]


def _strides(model):
    return np.prod([getattr(layer, "strides", (1,))[0] for layer in _strided(model)])


def _strided(model):
    kinds = (keras.layers.Conv2D, keras.layers.MaxPooling2D)
    return [x for x in model.layers if isinstance(x, kinds) and ".shortcut" not in x.name]


def test_rates_double_from_block_to_block_and_the_stride_stays():
    model = _network(resnet.RESNET_50, output_stride=16, cascade_blocks=7, multi_grid=(1, 2, 1))
    # Figure 3b of the paper: rates 2, 4, 8 and 16 at output stride 16, times the multi grid.
    for block, rate in ((4, 2), (5, 4), (6, 8), (7, 16)):
        assert _rates(model, block) == [rate, 2 * rate, rate]
    assert _strides(model) == 16


def test_without_an_output_stride_in_the_way_every_block_halves_the_size():
    model = _network(output_stride=256, cascade_blocks=7)
    assert _strides(model) == 256
    assert [_rates(model, block) for block in (4, 5, 6, 7)] == [[1, 1]] * 4


def test_each_further_block_has_the_parameters_of_a_unit_without_a_shortcut():
    variant = resnet.RESNET_50
    plain, cascade = (_network(variant, output_stride=16, cascade_blocks=n) for n in (4, 6))
    unit = [w for w in plain.weights if ".block4.unit_2." in w.path]
    unit = sum(np.prod(w.shape) for w in unit if "moving" not in w.path)
    assert parameters(cascade) - parameters(plain) == 2 * 3 * unit


def test_atrous_features_of_the_cascade_equal_dense_features_subsampled():
    random = np.random.RandomState(0)
    image = random.uniform(-1, 1, (1, 257, 257, 3)).astype("float32")
    reference = _network(output_stride=8, cascade_blocks=6, multi_grid=(2, 1))
    weights = {}
    for weight in reference.weights:
        low = 0.5 if weight.path.endswith(("gamma", "variance")) else -1.0
        scale = 1.5 / np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 1.0
        weights[weight.path] = random.uniform(low, 1.0, weight.shape) * scale
    assign_variables(reference, weights)
    dense = np.asarray(reference(image))
    for stride in (32, 128):
        model = _network(output_stride=stride, cascade_blocks=6, multi_grid=(2, 1))
        assign_variables(model, weights)
        features = np.asarray(model(image))
        subsampled = dense[:, :: stride // 8, :: stride // 8]
        assert np.abs(subsampled - features).max() <= 2e-5 * np.abs(features).max()


def test_the_model_takes_a_cascade_with_or_without_aspp():
    options = dict(cascade_blocks=5, output_stride=16)
    model = dl.DeepLabV3(3, "resnet_v1_18", aspp_with_batch_norm=False, atrous_rates=(), **options)
    assert "aspp" not in model.endpoints
    assert "block5" in model.endpoints["backbone"]
    assert model.get_config()["cascade_blocks"] == 5
    with_aspp = dl.DeepLabV3(3, "resnet_v1_18", aspp_convs_filters=8, **options)
    assert with_aspp.get_layer("aspp1_depthwise").dilation_rate == (6, 6)


@pytest.mark.parametrize(
    ("backbone", "blocks", "words"),
    [
        ("resnet_v1_18", 3, "cascade_blocks of resnet_v1_18 is 4, or more .*; got 3"),
        ("mobilenet_v2", 7, "cascade_blocks=7: mobilenet_v2 doesn't have this option"),
    ],
)
def test_a_cascade_that_there_is_not_is_refused(backbone, blocks, words):
    with pytest.raises(dl.InputError, match=words):
        dl.DeepLabV3(3, backbone, cascade_blocks=blocks)
