"""The published models of MaX-DeepLab and kMaX-DeepLab, as deeplab2 has them."""

import dataclasses
from typing import Any

from deeplab_tf.models.info import ModelInfo, Preset
from deeplab_tf.models.label_sets import ADE20K_PANOPTIC, CITYSCAPES_PANOPTIC, COCO_PANOPTIC

_ZOO = "https://storage.googleapis.com/gresearch/tf-deeplab/checkpoint"
_OUR_PIPELINE = "deeplab2's own evaluation"
# Backbone -> its name in the checkpoints' addresses, what it was trained on before.
_BACKBONES = {
    "resnet50": ("resnet50", "ImageNet-1K"),
    "axial_resnet50": ("maxs_gelu", "ImageNet-22K"),
    **{
        f"convnext_{size}": (f"convnext_{size}", "ImageNet-22K")
        for size in ("tiny", "small", "base", "large")
    },
}


def _preset(
    class_name: str,
    arguments: dict[str, Any],
    info: ModelInfo,
    cost: tuple[int, int],
    result: str,
    file: str,
    published_cost: str = "",
) -> Preset:
    return Preset(
        class_name,
        arguments,
        info,
        cost=cost,
        result=result,
        published_cost=published_cost,
        weights=f"{_ZOO}/{file}.tar.gz",
        task="panoptic",
    )


# --- MaX-DeepLab ---


_MAX_COSTS = {
    ("s", 641): (77_756_942, 158_830_731_296),
    ("s", 1025): (77_756_942, 404_196_065_312),
    ("l", 1025): (450_871_278, 3_698_948_564_672),
}


def _max(size: str, side: int, steps: int, pq: tuple[str, str, str, str]) -> Preset:
    """PQ of all, things and stuff by the official script, and of all by deeplab2's."""
    limits = {641: (100, 1600), 1025: (256, 4096)}[side]
    info = dataclasses.replace(
        COCO_PANOPTIC,
        image_size=(side, side),
        source="deeplab2: ImageNet-1K, then COCO train 2017.",
        merge={
            "rule": "pixelwise",
            "thing_area_limit": limits[0],
            "stuff_area_limit": limits[1],
        },
    )
    arguments: dict[str, Any] = {"num_classes": 134, "size": size, "ignore_label": 0}
    if size == "s":  # "l" has no semantic decoder
        arguments["image_pooling_crop_size"] = (side, side)
    return _preset(
        "MaXDeepLab",
        arguments,
        info,
        _MAX_COSTS[size, side],
        f"COCO val {_qualities(pq)}, after {steps}k steps",
        f"max_deeplab_{size}_os16_res{side}_{steps}k_coco_train",
    )


def _qualities(pq: tuple[str, str, str, str]) -> str:
    return (
        f"PQ {pq[0]}, of things {pq[1]}, of stuff {pq[2]} (official script); PQ {pq[3]} "
        f"({_OUR_PIPELINE})"
    )


# --- kMaX-DeepLab ---

_NO_DECODER = "without the semantic decoder, which only training needs"
_MASKWISE: dict[str, Any] = {"rule": "maskwise"}
_KMAX_COCO = {**_MASKWISE, "thing_area_limit": 400, "stuff_area_limit": 6400}
_KMAX_CITYSCAPES = {
    **_MASKWISE,
    "thing_area_limit": 256,
    "stuff_area_limit": 2048,
    "class_confidence_threshold_thing": 0.5,
    "class_confidence_threshold_stuff": 0.3,
    "overlap_threshold": 0.9,
    "mask_weight": 0.0,
}
_KMAX_ADE20K = {
    **_MASKWISE,
    "thing_area_limit": 0,
    "stuff_area_limit": 0,
    "class_confidence_threshold_thing": 0.4,
    "class_confidence_threshold_stuff": 0.4,
}


