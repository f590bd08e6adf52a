"""Auto-DeepLab: the published network, its options, and any other genotype."""

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.backbones.hnasnet import nas_hnasnet
from deeplab_tf.backbones.pnasnet import nas_pnasnet
from deeplab_tf.models.macs import parameters

FEW = 2


def _endpoints(size=(65, 65), build=nas_hnasnet, output_stride=8, **options):
    """Endpoints of a narrow network, and its model."""
    image = keras.Input((*size, 3))
    options = {"nas_stem_output_num_conv_filters": FEW, **options}
    found = build(image, output_stride=output_stride, nas_architecture_options=options)
    return found, keras.Model(image, found)


def _shapes(endpoints):
    return {name: tuple(x.shape[1:]) for name, x in endpoints.items()}


def test_the_published_network_goes_down_to_stride_32_and_back_to_8():
    endpoints, model = _endpoints()
    assert _shapes(endpoints) == {
        "res2": (17, 17, 5 * FEW),
        "res3": (9, 9, 10 * FEW),
        "res4": (5, 5, 20 * FEW),
        "res5": (9, 9, 10 * FEW),
    }
    smallest = min(layer.output.shape[1] for layer in model.layers if ".cell_9" in layer.name)
    assert smallest == 3


def test_without_the_last_stride_no_cell_is_coarser_than_16():
    _, model = _endpoints(nas_remove_os32_stride=True)
    assert min(layer.output.shape[1] for layer in model.layers if ".cell_" in layer.name) == 5
    _, full = _endpoints()
    # Graphs of another depth list their layers in another order.
    assert {w.path: w.shape for w in model.weights} == {w.path: w.shape for w in full.weights}


@pytest.mark.parametrize("build", [nas_hnasnet, nas_pnasnet])
@pytest.mark.parametrize(("output_stride", "side"), [(8, 9), (16, 5), (32, 3)])
def test_the_classification_head_is_2048_wide_at_any_stride(build, output_stride, side):
    endpoints, _ = _endpoints(
        build=build, output_stride=output_stride, nas_use_classification_head=True
    )
    assert endpoints["res5"].shape[1:] == (side, side, 2048)


@pytest.mark.parametrize(("output_stride", "rates"), [(8, (2, 4)), (16, (1, 2)), (32, (1, 1))])
def test_the_heads_convolution_that_loses_its_stride_takes_the_doubled_rate(output_stride, rates):
    _, model = _endpoints(
        output_stride=output_stride, nas_levels=[0, 1], nas_use_classification_head=True
    )
    convolutions = [model.get_layer(f"hnasnet.downsample_os{n}_conv") for n in (16, 32)]
    assert tuple(layer.dilation_rate[0] for layer in convolutions) == rates


def test_the_cells_do_not_change_with_the_stride_of_the_head():
    image = np.random.RandomState(0).uniform(-1, 1, (1, 33, 33, 3)).astype("float32")
    answers = []
    for output_stride in (8, 16, 32):
        keras.utils.set_random_seed(0)
        _, model = _endpoints(
            (33, 33),
            output_stride=output_stride,
            nas_levels=[1, 2, 1],
            nas_use_classification_head=True,
        )
        cells = keras.Model(model.input, model.get_layer("hnasnet.relu").output)
        answers.append(np.asarray(cells(image)))
    assert answers[0].shape == (1, 5, 5, 10 * FEW)
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


@pytest.mark.parametrize(("filters", "published"), [(20, "10.15"), (48, "44.42")])
def test_parameters_are_the_published_millions(filters, published):
    """Table 2 of the paper; its ASPP and decoder have plain convolutions."""
    model = dl.DeepLabV3Plus(
        19,
        "nas_hnasnet",
        output_stride=8,
        nas_architecture_options={"nas_stem_output_num_conv_filters": filters},
        aspp_with_separable_conv=False,
        decoder_use_separable_conv=False,
    )
    assert f"{parameters(model) / 1e6:.2f}" == published


