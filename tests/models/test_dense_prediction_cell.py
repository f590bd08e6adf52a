"""The cell is built as its JSON says, and a JSON that says nothing sensible is refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import deeplab_tf as dl
from deeplab_tf.models.dense_prediction_cell import DPC_CITYSCAPES, GridPooling, read_cell
from deeplab_tf.models.macs import count

POOLED = [
    {"op": "conv", "kernel": 1, "input": -1},
    {"op": "pyramid_pooling", "grid_size": [2, 3], "input": -1},
    {"op": "conv", "kernel": [3, 5], "rate": [1, 2], "input": 1},
    {"op": "pyramid_pooling", "grid_size": [1, 1], "input": 2},
]


def _model(cell, **options):
    options = {"depth_multiplier": 0.1, "aspp_convs_filters": 8, **options}
    return dl.DeepLabV3(3, dense_prediction_cell_config=cell, **options)


def test_multiply_adds_are_the_published_ones():
    model = dl.DeepLabV3Plus(19, "xception_71", dense_prediction_cell_config=DPC_CITYSCAPES)
    assert count(model, (1025, 2049)).multiply_adds == pytest.approx(502.1e9, rel=1e-3)


def test_branches_read_what_the_json_says():
    model = _model(DPC_CITYSCAPES)
    features = model.endpoints["backbone"]
    sources = [
        model.get_layer(f"meta_architecture.branch{n}_depthwise").input._keras_history.operation
        for n in range(5)
    ]
    branches = [f"meta_architecture.branch{n}_pointwise.relu" for n in range(5)]
    assert [source.name for source in sources] == [
        *(features, branches[0], branches[1], branches[0], branches[0])
    ]
    joined = model.get_layer("meta_architecture.concat").input
    assert [x._keras_history.operation.name for x in joined] == branches
    assert not [layer.name for layer in model.layers if layer.name.startswith(("aspp", "image_p"))]


@pytest.mark.parametrize(("output_stride", "factor"), [(16, 1), (8, 2)])
def test_rates_are_those_of_stride_16(output_stride, factor):
    model = _model(DPC_CITYSCAPES, output_stride=output_stride)
    for number, branch in enumerate(DPC_CITYSCAPES):
        layer = model.get_layer(f"meta_architecture.branch{number}_depthwise")
        assert layer.dilation_rate == tuple(factor * rate for rate in branch["rate"])


def test_a_file_and_its_branches_give_the_same_model(tmp_path):
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(POOLED))
    config = _model(path).get_config()
    assert config == _model(POOLED).get_config()
    assert config["dense_prediction_cell_config"] == POOLED


def test_config_and_preset_folder_hold_the_cell(tmp_path):
    model = _model(POOLED)
    again = dl.DeepLabV3.from_config(json.loads(json.dumps(model.get_config())))
    assert again.get_config() == model.get_config()
    model.save_to_preset(tmp_path / "preset")
    image = np.random.RandomState(0).randint(0, 256, (1, 40, 61, 3), np.uint8)
    saved = dl.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(np.asarray(model(image)), np.asarray(saved(image)))


@pytest.mark.parametrize("size", [(1, 1), (16, 50), (65, 97)])
def test_open_and_fixed_sizes_give_the_same_answer(size):
    model = _model(POOLED)
    fixed = _model(POOLED, image_shape=(*size, 3))
    fixed.set_weights(model.get_weights())
    image = np.random.RandomState(0).uniform(0, 255, (2, *size, 3)).astype("float32")
    graph = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    answer = np.asarray(fixed(image))
    assert answer.shape == (2, *size, 3)
    np.testing.assert_allclose(np.asarray(graph(image)), answer, atol=1e-5)


@pytest.mark.parametrize("side", [(1, 1), (2, 7), (6, 5), (13, 4)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4)])
def test_grid_pooling_means_windows_of_a_share_of_the_map(side, grid):
    x = np.random.RandomState(0).normal(size=(2, *side, 3)).astype("float32")
    height, width = ((n - 1) // parts + 1 for n, parts in zip(side, grid, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
    layer = GridPooling(grid)
    np.testing.assert_allclose(np.asarray(layer(x)), windows.mean((-2, -1)), atol=1e-6)
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(np.asarray(graph(x)), windows.mean((-2, -1)), atol=1e-6)
    assert layer.compute_output_shape(x.shape) == windows.shape[:4]


def test_pooling_windows_can_stay_those_of_the_training_crop():
    model = _model(POOLED, image_pooling_crop_size=(129, 193))
    pools = [model.get_layer(f"meta_architecture.branch{n}.mean") for n in (1, 3)]
    assert [pool.window for pool in pools] == [(5, 5), (9, 13)]
    assert model(np.zeros((1, 200, 33, 3), "float32")).shape == (1, 200, 33, 3)


def test_training_reaches_every_branch():
    model = _model(POOLED, depth_multiplier=0.25)
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    random = np.random.RandomState(0)
    before = {w.path: np.asarray(w).copy() for w in model.trainable_weights}
    images = random.uniform(0, 255, (4, 64, 97, 3)).astype("float32")
    assert np.isfinite(model.train_on_batch(images, random.randint(0, 3, (4, 64, 97))))
    cell = [w for w in model.trainable_weights if w.path.startswith("meta_architecture")]
    assert len(cell) == 18
    assert [w.path for w in cell if np.all(np.asarray(w) == before[w.path])] == []


CONV = {"op": "conv", "kernel": 3, "rate": [1, 1], "input": -1}
POOL = {"op": "pyramid_pooling", "grid_size": [2, 2], "input": -1}


def _without(branch, key):
    return {name: value for name, value in branch.items() if name != key}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ([], r"list of 1 to 100 branches; got \[\]"),
        ({"branches": [CONV]}, "list of 1 to 100 branches; got {'branches'"),
        (["conv"], "branch 0: a branch has an op, conv or pyramid_pooling; got 'conv'"),
        ([{"input": -1}], "branch 0: a branch has an op"),
        ([CONV, {**CONV, "op": "max_pool"}], "branch 1: a branch has an op"),
        ([{**CONV, "rates": [1, 1]}], "there is no 'rates'; conv has op, input, kernel, rate"),
        ([{**POOL, "kernel": 3}], "there is no 'kernel'; pyramid_pooling has op, input, grid_size"),
        ([_without(CONV, "rate")], "rate is missing; conv has"),
        ([_without(CONV, "kernel")], "kernel is missing; conv has"),
        ([_without(CONV, "input")], "input is missing; conv has"),
        ([_without(POOL, "grid_size")], "grid_size is missing; pyramid_pooling has"),
        ([{**CONV, "input": 0}], "branch 0: input is -1, the encoder's output; got 0"),
        ([CONV, {**POOL, "input": 1}], "branch 1: input is -1, .* or an earlier .* 0; got 1"),
        ([{**CONV, "input": "-1"}], "input is -1, the encoder's output; got '-1'"),
        ([{**CONV, "rate": 6}], r"rate is two whole numbers from 1 to 999, \[vertical.*; got 6"),
        ([{**CONV, "rate": [6, 0]}], r"rate is two whole numbers .* got \[6, 0\]"),
        ([{**CONV, "rate": [1, 2, 3]}], r"rate is two whole numbers .* got \[1, 2, 3\]"),
        ([{**CONV, "kernel": 0}], "kernel is one or two whole numbers from 1"),
        ([{**CONV, "kernel": True}], "kernel is one or two whole numbers from 1.*; got True"),
        (
            [{**CONV, "kernel": 10**6}],
            "kernel is one or two whole numbers from 1 to 99.*; got 1000000",
        ),
        ([{**CONV, "rate": [10**9, 1]}], r"rate is two whole numbers from 1 to 999.*; got \[1000"),
        ([CONV] * 101, "list of 1 to 100 branches; got .*, ...].$"),
        ([{"op": "x" * 10**5}], "branch 0: a branch has an op, .*'xxx.{,30}xxx'}.$"),
        ([{**POOL, "grid_size": [2, 1.5]}], r"grid_size is two whole numbers .* got \[2, 1.5\]"),
    ],
)
def test_a_cell_that_cannot_be_built_is_refused_with_the_branch(cell, words):
    with pytest.raises(dl.InputError, match=f"^dense_prediction_cell_config.*{words}"):
        _model(cell)


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "cell.json"
    path.write_text(json.dumps([{**CONV, "input": 3}]))
    with pytest.raises(dl.InputError, match=r"cell\.json, branch 0: input is -1"):
        read_cell(path)
    path.write_text("[{")
    with pytest.raises(dl.InputError, match=r"cell\.json isn't valid JSON"):
        read_cell(str(path))
    with pytest.raises(dl.InputError, match=r"none\.json: no such file"):
        read_cell(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_stride": 32}, "output_stride 16, doubled for 8; got output_stride 32"),
        ({"aspp_with_batch_norm": False}, "needs aspp_with_batch_norm"),
    ],
)
def test_options_that_do_not_go_with_a_cell_are_refused(options, words):
    with pytest.raises(dl.InputError, match=words):
        _model(POOLED, **options)
