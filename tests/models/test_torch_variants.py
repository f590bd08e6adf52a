"""DeepLabs of the PyTorch world, as variants of ours; golden cases have their numbers."""

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.layers.padding import PadToKernel
from deeplab_tf.layers.resize import ResizeLike, resize_bilinear
from deeplab_tf.models.dense_prediction_cell import DPC_CITYSCAPES
from deeplab_tf.models.macs import count, parameters
from deeplab_tf.models.presets import find_preset
from deeplab_tf.postprocess.multi_scale import predict_probabilities

SMALL = {"aspp_convs_filters": 8, "depth_multiplier": 0.25, "atrous_rates": ()}


@pytest.mark.parametrize(
    ("preset", "endpoint", "published", "giga"),
    [
        ("deeplab_v3_mobilenet_v3_large_torch_coco", "res3", 11_029_328, "10.5"),
        ("deeplab_v3_resnet_50_torch_coco", "res4", 42_004_074, "178.7"),
        ("deeplab_v3_resnet_101_torch_coco", "res4", 60_996_202, "258.7"),
    ],
)
def test_torchvision_publishes_the_cost_with_the_second_head(preset, endpoint, published, giga):
    model = dl.from_preset(preset, load_weights=False, auxiliary_endpoint=endpoint)
    counts = count(model)
    assert counts.parameters == published and counts.image_size == (520, 520)
    assert f"{counts.multiply_adds / 1e9:.1f}" == giga
    text = find_preset(preset).published_cost
    assert f"{published / 1e6:.2f}M parameters and {giga}B multiply-adds at 520x520" in text
    assert f'auxiliary_endpoint="{endpoint}"' in text
    assert model.info.classes[15] == "person" and model.info.license == "BSD-3-Clause"


@pytest.mark.parametrize(
    ("preset", "number"),
    [
        ("deeplab_v3_plus_mobilenet_v2_torch_voc", 5_225_717),
        ("deeplab_v3_plus_resnet_50_torch_voc", 39_761_845),
    ],
)
def test_the_port_has_the_same_number_of_parameters(preset, number):
    model = dl.from_preset(preset, load_weights=False)
    assert parameters(model) == number
    assert model.get_config()["atrous_rates"] == [6, 12, 18]


def test_a_preset_without_weights_says_where_they_are():
    with pytest.raises(dl.InputError, match="deeplabv3_resnet50_coco-cd0a2569.pth"):
        dl.from_preset("deeplab_v3_resnet_50_torch_coco")


def test_pixels_are_normalised_by_mean_and_deviation():
    model = dl.DeepLabV3(2, "mobilenet_v2_torch", **SMALL)
    image = np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3)
    values = np.asarray(model.endpoint_model("preprocessed")(image)["preprocessed"])[0, 0]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(values, [-mean / std, (1 - mean) / std], rtol=1e-5)


def test_an_auxiliary_head_is_a_second_output_that_trains():
    model = dl.DeepLabV3(3, "mobilenet_v3_large_torch", auxiliary_endpoint="res3", **SMALL)
    images = np.random.RandomState(0).uniform(0, 255, (2, 33, 33, 3)).astype("float32")
    outputs = model(images, training=False)
    assert set(outputs) == {keys.SEMANTIC_LOGITS, keys.AUXILIARY_LOGITS}
    assert all(output.shape == (2, 33, 33, 3) for output in outputs.values())
    before = np.asarray(model.get_layer("auxiliary.logits").kernel).copy()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=dict.fromkeys(outputs, loss), jit_compile=False)
    labels = np.zeros((2, 33, 33), "int32")
    model.train_on_batch(images, dict.fromkeys(outputs, labels))
    assert not np.array_equal(before, np.asarray(model.get_layer("auxiliary.logits").kernel))


def test_another_number_of_classes_makes_both_last_layers_anew(tmp_path):
    options = {"auxiliary_endpoint": "res3", **SMALL}
    dl.DeepLabV3(3, "mobilenet_v3_large_torch", **options).save_to_preset(tmp_path / "preset")
    again = dl.from_preset(tmp_path / "preset", num_classes=4)
    assert {output.shape[-1] for output in again.output.values()} == {4}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auxiliary_endpoint": "res5"}, "auxiliary_endpoint is one of"),
        ({"head_num_convs": 1, "decoder_output_stride": (4,)}, "head_num_convs needs a model"),
        ({"new_rate_at_once": True}, "mobilenet_v2_torch doesn't have this option"),
        (
            {"dense_prediction_cell_config": DPC_CITYSCAPES, "head_batch_norm_epsilon": 1e-3},
            "are options of ASPP",
        ),
    ],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(dl.InputError, match=words):
        dl.DeepLabV3(3, "mobilenet_v2_torch", **{**SMALL, **options})


def test_flips_and_scales_are_resized_as_the_model_does():
    model = dl.DeepLabV3(3, "mobilenet_v2_torch", align_corners=False, **SMALL)
    kernel = model.get_layer("logits.semantic").kernel
    kernel.assign(np.random.RandomState(1).normal(size=kernel.shape))
    image = np.random.RandomState(0).uniform(0, 255, (1, 48, 64, 3)).astype("float32")

    def softmax(x):
        return np.asarray(keras.ops.softmax(model(x, training=False)))

    wanted = (softmax(image) + softmax(image[:, :, ::-1])[:, :, ::-1]) / 2
    found = predict_probabilities(model, image, add_flipped_images=True)
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)
    assert predict_probabilities(model, image, eval_scales=(0.5, 1.5)).shape == (1, 48, 64, 3)


def _half_pixel(x, size):
    """Two lerps per axis in float64, at the pixels' centres."""
    for axis, out in ((1, size[0]), (2, size[1])):
        n = x.shape[axis]
        position = np.maximum((np.arange(out) + 0.5) * n / out - 0.5, 0)
        lower = np.minimum(np.floor(position).astype(int), n - 1)
        weight = (position - lower).reshape([-1 if i == axis else 1 for i in range(4)])
        upper = np.minimum(lower + 1, n - 1)
        x = np.take(x, lower, axis) * (1 - weight) + np.take(x, upper, axis) * weight
    return x


@pytest.mark.parametrize("size", [(129, 65), (9, 9), (1, 1), (33, 2)])
def test_half_pixel_resize_equals_the_reference(size):
    x = np.random.RandomState(0).rand(2, 33, 17, 3).astype("float32")
    ours = np.asarray(resize_bilinear(x, size, align_corners=False))
    np.testing.assert_allclose(ours, _half_pixel(x, size), atol=2e-5)
    layer = ResizeLike.from_config(ResizeLike(align_corners=False).get_config())
    again = np.asarray(layer([x, np.zeros((1, *size, 1))]))
    np.testing.assert_array_equal(again, ours)


def test_only_what_is_smaller_than_a_kernel_is_padded():
    layer = PadToKernel(3)
    assert layer(np.ones((1, 1, 5, 2), "float32")).shape == (1, 3, 5, 2)
    x = np.ones((1, 3, 4, 2), "float32")
    np.testing.assert_array_equal(np.asarray(layer(x)), x)
    assert PadToKernel.from_config(layer.get_config()).kernel_size == 3