OPERATIONS = [
    *("separable_3x3_1", "separable_5x5_2", "separable_7x7_3", "atrous_3x3", "atrous_5x5"),
    *("max_pool_3x3", "max_pool_2x2", "avg_pool_3x3", "none"),
]


def _random_genotype(seed):
    random = np.random.RandomState(seed)
    pairs = random.randint(1, 5)
    levels = [int(random.randint(2))]
    while len(levels) < 5:
        levels.append(int(np.clip(levels[-1] + random.randint(-1, 2), 0, 3)))
    outputs = random.permutation(pairs)[: random.randint(1, pairs + 1)] + 2
    genotype = {
        "operations": [str(random.choice(OPERATIONS)) for _ in range(2 * pairs)],
        "inputs": [int(random.randint(i // 2 + 2)) for i in range(2 * pairs)],
        "outputs": [int(state) for state in outputs],
    }
    return genotype, levels


@pytest.mark.parametrize("seed", range(9))
def test_any_genotype_takes_any_size(seed):
    genotype, levels = _random_genotype(seed)
    last = levels[-1]
    options = {"nas_genotype": genotype, "nas_levels": levels}
    endpoints, model = _endpoints((None, None), output_stride=4 * 2**last, **options)
    # Every level above the deepest has been passed; the stem is at level 0 in any case.
    assert sorted(endpoints) == [f"res{n + 2}" for n in range(max(*levels, 1))] + ["res5"]
    width = len(genotype["outputs"]) * FEW * 2**last
    for size in ((1, 1), (17, 46), (64, 33)):
        image = np.random.RandomState(seed).uniform(-1, 1, (2, *size, 3)).astype("float32")
        features = np.asarray(model(image, training=False)["res5"])
        # Halving a side rounds up. Doubled, an even side becomes odd, and so one less.
        assert features.shape == (2, *(_side(n, levels) for n in size), width)
        assert np.all(np.isfinite(features))


def _side(n, levels):
    half = (n + 1) // 2
    side, before = (half + 1) // 2, 0
    for level in levels:
        if level > before:
            side = (side + 1) // 2
        elif level < before:
            side = 2 * side - 1
        before = level
    return side


def test_every_operation_of_a_cell_can_be_drawn():
    drawn = {name for seed in range(9) for name in _random_genotype(seed)[0]["operations"]}
    assert drawn == set(OPERATIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_stride": 16}, r"last cell at stride 8 is one of \[8\] \(nas_use_class"),
        ({"nas_levels": [1, 2]}, r"stride 16 is one of \[16\] \(nas_use.*; got 8"),
        (
            {"nas_levels": [1, 2], "nas_use_classification_head": True},
            r"stride 16 is one of \[16, 32\]; got 8",
        ),
        (
            {"nas_levels": [1, 2, 3], "nas_remove_os32_stride": True, "output_stride": 32},
            r"stride 16 is one of \[16\]; got 32",
        ),
        ({"nas_levels": [2]}, "nas_levels: cell 0"),
        ({"nas_genotype": {}}, "nas_genotype has the lists"),
        ({"nas_cells": 3}, "has no 'nas_cells'; it has: nas_stem"),
        ({"nas_stem_output_num_conv_filters": 0}, "filters is at least 1; got 0"),
        ({"nas_use_classification_head": "no"}, "is True or False; got 'no'"),
    ],
)
def test_options_that_make_no_network_are_refused(options, words):
    with pytest.raises(dl.InputError, match=words):
        _endpoints(**options)


def test_options_are_a_dictionary():
    with pytest.raises(dl.InputError, match="is a dictionary of nas_stem.*; got 5"):
        nas_hnasnet(keras.Input((32, 32, 3)), output_stride=8, nas_architecture_options=5)


@pytest.mark.parametrize(
    "options", [{"nas_remove_os32_stride": True}, {"nas_levels": [1]}, {"nas_genotype": {}}]
)
def test_pnasnet_refuses_what_only_hnasnet_has(options):
    with pytest.raises(dl.InputError, match=f"{[*options][0]}: only nas_hnasnet has it"):
        _endpoints(build=nas_pnasnet, **options)
