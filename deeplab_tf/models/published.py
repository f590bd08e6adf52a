"""The published models: settings, costs, scores, and where their weights are."""

import dataclasses
from typing import Any

from deeplab_tf.models.dense_prediction_cell import DPC_CITYSCAPES
from deeplab_tf.models.info import Preset
from deeplab_tf.models.label_sets import ADE20K, CITYSCAPES, PASCAL_VOC, PORTRAIT
from deeplab_tf.models.published_elsewhere import ELSEWHERE
from deeplab_tf.models.published_first import FIRST
from deeplab_tf.models.published_masks import MASK_TRANSFORMERS
from deeplab_tf.models.published_panoptic import PANOPTIC

_ZOO = "http://download.tensorflow.org/models"
# No atrous branches and no decoder: the official mobile models. Their graphs were frozen at
# output stride 8.
_MOBILE: dict[str, Any] = {"backbone": "mobilenet_v2", "output_stride": 8, "atrous_rates": ()}
_MOBILE_COST = (
    "2.11M parameters; 2.75B multiply-adds at 513x513 and output stride 16, 152.6B at 8 with "
    "scales and flips"
)
_HALF_WIDTH = {**_MOBILE, "depth_multiplier": 0.5}
# The light R-ASPP head (https://arxiv.org/abs/1905.02244, Sec. 6.4) as it was trained.
_LIGHT: dict[str, Any] = {
    "num_classes": 19,
    "output_stride": 32,
    "atrous_rates": (),
    "image_pooling_crop_size": (769, 769),
    "image_pooling_stride": (4, 5),
    "aspp_with_concat_projection": False,
    "aspp_with_squeeze_and_excitation": True,
    "image_se_uses_qsigmoid": True,
    "aspp_convs_filters": 128,
    "decoder_output_stride": (8,),
    "decoder_use_sum_merge": True,
    "decoder_filters": 19,
    "decoder_output_is_logits": True,
}
_EDGETPU: dict[str, Any] = {
    "num_classes": 19,
    "backbone": "mobilenet_edgetpu",
    "output_stride": 16,
    "atrous_rates": (),
}
_EDGETPU_INFO = dataclasses.replace(
    CITYSCAPES, source="Official TensorFlow DeepLab: ImageNet, then Cityscapes train_fine."
)
# As the v3 paper has them: plain convolutions, and multi-grid in the last block.
_RESNET: dict[str, Any] = {
    "num_classes": 21,
    "backbone": "resnet_v1_101_beta",
    "multi_grid": (1, 2, 4),
    "output_stride": 16,
    "aspp_with_separable_conv": False,
}
_IMAGENET_VOC = dataclasses.replace(PASCAL_VOC, source="ImageNet, then PASCAL VOC 2012 train_aug.")
_XCEPTION: dict[str, Any] = {"backbone": "xception_65", "output_stride": 16}
_IMAGENET_CITYSCAPES = dataclasses.replace(
    CITYSCAPES, source="Official TensorFlow DeepLab: ImageNet, then Cityscapes train_fine."
)
_DPC: dict[str, Any] = {
    "num_classes": 19,
    "backbone": "xception_71",
    "output_stride": 16,
    "dense_prediction_cell_config": list(DPC_CITYSCAPES),
}
# Multiply-adds of the other output stride, scales and flips.
_XCEPTION_VOC = (
    "54.17B multiply-adds at 513x513, 177.10B at output stride 8; 3055B with scales and flips"
)
# Papers counted a plain atrous convolution on the padded map that TensorFlow 1 ran it on.
_PADDED = "atrous convolutions counted on padded maps (`count(..., space_to_batch=True)`)"


def _auto_deeplab(filters: int) -> dict[str, Any]:
    return {
        "num_classes": 19,
        "backbone": "nas_hnasnet",
        "output_stride": 8,
        "nas_architecture_options": {"nas_stem_output_num_conv_filters": filters},
        "aspp_with_separable_conv": False,
        "decoder_use_separable_conv": False,
    }


_SCRATCH = dataclasses.replace(CITYSCAPES, source="Cityscapes train_fine, from random weights.")

