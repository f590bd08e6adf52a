"""Any backbone of the registry, narrow: what is tested over all of them is structure."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras.initializers import TruncatedNormal, VarianceScaling

import deeplab_tf as dl
from deeplab_tf.backbones import BACKBONES, axial_resnet, convnext, resnet, xception

# Of the backbones that have an option for it, and an output stride where there is but one.
NARROW = {
    "convnext_tiny": {"output_stride": 32},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "nas_pnasnet": {"nas_architecture_options": {"nas_stem_output_num_conv_filters": 4}},
    # Down to stride 32, back up, and on with the head, without which the stride is fixed.
    "nas_hnasnet": {
        "nas_architecture_options": {
            "nas_stem_output_num_conv_filters": 4,
            "nas_use_classification_head": True,
            "nas_levels": [1, 2, 3, 2, 1],
        }
    },
}


def _eighth(filters):
    return tuple(number // 8 for number in filters)


def _narrow(record):
    """A ResNet's, Xception's or ConvNeXt's record, an eighth as wide; others as they are."""
    variant = next(iter(getattr(record.build, "args", ())), None)
    if isinstance(variant, xception.Variant):
        blocks = (dataclasses.replace(x, filters=_eighth(x.filters)) for x in variant.blocks)
        variant = dataclasses.replace(variant, blocks=tuple(blocks))
    elif isinstance(variant, resnet.Variant):
        variant = dataclasses.replace(variant, stem=_eighth(variant.stem))
    elif isinstance(variant, axial_resnet.Variant):
        variant = dataclasses.replace(variant, width=0.125, blocks=(2, 2, 2, 2))
    elif isinstance(variant, convnext.Variant):
        variant = convnext.Variant(blocks=(1, 1, 2, 1), widths=_eighth(variant.widths))
    else:
        return record
    build = functools.partial(record.build.func, variant, **record.build.keywords)
    return dataclasses.replace(record, build=build)


@pytest.fixture(scope="module")
def zeros_first():
    """Models begin with zeros: drawing values that nobody reads takes half the time of building."""

    def zeros(self, shape, dtype=None, **_):
        return keras.ops.zeros(shape, dtype)

    with pytest.MonkeyPatch.context() as patch:
        for initializer in (TruncatedNormal, VarianceScaling):
            patch.setattr(initializer, "__call__", zeros)
        yield


@pytest.fixture(scope="module")
def narrow_backbones(zeros_first):
    """Makes the registry's ResNets and Xceptions narrow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_WIDTHS", _eighth(resnet._WIDTHS))
        for name, record in BACKBONES.items():
            patch.setitem(BACKBONES, name, _narrow(record))
        yield


@pytest.fixture(scope="module")
def narrow_model(narrow_backbones):
    """(backbone, **options) -> a narrow DeepLabV3 with random weights."""

    def build(backbone: str, **options) -> dl.DeepLabV3:
        options = {"aspp_convs_filters": 16, **NARROW.get(backbone, {}), **options}
        model = dl.DeepLabV3(3, backbone, **options)
        randomize(model)
        return model

    return build


@pytest.fixture(scope="session")
def random_weights():
    """model -> None: gives it random weights, the same each time."""
    return randomize


def randomize(model: keras.Model) -> None:
    random = np.random.RandomState(0)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        if "variance" in weight.path or "gamma" in weight.path:
            low, high, scale = 0.5, 1.5, 1.0
        elif weight.path.endswith("beta"):
            # Most units active: with few filters, one layer without any stops every gradient.
            low, high, scale = 0.0, 1.5, 1.0
        else:
            low, high, scale = -1.0, 1.0, 1.5 / np.sqrt(np.prod(weight.shape[:-1]) or 1)
        if weight.path.endswith("kernel") and len(weight.shape) == 4 and weight.shape[-1] == 1:
            scale = 0.5
        weight.assign(random.uniform(low, high, weight.shape).astype("float32") * scale)
