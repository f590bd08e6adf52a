"""Presets of other projects give the numbers that those projects' own code gave.

`peers/` has outputs of MMSegmentation 1.2.2, tf-models-official 2.20.0 and keras-hub 0.32.0, on
weights and a picture that the golden cases' rule generates: for MMSegmentation from its own names,
for the others from our paths. Maps are stored by the steps that stand beside them here.
"""

from pathlib import Path

import numpy as np
import pytest
import weights

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.checkpoints.pytorch import PyTorchNames, to_tensorflow
from deeplab_tf.checkpoints.strict import Source, assign
from deeplab_tf.models.macs import parameters
from deeplab_tf.models.presets import find_preset

PEERS = Path(__file__).parent / "peers"
# Largest difference, of an array's standard deviation.
TOLERANCE = 1e-4

pytestmark = pytest.mark.usefixtures("zeros_first")


def fill_by_path(model):
    for weight in model.weights:
        weight.assign(weights.make(weight.path, weight.shape))


def fill_by_mmsegmentation_name(model):
    """As a state dict, through its reader."""
    names = PyTorchNames(model, ["decode_head.conv_seg.weight"])
    arrays = {}
    for weight in model.weights:
        shape, name = tuple(weight.shape), names.source_name(weight.path, model)
        if len(shape) == 4:
            depthwise = "depthwise" in weight.path
            shape = tuple(shape[i] for i in ((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
        arrays[name] = weights.make(name, shape)
    arrays = to_tensorflow(arrays, names, model)
    assign(model, Source("generated", "PyTorch state dict", arrays, names=names))


def compare(name, size, steps, fill, **options):
    model = dl.from_preset(name, load_weights=False, **options)
    fill(model)
    image = weights.input_image(*size)[None].astype("float32")
    if keys.SEMANTIC_LOGITS in steps:
        found = {keys.SEMANTIC_LOGITS: model(image, training=False)}
    else:
        found = model.endpoint_model(*steps)(image, training=False)
    with np.load(PEERS / f"{name}.npz") as arrays:
        assert set(arrays) == set(steps)
        for key, (rows, columns, channels) in steps.items():
            ours = np.asarray(found[key])[:, ::rows, ::columns, ::channels]
            assert ours.shape == arrays[key].shape
            error = np.abs(ours - arrays[key]).max() / arrays[key].std()
            assert error <= TOLERANCE, f"{key}: {error:.2e} of the deviation"


def test_mmsegmentations_state_dict_gives_its_numbers():
    steps = {"logits": (2, 2, 1), "backbone": (2, 2, 32), "auxiliary": (1, 1, 1)}
    name = "deeplab_v3_plus_resnet_v1c_50_cityscapes"
    fill = fill_by_mmsegmentation_name
    compare(name, (65, 97), steps, fill, auxiliary_endpoint="res4")


def test_model_gardens_v3_gives_its_numbers():
    steps = {"logits": (1, 1, 1), "backbone": (1, 1, 4)}
    compare("deeplab_v3_mobilenet_v2_garden_voc", (97, 65), steps, fill_by_path)


def test_model_gardens_v3_plus_pools_windows_that_do_not_overlap():
    # As if trained on smaller crops: two windows fit into this picture.
    pooling = {"image_pooling_crop_size": (128, 256), "image_pooling_stride": (8, 16)}
    name = "deeplab_v3_plus_mobilenet_v2_garden_cityscapes"
    compare(name, (256, 384), {"logits": (4, 4, 1)}, fill_by_path, **pooling)
    crop, stride = (find_preset(name).arguments[option] for option in pooling)
    assert [side // 16 for side in crop] == list(stride)


def test_model_gardens_resnets_give_its_numbers():
    steps = {"logits": (1, 1, 1), "backbone": (1, 1, 32)}
    compare("deeplab_v3_resnet_101_garden_voc", (97, 65), steps, fill_by_path)
    pooling = {"image_pooling_crop_size": (128, 256), "image_pooling_stride": (8, 16)}
    name = "deeplab_v3_plus_resnet_101_garden_cityscapes"
    compare(name, (256, 384), {"logits": (6, 6, 1)}, fill_by_path, **pooling)


def test_keras_hubs_model_gives_its_numbers():
    steps = {"semantic_logits": (7, 7, 1)}
    compare("deeplab_v3_plus_resnet_50_keras_hub_voc", (64, 96), steps, fill_by_path)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("deeplab_v3_plus_resnet_v1c_50_cityscapes", 41_225_187),
        ("deeplab_v3_plus_resnet_v1c_101_cityscapes", 60_217_315),
        ("deeplab_v3_resnet_101_garden_voc", 58_164_437),
        ("deeplab_v3_plus_resnet_101_garden_cityscapes", 59_467_571),
        # Without the 1x1 convolution to 1280 channels that the original has and doesn't use.
        ("deeplab_v3_mobilenet_v2_garden_voc", 2_525_717 - 320 * 1280 - 2 * 1280),
        ("deeplab_v3_plus_mobilenet_v2_garden_cityscapes", 2_682_755 - 320 * 1280 - 2 * 1280),
    ],
)
def test_parameters_are_those_that_the_peer_counts(name, number):
    # That the table has the graphs' numbers is tested where they are counted.
    assert find_preset(name).cost[0] == number


def test_keras_hub_publishes_parameters_and_statistics_without_the_last_convolution():
    name = "deeplab_v3_plus_resnet_50_keras_hub_voc"
    model = dl.from_preset(name, load_weights=False)
    last = model.get_layer("logits.semantic").count_params()
    assert model.count_params() - last == 39_190_656
    assert parameters(model) == find_preset(name).cost[0] < model.count_params()
    assert "39.19M" in find_preset(name).published_cost
