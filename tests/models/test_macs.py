"""Costs are those of a calculation by hand, and those that were published."""

import math

import keras
import pytest
from keras import layers

import deeplab_tf as dl
from deeplab_tf.layers.dual_path_transformer import LearnedMemory
from deeplab_tf.layers.slot_masks import SlotMasks
from deeplab_tf.models.macs import count
from deeplab_tf.models.presets import PRESETS

pytestmark = pytest.mark.usefixtures("zeros_first")


def test_each_kind_of_layer_counts_as_by_hand():
    x = image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(8, 3, padding="same", groups=4, use_bias=False)(x)
    x = layers.DepthwiseConv2D(5, padding="same", dilation_rate=2)(x)
    x = layers.SeparableConv2D(4, 3, padding="valid", use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10)(x)
    found = count(keras.Model(image, x), (17, 32))
    half = 9 * 16
    assert found.multiply_adds == (
        half * 3 * 3 * 3 * 8
        + half * 3 * 3 * 2 * 8
        + half * 5 * 5 * 8
        + 7 * 14 * (3 * 3 * 8 + 8 * 4)
        + 4 * 10
    )
    # The normalisation has a gamma and a beta; its statistics don't count.
    assert found.parameters == (
        216 + 2 * 8 + 144 + (5 * 5 * 8 + 8) + (3 * 3 * 8 + 8 * 4) + (4 * 10 + 10)
    )
    assert found.image_size == (17, 32)


def test_slots_are_counted_and_a_layer_with_two_inputs_is_asked_with_both_shapes():
    image = keras.Input((None, None, 3))
    slots = LearnedMemory(5, 3, name="memory")(image)
    slots = layers.Conv1D(3, 1, use_bias=False)(slots)
    found = count(keras.Model(image, SlotMasks()([image, slots])), (7, 4))
    assert found.multiply_adds == 5 * 3 * 3 + 7 * 4 * 3 * 5


def test_the_size_is_the_models_own_if_it_has_one():
    model = dl.from_preset("portrait", load_weights=False)
    assert count(model).image_size == model.info.image_size
    fixed = dl.DeepLabV3(2, depth_multiplier=0.25, atrous_rates=(), image_shape=(33, 49, 3))
    assert count(fixed).image_size == (33, 49)
    free = dl.DeepLabV3(2, depth_multiplier=0.25, atrous_rates=())
    with pytest.raises(dl.InputError, match="any size; name one"):
        count(free)
    assert count(free, (33, 49)) == count(fixed)


def test_a_transposed_convolution_is_not_passed_over():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2DTranspose(4, 3)(image))
    with pytest.raises(ValueError, match="transposed"):
        count(model, (8, 8))


def test_papers_counted_atrous_convolutions_on_padded_maps():
    x = image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, dilation_rate=6, padding="same", use_bias=False)(x)
    x = layers.DepthwiseConv2D(3, dilation_rate=6, padding="same", use_bias=False)(x)
    model = keras.Model(image, x)
    assert count(model, (33, 20)).multiply_adds == 33 * 20 * (9 * 3 * 8 + 9 * 8)
    padded = count(model, (33, 20), space_to_batch=True).multiply_adds
    assert padded == 36 * 24 * 9 * 3 * 8 + 33 * 20 * 9 * 8


