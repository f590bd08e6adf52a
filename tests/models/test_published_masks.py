"""What the records of the published mask transformers say fits together."""

import pytest

from deeplab_tf.inference.panoptic import merge_settings
from deeplab_tf.models.label_sets import ADE20K_PANOPTIC
from deeplab_tf.models.mask_classes import class_order
from deeplab_tf.models.presets import describe_preset
from deeplab_tf.models.published_masks import MASK_TRANSFORMERS
from deeplab_tf.postprocess.mask_settings import MaskSettings


@pytest.mark.parametrize("name", MASK_TRANSFORMERS)
def test_a_record_fits_to_its_classes_and_its_merge(name):
    preset = MASK_TRANSFORMERS[name]
    arguments, info = preset.arguments, preset.info
    assert arguments["num_classes"] == len(info.classes)
    assert arguments["ignore_label"] == info.ignore_label
    order = class_order(len(info.classes), info.thing_classes, info.ignore_label)
    assert len(order) == len(info.classes) - (info.ignore_label < len(info.classes))
    settings = merge_settings(info)
    assert isinstance(settings, MaskSettings)
    assert settings.label_divisor > arguments.get("num_mask_slots", 128)
    assert (settings.rule == "maskwise") == (preset.class_name == "KMaXDeepLab")


def test_each_record_has_weights_of_its_own():
    addresses = {preset.weights for preset in MASK_TRANSFORMERS.values()}
    assert len(addresses) == len(MASK_TRANSFORMERS)
    assert all(address.endswith(".tar.gz") for address in addresses)


def test_the_largest_costs_what_was_published():
    """In millions and billions; of others the published numbers leave a decoder out."""
    parameters, multiply_adds = MASK_TRANSFORMERS["kmax_deeplab_convnext_large_cityscapes"].cost
    assert round(parameters / 1e6) == 232
    assert multiply_adds == pytest.approx(1673e9, rel=0.01)


def test_area_limits_grow_with_the_picture():
    """They are one share of the picture, to a per cent."""
    shares = [
        preset.info.merge["thing_area_limit"] / preset.info.image_size[0] ** 2
        for name, preset in MASK_TRANSFORMERS.items()
        if name.endswith("_coco")
    ]
    assert len(shares) == 16 and max(shares) < 1.01 * min(shares)


def test_ade20k_has_a_hundred_things():
    info = ADE20K_PANOPTIC
    assert len(info.classes) == 151 and len(info.thing_classes) == 100
    things = {info.classes[label] for label in info.thing_classes}
    assert {"person", "car", "windowpane", "flag"} < things
    assert not {"other", "wall", "sky", "lake"} & things


@pytest.mark.parametrize(
    ("name", "backbone", "output_stride"),
    [
        ("kmax_deeplab_resnet_50_coco", "resnet50", 32),
        ("kmax_deeplab_convnext_large_641_ade20k", "convnext_large", 32),
        ("max_deeplab_s_641_400k_coco", "max_deeplab_s_backbone", 16),
        ("max_deeplab_l_1025_100k_coco", "max_deeplab_l_backbone", 16),
    ],
)
def test_the_list_of_models_names_the_encoder(name, backbone, output_stride):
    row = describe_preset(name)
    assert row["task"] == "panoptic" and row["convertible"]
    assert (row["backbone"], row["output_stride"]) == (backbone, output_stride)
