"""The published models of Panoptic-DeepLab and Axial-DeepLab, as deeplab2 has them."""

import dataclasses
from typing import Any

from deeplab_tf.models.info import ModelInfo, Preset
from deeplab_tf.models.label_sets import CITYSCAPES_PANOPTIC, COCO_PANOPTIC

_ZOO = "https://storage.googleapis.com/gresearch/tf-deeplab/checkpoint"
# The image-level feature is the mean over the training crop, which is the whole picture here.
_CITYSCAPES: dict[str, Any] = {"num_classes": 19, "image_pooling_crop_size": (1025, 2049)}
_COCO: dict[str, Any] = {"num_classes": 134, "image_pooling_crop_size": (641, 641)}
_OUR_PIPELINE = "deeplab2's own evaluation"
# As wide as the source made them: its configurations always set the width, and so its "S" is an L.
_AXIAL: dict[str, Any] = {"num_classes": 19, "output_stride": 16}
_PAPER = dataclasses.replace(
    CITYSCAPES_PANOPTIC,
    source="The Axial-DeepLab paper: ImageNet, then Cityscapes train_fine.",
    license="no weights",
)
# The paper's models look so far; deeplab2's, and the count here, along whole rows and columns.
_WITHIN = ", where a pixel sees 65 of its row and column, not all as here"


def _preset(
    arguments: dict[str, Any],
    cost: tuple[int, int],
    result: str,
    file: str,
    *,
    class_name: str = "PanopticDeepLab",
    info: ModelInfo = CITYSCAPES_PANOPTIC,
    published_cost: str = "",
) -> Preset:
    return Preset(
        class_name,
        arguments,
        info,
        cost=cost,
        result=result,
        published_cost=published_cost,
        weights=f"{_ZOO}/{file}.tar.gz" if file else "",
        task="panoptic",
    )


def _mobilenet(size: str) -> dict[str, Any]:
    backbone = f"mobilenet_v3_{size}_deeplab2"
    return {**_CITYSCAPES, "backbone": backbone, "output_stride": 16, "batch_norm_epsilon": 1e-5}


def _swidernet(layers: float) -> dict[str, Any]:
    return {
        **_CITYSCAPES,
        "backbone": "swidernet",
        "output_stride": 16,
        "backbone_layer_multiplier": layers,
        "use_sac_beyond_stride": 32,
    }


def _city(pq: str, miou: str, ap: str, pq_own: str) -> str:
    return (
        f"Cityscapes val PQ {pq}, mIoU {miou} (official scripts); PQ {pq_own}, AP {ap} "
        f"({_OUR_PIPELINE})"
    )


def _coco(pq: str, miou: str, ap: str, pq_own: str) -> str:
    return (
        f"COCO val PQ {pq} (official script); PQ {pq_own}, mIoU {miou}, AP {ap} ({_OUR_PIPELINE})"
    )


