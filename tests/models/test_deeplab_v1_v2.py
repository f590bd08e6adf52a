"""DeepLabv1 and v2: what the golden cases don't show."""

import json

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.models.weights import assign_variables

IMAGE = np.random.RandomState(0).uniform(0, 255, (1, 33, 41, 3)).astype("float32")
SMALL = {"fc6_filters": 8}
# ResNets have no width to choose; this is the smallest network that takes every option.
FEW = {"backbone": "mobilenet_v3_small", "output_stride": 16, "atrous_rates": (1, 2)}


@pytest.fixture(scope="module")
def v2(random_weights):
    model = dl.DeepLabV2(3, scale_logits=True, **FEW)
    random_weights(model)
    return model


@pytest.mark.parametrize(("stride", "rate"), [(8, 12), (16, 6), (32, 3)])
def test_the_rate_of_fc6_follows_the_output_stride(stride, rate):
    model = dl.DeepLabV1(3, output_stride=stride, **SMALL)
    assert model.get_layer("vgg_16.fc6").dilation_rate == (rate, rate)
    image = np.zeros((1, 33, 65, 3), "float32")
    logits = model.endpoint_model("logits")(image)["logits"]
    assert logits.shape == (1, 32 // stride + 1, 64 // stride + 1, 3)


@pytest.mark.parametrize(
    ("sides", "ceil_mode", "wanted"),
    [
        ((33, 41), True, (5, 6)),
        ((33, 41), False, (5, 6)),
        ((32, 24), True, (5, 4)),
        ((32, 24), False, (4, 3)),
    ],
)
def test_caffe_rounds_sides_of_pools_up(sides, ceil_mode, wanted):
    model = dl.DeepLabV1(3, pool_ceil_mode=ceil_mode, **SMALL)
    image = np.zeros((1, *sides, 3), "float32")
    assert model.endpoint_model("logits")(image)["logits"].shape == (1, *wanted, 3)
    assert model(image).shape == (1, *sides, 3)


def test_msc_adds_640_channels_that_all_count(random_weights):
    model = dl.DeepLabV1(3, multi_scale_features=True, **SMALL)
    random_weights(model)
    maps = model.endpoint_model("fc7", "msc")(IMAGE, training=False)
    assert maps["msc"].shape == (1, 5, 6, 8 + 640)
    np.testing.assert_array_equal(maps["msc"][..., :8], maps["fc7"])
    # Each of the five branches sees the picture: none is constant.
    for start in range(8, 648, 128):
        assert np.asarray(maps["msc"])[0, ..., start : start + 128].std(axis=(0, 1)).max() > 0


def test_the_scales_are_the_network_of_one_scale_on_smaller_pictures(v2):
    single = dl.DeepLabV2(3, **{**FEW, "image_pyramid": (1.0,)})
    assign_variables(single, {w.path: np.asarray(w) for w in v2.weights})
    outputs = v2(IMAGE, training=False)
    # 0.75 of 33x41 is 24x30, rounded down; the pixels are 1 / 0.75 apart.
    rows, columns = (np.clip((np.arange(n) + 0.5) / 0.75 - 0.5, 0, None) for n in (24, 30))
    smaller = _read(_read(IMAGE, rows, 1), columns, 2)
    wanted = single.endpoint_model("logits")(smaller.astype("float32"))["logits"]
    np.testing.assert_allclose(outputs["semantic_logits_0.75"], wanted, rtol=1e-3, atol=1e-4)
    merged = v2.endpoint_model("logits", "semantic_logits_1.00")(IMAGE)
    assert np.all(np.asarray(merged["logits"]) >= np.asarray(merged["semantic_logits_1.00"]))
    assert outputs["semantic_logits"].shape == (1, 33, 41, 3)


def _read(array, positions, axis):
    """Linear interpolation along an axis."""
    lower = np.floor(positions).astype(int)
    upper = np.minimum(lower + 1, array.shape[axis] - 1)
    share = (positions - lower).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
    return np.take(array, lower, axis) * (1 - share) + np.take(array, upper, axis) * share


def test_a_step_on_all_scales_moves_every_variable(v2):
    start = {w.path: np.asarray(w).copy() for w in v2.weights}
    v2.set_batch_norm(freeze_statistics=True)
    loss = dl.losses.SoftmaxCrossEntropy(3)
    own = dl.losses.SoftmaxCrossEntropy(3, upsample_logits=False)
    losses = {name: loss if name == "semantic_logits" else own for name in v2.output}
    v2.compile(keras.optimizers.SGD(1.0), losses, run_eagerly=True)
    labels = np.random.RandomState(0).randint(0, 3, (1, 33, 41))
    assert np.isfinite(v2.train_on_batch(IMAGE, dict.fromkeys(losses, labels))[0])
    still = [w.path for w in v2.trainable_weights if np.all(np.asarray(w) == start[w.path])]
    assert still == []
    assign_variables(v2, start)


@pytest.mark.parametrize("pyramid", [(1.0,), (1.0, 0.5)])
def test_a_preset_comes_back_with_its_config_and_answer(pyramid, tmp_path, random_weights):
    for model in (
        dl.DeepLabV1(3, multi_scale_features=True, name="first", **SMALL),
        dl.DeepLabV2(3, "vgg_16", atrous_rates=(2, 4), image_pyramid=pyramid, **SMALL),
    ):
        random_weights(model)
        model.save_to_preset(tmp_path / "preset")
        again = dl.from_preset(tmp_path / "preset")
        assert type(again) is type(model)
        assert again.get_config() == model.get_config()
        assert json.dumps(model.get_config())
        np.testing.assert_array_equal(np.asarray(again(IMAGE)), np.asarray(model(IMAGE)))
        # Another number of classes makes the last layers anew, and nothing else.
        other = dl.from_preset(tmp_path / "preset", num_classes=5)
        old = {w.path: np.asarray(w) for w in model.weights}
        new = [w.path for w in other.weights if not np.array_equal(np.asarray(w), old[w.path])]
        assert new and all(path.startswith("fc8") for path in new)


def test_another_output_stride_of_a_preset_takes_the_rates_along():
    for name, rates in (("deeplab_v1_7x7_voc", (2,)), ("deeplab_v2_resnet_101_voc", (3, 6, 9, 12))):
        options = {"fc6_filters": 8} if "v1" in name else {"backbone": "mobilenet_v3_small"}
        model = dl.from_preset(name, load_weights=False, output_stride=16, **options)
        assert model.get_config()["atrous_rates"] == list(rates)


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        ("DeepLabV1", {"backbone": "resnet_50_caffe"}, "backbone of DeepLabV1 is vgg_16"),
        ("DeepLabV1", {"atrous_rates": (6, 12)}, "DeepLabV2 with the backbone vgg_16 has several"),
        ("DeepLabV1", {"fc6_filter": 8}, "Did you mean 'fc6_filters'"),
        ("DeepLabV1", {"output_stride": 4}, r"output_stride of vgg_16 is one of \[8, 16, 32\]"),
        ("DeepLabV2", {"atrous_rates": ()}, "needs at least one number"),
        ("DeepLabV2", {"image_pyramid": (0.5,)}, "image_pyramid holds 1.0"),
        ("DeepLabV2", {"image_pyramid": (1.0, -1.0)}, "image_pyramid holds 1.0"),
        ("DeepLabV2", {"backbone": "resnet_101_coffee"}, "Did you mean 'resnet_101_caffe'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(cls, options, words):
    with pytest.raises(dl.InputError, match=words):
        getattr(dl, cls)(3, **options)