def _kmax_coco(
    backbone: str,
    val: tuple[str, str, str, str],
    test: tuple[str, str, str],
    cost: tuple[int, int],
    *,
    unlabeled: bool = False,
) -> Preset:
    file, before = _BACKBONES[backbone]
    more = " and its unlabelled pictures" if unlabeled else ""
    info = dataclasses.replace(
        COCO_PANOPTIC,
        image_size=(1281, 1281),
        source=f"deeplab2: {before}, then COCO train 2017{more}.",
        merge=_KMAX_COCO,
    )
    return _preset(
        "KMaXDeepLab",
        {
            "num_classes": 134,
            "backbone": backbone,
            "ignore_label": 0,
        },
        info,
        cost,
        f"COCO val {_qualities(val)}; COCO test PQ {test[0]}, of things {test[1]}, of stuff "
        f"{test[2]}",
        f"kmax_{file}_coco_train{'_unlabeled' if unlabeled else ''}",
    )


def _kmax_cityscapes(
    backbone: str,
    pq: tuple[str, str, str, str],
    ap: str,
    miou: str,
    cost: tuple[int, int],
    published_cost: str = "",
) -> Preset:
    file, before = _BACKBONES[backbone]
    info = dataclasses.replace(
        CITYSCAPES_PANOPTIC,
        source=f"deeplab2: {before}, then Cityscapes train_fine.",
        merge=_KMAX_CITYSCAPES,
    )
    return _preset(
        "KMaXDeepLab",
        {
            "num_classes": 19,
            "backbone": backbone,
            "ignore_label": 255,
            "num_mask_slots": 256,
            "high_resolution_output_stride": 2,
            "auxiliary_semantic_decoder": False,
        },
        info,
        cost,
        f"Cityscapes val {_qualities(pq)}; AP {ap}, mIoU {miou} (official scripts)",
        f"kmax_{file}_cityscapes_train",
        published_cost,
    )


def _kmax_ade20k(
    backbone: str,
    side: int,
    pq: tuple[str, str, str, str],
    miou: str,
    cost: tuple[int, int],
    published_cost: str = "",
) -> Preset:
    file, before = _BACKBONES[backbone]
    info = dataclasses.replace(
        ADE20K_PANOPTIC,
        image_size=(side, side),
        source=f"deeplab2: {before}, then ADE20K train.",
        merge=_KMAX_ADE20K,
    )
    return _preset(
        "KMaXDeepLab",
        {
            "num_classes": 151,
            "backbone": backbone,
            "ignore_label": 0,
        },
        info,
        cost,
        f"ADE20K val {_qualities(pq)}; mIoU {miou} (official script)",
        f"kmax_{file}_res{side}_ade20k_train",
        published_cost,
    )


