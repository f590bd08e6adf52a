"""The published models of the first two papers: DeepLabv1 and v2.

`convert` reads the .caffemodel files of the authors' releases. The addresses here are those of
deeplab-pytorch, which has ResNet-101 of v2 trained anew.
"""

import dataclasses
from typing import Any

from deeplab_tf.models.info import Preset
from deeplab_tf.models.label_sets import COCO_STUFF, PASCAL_VOC

_VGG_VOC = dataclasses.replace(
    PASCAL_VOC,
    image_size=(513, 513),
    source="DeepLab's Caffe releases: ImageNet, then PASCAL VOC 2012 train_aug.",
    license="no weights",
)
_RESNET_VOC = dataclasses.replace(
    PASCAL_VOC,
    source="deeplab-pytorch: COCO, then PASCAL VOC 2012 train_aug.",
    license="MIT",
)
_PORT = "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0"
_V1: dict[str, Any] = {"num_classes": 21, "output_stride": 8}
_RESNET: dict[str, Any] = {"backbone": "resnet_101_caffe", "output_stride": 8}
# Caffe resizes with aligned corners.
_VGG: dict[str, Any] = {
    "num_classes": 21,
    "backbone": "vgg_16",
    "output_stride": 8,
    "image_pyramid": (1.0,),
    "align_corners": True,
}

FIRST: dict[str, Preset] = {
    "deeplab_v1_large_fov_voc": Preset(
        "DeepLabV1",
        _V1,
        _VGG_VOC,
        cost=(20_505_429, 128_584_633_024),
        result="VOC val mIoU 62.25; with CRF 67.64; test 70.3 with CRF",
        published_cost="20.5M parameters",
    ),
    "deeplab_v1_msc_large_fov_voc": Preset(
        "DeepLabV1",
        {**_V1, "multi_scale_features": True},
        _VGG_VOC,
        cost=(21_711_445, 133_674_642_624),
        result="VOC val mIoU 64.21; with CRF 68.70; test 71.6 with CRF",
    ),
    "deeplab_v1_7x7_voc": Preset(
        "DeepLabV1",
        {
            **_V1,
            "atrous_rates": (4,),
            "fc6_kernel_size": 7,
            "fc6_filters": 4096,
            "pool5_average": False,
        },
        _VGG_VOC,
        cost=(134_346_581, 609_537_541_824),
        result="VOC val mIoU 67.64 with CRF",
        published_cost="134.3M parameters",
    ),
    "deeplab_v1_4x4_voc": Preset(
        "DeepLabV1",
        {
            **_V1,
            "atrous_rates": (8,),
            "fc6_kernel_size": 4,
            "fc6_filters": 4096,
            "pool5_average": False,
        },
        _VGG_VOC,
        cost=(65_140_565, 317_142_124_224),
        result="VOC val mIoU 67.14 with CRF",
        published_cost="65.1M parameters",
    ),
    "deeplab_v2_vgg_16_large_fov_voc": Preset(
        "DeepLabV2",
        {**_VGG, "atrous_rates": (12,)},
        _VGG_VOC,
        cost=(20_505_429, 128_584_633_024),
        result="VOC val mIoU 65.76; with CRF 69.84",
    ),
    "deeplab_v2_vgg_16_aspp_s_voc": Preset(
        "DeepLabV2",
        {**_VGG, "atrous_rates": (2, 4, 8, 12)},
        _VGG_VOC,
        cost=(37_877_652, 201_956_050_624),
        result="VOC val mIoU 66.98; with CRF 69.73",
    ),
    "deeplab_v2_vgg_16_aspp_l_voc": Preset(
        "DeepLabV2",
        {**_VGG, "atrous_rates": (6, 12, 18, 24)},
        _VGG_VOC,
        cost=(37_877_652, 201_956_050_624),
        result="VOC val mIoU 68.96; with CRF 71.57",
    ),
    "deeplab_v2_resnet_101_voc": Preset(
        "DeepLabV2",
        {**_RESNET, "num_classes": 21},
        _RESNET_VOC,
        cost=(44_048_532, 344_875_910_336),
        result="VOC val mIoU 76.35; with CRF 77.69; test 79.7 with CRF. Of the weights named: "
        "76.65 and 77.93",
        weights=f"{_PORT}/deeplabv2_resnet101_msc-vocaug-20000.pth",
    ),
    "deeplab_v2_resnet_101_cocostuff_10k": Preset(
        "DeepLabV2",
        {**_RESNET, "num_classes": 182},
        dataclasses.replace(
            COCO_STUFF,
            resize="stretch",
            source="deeplab-pytorch: COCO, then COCO-Stuff 10k train.",
        ),
        cost=(55_919_384, 436_454_565_056),
        result="COCO-Stuff 10k val mIoU 34.4; with CRF none. Of the weights named: 34.8 and 35.6",
        weights=f"{_PORT}/deeplabv2_resnet101_msc-cocostuff10k-20000.pth",
    ),
    "deeplab_v2_resnet_101_cocostuff": Preset(
        "DeepLabV2",
        {**_RESNET, "num_classes": 182},
        COCO_STUFF,
        cost=(55_919_384, 436_454_565_056),
        result="COCO-Stuff 164k val mIoU 39.1; with CRF 39.7",
        weights=f"{_PORT}/deeplabv2_resnet101_msc-cocostuff164k-100000.pth",
    ),
}