# Published multiply-adds. Where they lie more than 1 % off, the preset's text says how they were
# counted, or that we don't know.
PUBLISHED = [
    ("deeplab_v3_mobilenet_v2_voc", 16, (513, 513), 2.75e9, 0.01),
    ("deeplab_v3_mobilenet_v2_aspp_voc", 16, (513, 513), 5.8e9, 0.01),
    ("deeplab_v3_mobilenet_v2_cityscapes", 16, (1025, 2049), 21.27e9, 0.01),
    ("deeplab_v3_mobilenet_v2_dm05_voc", 16, (513, 513), 0.88e9, 0.015),
    ("deeplab_v3_mobilenet_edgetpu_cityscapes", 16, (513, 513), 7.1e9, 0.01),
    ("deeplab_v3_mobilenet_edgetpu_cityscapes", 32, (513, 513), 5.6e9, 0.025),
    ("deeplab_v3_mobilenet_edgetpu_slim_cityscapes", 16, (513, 513), 4.3e9, 0.02),
    ("deeplab_v3_mobilenet_edgetpu_slim_cityscapes", 32, (513, 513), 3.5e9, 0.03),
    ("deeplab_v3_resnet_101_voc", 16, (513, 513), 81.02e9, 0.01),
    ("deeplab_v3_resnet_101_voc", 8, (513, 513), 276.18e9, 0.01),
    ("deeplab_v3_plus_resnet_101_voc", 16, (513, 513), 101.28e9, 0.014),
    ("deeplab_v3_plus_resnet_101_voc", 8, (513, 513), 297.92e9, 0.01),
    ("deeplab_v3_plus_resnet_101_voc", 32, (513, 513), 74.20e9, 0.01),
    ("deeplab_v3_plus_xception_65_voc", 16, (513, 513), 54.17e9, 0.01),
    ("deeplab_v3_plus_xception_65_voc", 8, (513, 513), 177.10e9, 0.01),
    ("deeplab_v3_plus_xception_65_plain_voc", 16, (513, 513), 89.76e9, 0.01),
    ("deeplab_v3_plus_xception_65_plain_voc", 8, (513, 513), 262.59e9, 0.01),
    ("deeplab_v3_plus_xception_65_cityscapes", 16, (1025, 2049), 418.64e9, 0.01),
    ("deeplab_v3_plus_xception_71_cityscapes", 8, (1025, 2049), 1551e9, 0.04),
    ("deeplab_v3_plus_xception_71_dpc_cityscapes", 16, (1025, 2049), 502.07e9, 0.01),
    ("auto_deeplab_s_cityscapes", 8, (1025, 2049), 333.25e9, 0.02),
    ("deeplab_v3_resnet_50_torch_voc", 16, (513, 513), 51.4e9, 0.01),
    ("deeplab_v3_plus_resnet_50_torch_voc", 16, (513, 513), 62.7e9, 0.01),
]


@pytest.mark.parametrize(("preset", "output_stride", "size", "published", "tolerance"), PUBLISHED)
def test_multiply_adds_are_the_published_ones(preset, output_stride, size, published, tolerance):
    model = dl.from_preset(preset, load_weights=False, output_stride=output_stride)
    padded = "torch" not in preset
    found = count(model, size, space_to_batch=padded).multiply_adds
    assert found == pytest.approx(published, rel=tolerance)
    if tolerance > 0.01:
        words = ("we don't know", "with it", "without them")
        assert any(word in PRESETS[preset].published_cost for word in words)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("deeplab_v1_large_fov_voc", 20.5e6),
        ("deeplab_v1_7x7_voc", 134.3e6),
        ("deeplab_v1_4x4_voc", 65.1e6),
    ],
)
def test_parameters_of_v1_are_those_of_its_paper(preset, published):
    """Its Table 2, which has them to a tenth of a million."""
    model = dl.from_preset(preset, load_weights=False)
    assert model.count_params() == PRESETS[preset].cost[0] == pytest.approx(published, abs=5e4)


VOC_SCALES, CITYSCAPES_SCALES = (0.5, 0.75, 1, 1.25, 1.5, 1.75), (0.75, 1, 1.25)


@pytest.mark.parametrize(
    ("preset", "size", "scales", "published"),
    [
        ("deeplab_v3_mobilenet_v2_voc", 513, VOC_SCALES, 152.6e9),
        ("deeplab_v3_mobilenet_v2_cityscapes", 1025, CITYSCAPES_SCALES, 433.2e9),
        ("deeplab_v3_plus_xception_65_voc", 513, VOC_SCALES, 3055e9),
        ("deeplab_v3_plus_xception_65_cityscapes", 1025, CITYSCAPES_SCALES, 8678e9),
        ("deeplab_v3_resnet_101_voc", 513, VOC_SCALES, 4871e9),
        ("deeplab_v3_plus_resnet_101_voc", 513, VOC_SCALES, 5247e9),
    ],
)
def test_scales_and_flips_cost_what_was_published(preset, size, scales, published):
    model = dl.from_preset(preset, load_weights=False, output_stride=8)
    total = 0
    for scale in scales:
        height = int((size - 1) * scale) + 1
        width = height if size == 513 else 2 * height - 1
        total += 2 * count(model, (height, width), space_to_batch=True).multiply_adds
    assert total == pytest.approx(published, rel=0.005)