MASK_TRANSFORMERS: dict[str, Preset] = {
    "max_deeplab_s_641_100k_coco": _max("s", 641, 100, ("45.9", "49.2", "40.9", "46.36")),
    "max_deeplab_s_641_200k_coco": _max("s", 641, 200, ("46.5", "50.6", "40.4", "47.04")),
    "max_deeplab_s_641_400k_coco": _max("s", 641, 400, ("47.0", "51.3", "40.5", "47.56")),
    "max_deeplab_s_1025_100k_coco": _max("s", 1025, 100, ("47.9", "52.1", "41.5", "48.41")),
    "max_deeplab_s_1025_200k_coco": _max("s", 1025, 200, ("48.7", "53.6", "41.3", "49.23")),
    "max_deeplab_s_1025_400k_coco": _max("s", 1025, 400, ("49.0", "54.0", "41.4", "49.54")),
    "max_deeplab_l_1025_100k_coco": _max("l", 1025, 100, ("50.9", "56.9", "42.0", "51.48")),
    "max_deeplab_l_1025_200k_coco": _max("l", 1025, 200, ("51.1", "56.8", "42.5", "51.64")),
    "max_deeplab_l_1025_400k_coco": _max("l", 1025, 400, ("51.3", "57.5", "42.0", "51.87")),
    "kmax_deeplab_resnet_50_coco": _kmax_coco(
        "resnet50",
        ("53.0", "58.3", "44.9", "53.50"),
        ("53.4", "59.3", "44.5"),
        (72_436_862, 341_849_419_808),
    ),
    "kmax_deeplab_axial_resnet_50_coco": _kmax_coco(
        "axial_resnet50",
        ("56.2", "62.2", "47.1", "56.71"),
        ("56.4", "62.7", "46.9"),
        (90_272_254, 468_314_594_336),
    ),
    "kmax_deeplab_convnext_tiny_coco": _kmax_coco(
        "convnext_tiny",
        ("55.3", "61.0", "46.7", "55.80"),
        ("55.7", "61.7", "46.7"),
        (67_265_502, 333_904_348_480),
    ),
    "kmax_deeplab_convnext_small_coco": _kmax_coco(
        "convnext_small",
        ("56.3", "62.2", "47.5", "56.86"),
        ("57.0", "63.3", "47.5"),
        (88_900_062, 475_440_549_952),
    ),
    "kmax_deeplab_convnext_base_coco": _kmax_coco(
        "convnext_base",
        ("57.2", "63.4", "47.8", "57.73"),
        ("57.8", "64.3", "48.1"),
        (129_747_390, 703_896_433_120),
    ),
    "kmax_deeplab_convnext_large_coco": _kmax_coco(
        "convnext_large",
        ("57.9", "64.0", "48.6", "58.38"),
        ("58.0", "64.5", "48.2"),
        (243_882_366, 1_350_355_023_136),
    ),
    "kmax_deeplab_convnext_large_unlabeled_coco": _kmax_coco(
        "convnext_large",
        ("58.1", "64.3", "48.8", "58.69"),
        ("58.5", "64.8", "49.0"),
        (243_882_366, 1_350_355_023_136),
        unlabeled=True,
    ),
    "kmax_deeplab_resnet_50_cityscapes": _kmax_cityscapes(
        "resnet50", ("64.3", "57.7", "69.1", "64.65"), "38.5", "79.7", (56_986_125, 433_103_860_800)
    ),
    "kmax_deeplab_axial_resnet_50_cityscapes": _kmax_cityscapes(
        "axial_resnet50",
        ("66.4", "61.2", "70.2", "66.73"),
        "41.6",
        "82.1",
        (74_823_693, 598_791_551_040),
    ),
    "kmax_deeplab_convnext_tiny_cityscapes": _kmax_cityscapes(
        "convnext_tiny",
        ("66.3", "60.2", "70.8", "66.65"),
        "41.2",
        "82.6",
        (60_981_933, 395_292_619_872),
    ),
    "kmax_deeplab_convnext_small_cityscapes": _kmax_cityscapes(
        "convnext_small",
        ("67.3", "61.6", "71.5", "67.71"),
        "42.6",
        "83.1",
        (82_616_493, 576_176_791_392),
    ),
    "kmax_deeplab_convnext_base_cityscapes": _kmax_cityscapes(
        "convnext_base",
        ("68.0", "62.6", "72.0", "68.30"),
        "43.0",
        "83.1",
        (121_631_693, 864_226_355_712),
    ),
    "kmax_deeplab_convnext_large_cityscapes": _kmax_cityscapes(
        "convnext_large",
        ("68.4", "62.9", "72.4", "68.73"),
        "44.0",
        "83.5",
        (232_102_413, 1_682_572_689_216),
        "232M parameters; 1673B multiply-adds at 1025x2049",
    ),
    "kmax_deeplab_resnet_50_641_ade20k": _kmax_ade20k(
        "resnet50", 641, ("41.5", "40.4", "43.7", "41.47"), "45.0", (72_471_814, 87_175_921_952)
    ),
    "kmax_deeplab_resnet_50_1281_ade20k": _kmax_ade20k(
        "resnet50", 1281, ("42.3", "42.2", "42.5", "42.37"), "45.3", (72_471_814, 342_301_753_632)
    ),
    "kmax_deeplab_convnext_large_641_ade20k": _kmax_ade20k(
        "convnext_large",
        641,
        ("48.7", "48.0", "50.0", "48.75"),
        "54.8",
        (243_917_318, 345_543_198_240),
        f"232M parameters; 333B multiply-adds at 641x641, {_NO_DECODER}",
    ),
    "kmax_deeplab_convnext_large_1281_ade20k": _kmax_ade20k(
        "convnext_large",
        1281,
        ("50.9", "51.0", "50.7", "50.92"),
        "55.2",
        (243_917_318, 1_350_807_356_960),
        f"232M parameters; 1302B multiply-adds at 1281x1281, {_NO_DECODER}",
    ),
}