PANOPTIC: dict[str, Preset] = {
    "panoptic_deeplab_mobilenet_v3_small_cityscapes": _preset(
        _mobilenet("small"),
        (10_484_198, 109_650_747_256),
        _city("48.4", "69.5", "17.32", "48.67"),
        "mobilenet_v3_small_os16_panoptic_deeplab_cityscapes_dwo",
    ),
    "panoptic_deeplab_mobilenet_v3_large_cityscapes": _preset(
        _mobilenet("large"),
        (18_236_534, 166_765_712_760),
        _city("55.3", "74.5", "24.06", "55.51"),
        "mobilenet_v3_large_os16_panoptic_deeplab_cityscapes_dwo",
    ),
    "panoptic_deeplab_resnet_50_cityscapes": _preset(
        {**_CITYSCAPES, "backbone": "resnet50", "output_stride": 32},
        (54_973_702, 273_699_968_944),
        _city("59.8", "76.0", "30.01", "60.24"),
        "resnet50_os32_panoptic_deeplab_cityscapes_trainfine",
    ),
    "panoptic_deeplab_resnet_50_beta_cityscapes": _preset(
        {**_CITYSCAPES, "backbone": "resnet50_beta", "output_stride": 32},
        (55_097_478, 332_127_533_488),
        _city("60.8", "77.0", "31.58", "61.16"),
        "resnet50_beta_os32_panoptic_deeplab_cityscapes_trainfine",
    ),
    "panoptic_deeplab_wide_resnet_41_cityscapes": _preset(
        {**_CITYSCAPES, "backbone": "wide_resnet41", "output_stride": 16},
        (140_479_750, 2_703_170_124_208),
        _city("64.4", "81.5", "36.07", "64.83"),
        "wide_resnet41_os16_panoptic_deeplab_cityscapes_trainfine",
    ),
    "panoptic_deeplab_swidernet_sac_1_1_1_cityscapes": _preset(
        _swidernet(1.0),
        (144_418_057, 2_821_883_117_488),
        _city("64.3", "81.8", "36.80", "64.81"),
        "swidernet_sac_1_1_1_os16_panoptic_deeplab_cityscapes_trainfine",
    ),
    "panoptic_deeplab_swidernet_sac_1_1_3_cityscapes": _preset(
        _swidernet(3.0),
        (376_526_095, 7_214_914_096_048),
        _city("66.6", "82.1", "38.59", "67.05"),
        "swidernet_sac_1_1_3_os16_panoptic_deeplab_cityscapes_trainfine",
    ),
    "panoptic_deeplab_swidernet_sac_1_1_4_5_cityscapes": _preset(
        _swidernet(4.5),
        (535_985_427, 10_300_036_895_664),
        _city("66.8", "82.2", "39.51", "67.29"),
        "swidernet_sac_1_1_4.5_os16_panoptic_deeplab_cityscapes_trainfine",
    ),
    "panoptic_deeplab_resnet_50_os32_coco": _preset(
        {**_COCO, "backbone": "resnet50", "output_stride": 32},
        (55_003_257, 55_733_852_848),
        _coco("34.1", "54.75", "18.50", "34.60"),
        "resnet50_os32_panoptic_deeplab_coco_train_2",
        info=COCO_PANOPTIC,
    ),
    "panoptic_deeplab_resnet_50_beta_os32_coco": _preset(
        {**_COCO, "backbone": "resnet50_beta", "output_stride": 32},
        (55_127_033, 67_184_753_840),
        _coco("34.6", "54.98", "19.24", "35.10"),
        "resnet50beta_os32_panoptic_deeplab_coco_train",
        info=COCO_PANOPTIC,
    ),
    "panoptic_deeplab_resnet_50_os16_coco": _preset(
        {**_COCO, "backbone": "resnet50", "output_stride": 16},
        (55_003_257, 110_831_278_768),
        _coco("35.1", "55.52", "19.40", "35.67"),
        "resnet50_os16_panoptic_deeplab_coco_train",
        info=COCO_PANOPTIC,
    ),
    "panoptic_deeplab_resnet_50_beta_os16_coco": _preset(
        {**_COCO, "backbone": "resnet50_beta", "output_stride": 16},
        (55_127_033, 122_282_179_760),
        _coco("35.2", "55.45", "19.63", "35.76"),
        "resnet50beta_os16_panoptic_deeplab_coco_train",
        info=COCO_PANOPTIC,
    ),
    "axial_deeplab_l_cityscapes": _preset(
        {**_AXIAL, "backbone": "axial_deeplab_l"},
        (45_286_982, 1_101_014_841_392),
        "Cityscapes val PQ 63.9, mIoU 81.0 (paper)",
        "",
        class_name="AxialDeepLab",
        info=_PAPER,
        published_cost=f"45M parameters; 687B multiply-adds at 1025x2049{_WITHIN}",
    ),
    "axial_deeplab_xl_cityscapes": _preset(
        {**_AXIAL, "backbone": "axial_deeplab_xl"},
        (173_289_734, 3_135_947_962_032),
        "Cityscapes val PQ 64.4, mIoU 80.6 (paper)",
        "",
        class_name="AxialDeepLab",
        info=_PAPER,
        published_cost=f"173M parameters; 2447B multiply-adds at 1025x2049{_WITHIN}",
    ),
    "axial_deeplab_swidernet_1_1_1_cityscapes": _preset(
        {**_AXIAL, "backbone": "axial_swidernet"},
        (137_844_454, 2_717_937_408_432),
        _city("66.1", "82.8", "37.18", "66.63"),
        "axial_swidernet_1_1_1_os16_axial_deeplab_cityscapes_trainfine",
        class_name="AxialDeepLab",
    ),
    "axial_deeplab_swidernet_1_1_3_cityscapes": _preset(
        {**_AXIAL, "backbone": "axial_swidernet", "backbone_layer_multiplier": 3.0},
        (395_380_582, 7_215_875_789_232),
        _city("67.1", "83.5", "40.00", "67.63"),
        "axial_swidernet_1_1_3_os16_axial_deeplab_cityscapes_trainfine",
        class_name="AxialDeepLab",
    ),
    "axial_deeplab_swidernet_1_1_4_5_cityscapes": _preset(
        {**_AXIAL, "backbone": "axial_swidernet", "backbone_layer_multiplier": 4.5},
        (571_791_974, 10_370_936_857_008),
        _city("68.0", "83.0", "39.51", "68.53"),
        "axial_swidernet_1_1_4.5_os16_axial_deeplab_cityscapes_trainfine",
        class_name="AxialDeepLab",
    ),
    "axial_deeplab_max_deeplab_s_backbone_cityscapes": _preset(
        {**_AXIAL, "backbone": "max_deeplab_s_backbone"},
        (42_788_486, 534_299_988_912),
        _city("64.5", "82.2", "35.55", "64.97"),
        "max_deeplab_s_backbone_os16_axial_deeplab_cityscapes_trainfine",
        class_name="AxialDeepLab",
    ),
    "axial_deeplab_max_deeplab_l_backbone_cityscapes": _preset(
        {**_AXIAL, "backbone": "max_deeplab_l_backbone"},
        (137_844_454, 2_717_937_408_432),
        _city("66.3", "83.1", "38.09", "66.77"),
        "max_deeplab_l_backbone_os16_axial_deeplab_cityscapes_trainfine",
        class_name="AxialDeepLab",
    ),
}