def test_softmax_and_arg_max_make_the_published_number_of_the_half_width_model():
    name = "deeplab_v3_mobilenet_v2_dm05_voc"
    model = dl.from_preset(name, load_weights=False, output_stride=16)
    # A softmax is five operations an element, an arg max one; a multiply-add is two.
    elementwise = 513 * 513 * 21 * (5 + 1) / 2
    assert count(model, (513, 513)).multiply_adds + elementwise == pytest.approx(0.88e9, rel=0.01)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("deeplab_v3_mobilenet_v2_torch_voc", 6.0e9),
        ("deeplab_v3_plus_mobilenet_v2_torch_voc", 17.0e9),
        ("deeplab_v3_plus_mobilenet_v2_torch_cityscapes", 135e9),
    ],
)
def test_the_port_counted_batch_norm_and_relu_too(preset, published):
    model = dl.from_preset(preset, load_weights=False)
    operations = {"BatchNorm": 2, "ReLU": 1}
    counted = [layer for layer in model.layers if type(layer).__name__ in operations]
    outputs = keras.Model(model.input, [layer.output for layer in counted])
    specs = outputs.compute_output_spec(keras.KerasTensor((1, *model.info.image_size, 3)))
    elements = sum(
        operations[type(layer).__name__] * math.prod(spec.shape)
        for layer, spec in zip(counted, specs, strict=True)
    )
    found = PRESETS[preset].cost[1]
    assert found + elements == pytest.approx(published, rel=0.006)
    assert found < 0.99 * published
    assert "of a batch norm and one of a ReLU" in PRESETS[preset].published_cost


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("deeplab_v3_mobilenet_v3_large_cityscapes", 15.95e9),
        ("deeplab_v3_mobilenet_v3_small_cityscapes", 4.63e9),
    ],
)
def test_operations_are_two_for_each_multiply_add_and_work_on_elements(preset, published):
    text, twice = PRESETS[preset].published_cost, 2 * PRESETS[preset].cost[1]
    assert f"{published / 1e9:.2f}B operations" in text
    assert f"{twice / 1e9:.2f}B by our count" in text
    assert 0.6e9 < published - twice < 0.8e9


# Names of the presets of each graph and size; their weights differ.
SAME: dict[str, list[str]] = {}
for _name, _preset in PRESETS.items():
    _graph = (_preset.class_name, _preset.arguments, _preset.info.image_size)
    SAME.setdefault(repr(_graph), []).append(_name)


@pytest.mark.parametrize("names", SAME.values(), ids=lambda names: names[0])
def test_the_table_of_presets_has_the_costs_of_the_graphs(names):
    found = count(dl.from_preset(names[0], load_weights=False))
    assert {PRESETS[name].cost for name in names} == {(found.parameters, found.multiply_adds)}


# In millions, as papers and model zoos give them.
MILLIONS = {
    "deeplab_v3_mobilenet_v2_voc": "2.11",
    "deeplab_v3_mobilenet_v2_aspp_voc": "4.52",
    "deeplab_v3_mobilenet_v3_large_cityscapes": "1.51",
    "deeplab_v3_mobilenet_v3_small_cityscapes": "0.47",
    "deeplab_v3_resnet_101_voc": "58.16",
    "deeplab_v3_plus_xception_71_cityscapes": "43.48",
    "auto_deeplab_s_cityscapes": "10.15",
    "auto_deeplab_m_cityscapes": "21.62",
    "auto_deeplab_l_cityscapes": "44.42",
}


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters_are_the_published_millions(name):
    assert f"{PRESETS[name].cost[0] / 1e6:.2f}" == MILLIONS[name]


@pytest.mark.parametrize(("kind", "published"), [("large", 15.95e9), ("small", 4.63e9)])
def test_the_numbers_of_mobilenet_v3_fit_operations_not_multiply_adds(kind, published):
    """Two to a multiply-add, and activations, sums and pooling on top.

    TensorFlow's own profiler finds 15.8 and 4.2 billion operations in our graphs.
    """
    model = dl.from_preset(f"deeplab_v3_mobilenet_v3_{kind}_cityscapes", load_weights=False)
    assert published / 1.2 < 2 * count(model).multiply_adds < published