PRESETS: dict[str, Preset] = {
    **FIRST,
    "deeplab_v3_mobilenet_v2_voc": Preset(
        "DeepLabV3",
        {"num_classes": 21, **_MOBILE},
        PASCAL_VOC,
        cost=(2_113_557, 8_825_853_632),
        result="VOC val mIoU 75.32 at output stride 16; 77.33 at 8 with scales and flips; 74.26 of "
        "the 8 bit file, deeplabv3_mnv2_pascal_train_aug_8bit_2019_04_26.tar.gz there (2.2 MB)",
        published_cost=_MOBILE_COST,
        weights=f"{_ZOO}/deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_voc_trainval": Preset(
        "DeepLabV3",
        {"num_classes": 21, **_MOBILE},
        dataclasses.replace(
            PASCAL_VOC,
            source="Official TensorFlow DeepLab: COCO, then VOC 2012 train_aug and trainval.",
        ),
        cost=(2_113_557, 8_825_853_632),
        result="VOC test mIoU 80.25 at output stride 8 with scales and flips",
        published_cost=_MOBILE_COST,
        weights=f"{_ZOO}/deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_dm05_voc": Preset(
        "DeepLabV3",
        {"num_classes": 21, **_HALF_WIDTH},
        # The size of TensorFlow's own TFLite file of this model, deeplabv3_257_mv_gpu.tflite.
        dataclasses.replace(PASCAL_VOC, image_size=(257, 257)),
        cost=(697_013, 725_849_344),
        result="VOC val mIoU 70.19 at 513x513 and output stride 16; 69.65 of the 8 bit file, "
        "deeplabv3_mnv2_dm05_pascal_train_aug_8bit_2019_04_26.tar.gz there (751 kB)",
        published_cost="0.88B multiply-adds at 513x513 and output stride 16, with the "
        "softmax and the arg max of the logits; without them it is 0.87B",
        weights=f"{_ZOO}/deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_dm05_portrait": Preset(
        "DeepLabV3",
        {"num_classes": 2, **_HALF_WIDTH},
        PORTRAIT,
        cost=(692_130, 2_798_090_240),
        weights="https://github.com/anilsathyan7/Portrait-Segmentation",
    ),
    "deeplab_v3_plus_mobilenet_v2_ade20k": Preset(
        "DeepLabV3Plus",
        {"num_classes": 151, **_MOBILE, "output_stride": 16},
        # Pictures in this set are small and of any shape: it was trained at this size.
        dataclasses.replace(ADE20K, image_size=(257, 257)),
        cost=(2_304_519, 1_538_386_800),
        result="ADE20K val mIoU 32.04 and pixel accuracy 75.41 at 257x257 and output stride 16",
        weights=f"{_ZOO}/deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_cityscapes": Preset(
        "DeepLabV3",
        {"num_classes": 19, **_MOBILE, "output_stride": 16},
        dataclasses.replace(
            CITYSCAPES, source="Official TensorFlow DeepLab: COCO, then Cityscapes train_fine."
        ),
        cost=(2_113_043, 21_233_054_912),
        result="Cityscapes val mIoU 70.71 at output stride 16; 73.57 at 8 with scales and flips",
        published_cost="21.27B multiply-adds at 1025x2049, 433.2B at output stride 8 with scales "
        "and flips",
        weights=f"{_ZOO}/deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz",
    ),
    "deeplab_v3_mobilenet_v3_large_cityscapes": Preset(
        "DeepLabV3",
        {"backbone": "mobilenet_v3_large_seg", **_LIGHT},
        CITYSCAPES,
        cost=(1_507_198, 7_582_881_504),
        result="Cityscapes val mIoU 72.41 at output stride 32",
        published_cost="15.95B operations at 1025x2049, where a multiply-add is two: 15.17B by our "
        "count; softmax, sums and other work on single elements is 0.5B, and 0.3B we can't tell",
        weights=f"{_ZOO}/deeplab_mnv3_large_cityscapes_trainfine_2019_11_15.tar.gz",
    ),
    "deeplab_v3_mobilenet_v3_small_cityscapes": Preset(
        "DeepLabV3",
        {"backbone": "mobilenet_v3_small_seg", **_LIGHT},
        CITYSCAPES,
        cost=(468_830, 1_963_916_608),
        result="Cityscapes val mIoU 68.99 at output stride 32",
        published_cost="4.63B operations at 1025x2049, where a multiply-add is two: 3.93B by our "
        "count; softmax, sums and other work on single elements is 0.4B, and 0.3B we can't tell",
        weights=f"{_ZOO}/deeplab_mnv3_small_cityscapes_trainfine_2019_11_15.tar.gz",
    ),
    "deeplab_v3_mobilenet_edgetpu_cityscapes": Preset(
        "DeepLabV3",
        _EDGETPU,
        _EDGETPU_INFO,
        cost=(3_603_283, 55_225_523_552),
        result="Cityscapes val mIoU 74.1 at output stride 16, 70.6 at 32",
        published_cost="7.1B multiply-adds at output stride 16, 5.6B at 32, of no named size: "
        "513x513 gives 7.07B and 5.49B (2 % less, we don't know why)",
        weights=f"{_ZOO}/edgetpu-deeplab_2020_03_09.tar.gz",
    ),
    "deeplab_v3_mobilenet_edgetpu_slim_cityscapes": Preset(
        "DeepLabV3",
        {**_EDGETPU, "depth_multiplier": 0.75, "aspp_convs_filters": 128},
        _EDGETPU_INFO,
        cost=(1_942_187, 33_013_113_960),
        result="Cityscapes val mIoU 73.2 at output stride 16, 70.0 at 32",
        published_cost="4.3B multiply-adds at output stride 16, 3.5B at 32, of no named size: "
        "513x513 gives 4.22B and 3.40B (2 and 3 % less, we don't know why)",
        weights=f"{_ZOO}/edgetpu-deeplab-slim_2020_03_09.tar.gz",
    ),
    "deeplab_v3_mobilenet_v2_aspp_voc": Preset(
        "DeepLabV3",
        {"num_classes": 21, "backbone": "mobilenet_v2", "aspp_with_separable_conv": False},
        PASCAL_VOC,
        cost=(4_523_541, 5_363_508_928),
        result="VOC val mIoU 75.70 at output stride 16",
        published_cost=f"4.52M parameters; 5.8B multiply-adds at 513x513, {_PADDED}",
    ),
    "deeplab_v3_resnet_101_voc": Preset(
        "DeepLabV3",
        _RESNET,
        _IMAGENET_VOC,
        cost=(58_164_437, 76_052_470_720),
        result="VOC val mIoU 77.21 at output stride 16, 78.51 at 8; 79.77 with scales and flips",
        published_cost=f"58.16M parameters; 81.02B multiply-adds at 513x513, 276.18B at output "
        f"stride 8, 4871B there with scales and flips; {_PADDED}",
    ),
    "deeplab_v3_plus_resnet_101_voc": Preset(
        "DeepLabV3Plus",
        {**_RESNET, "decoder_use_separable_conv": False},
        _IMAGENET_VOC,
        cost=(59_468_085, 97_811_446_720),
        result="VOC val mIoU 78.85 at output stride 16, 79.35 at 8; 80.57 with scales and flips",
        published_cost=f"101.28B multiply-adds at 513x513; 297.92B at output stride 8, 5247B there "
        f"with scales and flips; 74.20B at 32; {_PADDED}. 101.28B is the network without "
        "multi-grid (101.2B by our count, 102.6B with it)",
    ),
    "deeplab_v3_plus_xception_65_voc": Preset(
        "DeepLabV3Plus",
        {"num_classes": 21, **_XCEPTION},
        PASCAL_VOC,
        cost=(41_055_413, 54_035_303_024),
        result="VOC val mIoU 82.20 at output stride 16; 83.58 at 8 with scales and flips. Without "
        "COCO 79.79 at 16, 80.02 at 8; 81.39 with scales and flips",
        published_cost=_XCEPTION_VOC,
        weights=f"{_ZOO}/deeplabv3_pascal_train_aug_2018_01_04.tar.gz",
    ),
    "deeplab_v3_plus_xception_65_voc_trainval": Preset(
        "DeepLabV3Plus",
        {"num_classes": 21, **_XCEPTION},
        dataclasses.replace(
            PASCAL_VOC,
            source="Official TensorFlow DeepLab: COCO, then VOC 2012 train_aug and trainval.",
        ),
        cost=(41_055_413, 54_035_303_024),
        result="VOC test mIoU 87.80 at output stride 8 with scales and flips",
        published_cost=_XCEPTION_VOC,
        weights=f"{_ZOO}/deeplabv3_pascal_trainval_2018_01_04.tar.gz",
    ),
    "deeplab_v3_plus_xception_65_plain_voc": Preset(
        "DeepLabV3Plus",
        {
            "num_classes": 21,
            **_XCEPTION,
            "aspp_with_separable_conv": False,
            "decoder_use_separable_conv": False,
        },
        _IMAGENET_VOC,
        cost=(54_711_461, 86_679_236_288),
        result="VOC val mIoU 79.93 at output stride 16, 80.22 at 8",
        published_cost=f"89.76B multiply-adds at 513x513, 262.59B at output stride 8, {_PADDED}",
    ),
    "deeplab_v3_plus_xception_65_cityscapes": Preset(
        "DeepLabV3Plus",
        {"num_classes": 19, **_XCEPTION},
        _IMAGENET_CITYSCAPES,
        cost=(41_054_899, 418_375_681_136),
        result="Cityscapes val mIoU 78.79 at output stride 16; 80.42 at 8 with scales and flips",
        published_cost="418.64B multiply-adds at 1025x2049; 8678B at output stride 8 with scales "
        "and flips",
        weights=f"{_ZOO}/deeplabv3_cityscapes_train_2018_02_06.tar.gz",
    ),
    "deeplab_v3_plus_xception_71_cityscapes": Preset(
        "DeepLabV3Plus",
        {"num_classes": 19, "backbone": "xception_71", "output_stride": 16},
        dataclasses.replace(CITYSCAPES, source="ImageNet, then Cityscapes train_fine."),
        cost=(43_477_323, 513_037_697_336),
        result="Cityscapes val mIoU 79.55 at output stride 16",
        published_cost="43.48M parameters; 1551B multiply-adds in the Auto-DeepLab paper, 4 % more "
        "than we count at output stride 8 (1492B), we don't know why",
    ),
    "deeplab_v3_plus_xception_71_dpc_cityscapes": Preset(
        "DeepLabV3Plus",
        _DPC,
        dataclasses.replace(
            CITYSCAPES, source="Official TensorFlow DeepLab: COCO, then Cityscapes train_fine."
        ),
        cost=(41_608_523, 501_814_957_368),
        result="Cityscapes val mIoU 80.31 at output stride 16",
        published_cost="502.07B multiply-adds at 1025x2049",
        weights=f"{_ZOO}/deeplab_cityscapes_xception71_trainfine_2018_09_08.tar.gz",
    ),
    "deeplab_v3_plus_xception_71_dpc_cityscapes_trainval": Preset(
        "DeepLabV3Plus",
        _DPC,
        dataclasses.replace(
            CITYSCAPES,
            source="Official TensorFlow DeepLab: COCO, then Cityscapes train_fine, train_coarse "
            "and val.",
        ),
        cost=(41_608_523, 501_814_957_368),
        result="Cityscapes test mIoU 82.66 with scales and flips",
        published_cost="502.07B multiply-adds at 1025x2049",
        weights=f"{_ZOO}/deeplab_cityscapes_xception71_trainvalfine_2018_09_08.tar.gz",
    ),
    "deeplab_v3_plus_xception_65_ade20k": Preset(
        "DeepLabV3Plus",
        {"num_classes": 151, **_XCEPTION},
        ADE20K,
        cost=(41_088_823, 54_589_115_504),
        result="ADE20K val mIoU 45.65 and pixel accuracy 82.52 at output stride 8 with scales and "
        "flips",
        weights=f"{_ZOO}/deeplabv3_xception_ade20k_train_2018_05_29.tar.gz",
    ),
    "auto_deeplab_s_cityscapes": Preset(
        "DeepLabV3Plus",
        _auto_deeplab(20),
        _SCRATCH,
        cost=(10_147_427, 320_450_382_392),
        result="Cityscapes val mIoU 79.74",
        published_cost=f"10.15M parameters; 333.25B multiply-adds at 1025x2049, {_PADDED} and "
        "1.6 % above that: another 0.27B for each filter, we don't know of what",
    ),
    "auto_deeplab_m_cityscapes": Preset(
        "DeepLabV3Plus",
        _auto_deeplab(32),
        _SCRATCH,
        cost=(21_622_451, 439_922_432_384),
        result="Cityscapes val mIoU 80.04",
        published_cost=f"21.62M parameters; 460.93B multiply-adds at 1025x2049, {_PADDED} and "
        "1.9 % above that: another 0.27B for each filter, we don't know of what",
    ),
    "auto_deeplab_l_cityscapes": Preset(
        "DeepLabV3Plus",
        _auto_deeplab(48),
        _SCRATCH,
        cost=(44_424_691, 662_424_364_896),
        result="Cityscapes val mIoU 80.33",
        published_cost=f"44.42M parameters; 695.03B multiply-adds at 1025x2049, {_PADDED} and "
        "1.9 % above that: another 0.27B for each filter, we don't know of what",
    ),
    **ELSEWHERE,
    **PANOPTIC,
    **MASK_TRANSFORMERS,
}
