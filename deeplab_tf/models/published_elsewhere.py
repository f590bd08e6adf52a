"""The models that other projects published, as variants of ours."""

import dataclasses
from typing import Any

from deeplab_tf.models.info import Preset
from deeplab_tf.models.label_sets import CITYSCAPES, PASCAL_VOC

# DeepLabs of the PyTorch world: plain convolutions, the image-level feature last, half-pixel
# resizing.
_TORCH: dict[str, Any] = {
    "num_classes": 21,
    "aspp_with_separable_conv": False,
    "image_pooling_last": True,
    "align_corners": False,
}
# torchvision trained with the rates of output stride 8 at any stride. Its second head, for a loss
# in training, is another few parameters: `auxiliary_endpoint`.
_TORCHVISION = {**_TORCH, "head_num_convs": 1, "atrous_rates": (12, 24, 36), "dropout_rate": 0.5}
_TORCHVISION_INFO = dataclasses.replace(
    PASCAL_VOC,
    image_size=(520, 520),
    source="torchvision: COCO train2017, pictures and labels with a class of PASCAL VOC.",
    license="BSD-3-Clause",
)


def _torchvision(
    backbone: str, output_stride: int, cost, score: str, published: str, endpoint: str, file: str
) -> Preset:
    return Preset(
        "DeepLabV3",
        {**_TORCHVISION, "backbone": backbone, "output_stride": output_stride},
        _TORCHVISION_INFO,
        cost=cost,
        result=f"COCO val2017, classes of VOC: {score}",
        published_cost=f"{published} multiply-adds at 520x520, with the second head that it had in "
        f'training (auxiliary_endpoint="{endpoint}")',
        weights=f"https://download.pytorch.org/models/{file}",
    )


# DeepLabV3Plus-Pytorch.
_PORT_V3 = {**_TORCH, "head_num_convs": 1, "output_stride": 16}
_PORT = {
    **_TORCH,
    "output_stride": 16,
    "decoder_use_separable_conv": False,
    "decoder_num_convs": 1,
    "decoder_low_level_first": True,
}


_PORT_INFO = dataclasses.replace(
    PASCAL_VOC,
    source="DeepLabV3Plus-Pytorch: ImageNet, then PASCAL VOC 2012 train_aug.",
    license="MIT",
)


def _port(
    arguments: dict[str, Any], backbone: str, cost, score: str, published: str, info=_PORT_INFO
) -> Preset:
    height, width = info.image_size
    return Preset(
        "DeepLabV3" if "head_num_convs" in arguments else "DeepLabV3Plus",
        {**arguments, "backbone": backbone},
        info,
        cost=cost,
        result=f"{score} at output stride 16",
        published_cost=f"{published}B multiply-adds at {height}x{width}, two for each element of a "
        "batch norm and one of a ReLU",
        weights="https://github.com/VainF/DeepLabV3Plus-Pytorch",
    )


# MMSegmentation: separable convolutions of 512 channels, and a 3x3 projection behind them.
_MMSEGMENTATION: dict[str, Any] = {
    "num_classes": 19,
    "output_stride": 8,
    "aspp_convs_filters": 512,
    "concat_projection_kernel_size": 3,
    "decoder_filters": 512,
    "align_corners": False,
}
_MMSEGMENTATION_INFO = dataclasses.replace(
    CITYSCAPES,
    image_size=(1024, 2048),
    source="MMSegmentation: ImageNet, then Cityscapes train_fine, 80,000 steps of 512x1024.",
)
_OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/deeplabv3plus"

# TensorFlow Model Garden.
_GARDEN_SHARED: dict[str, Any] = {
    "output_stride": 16,
    "new_rate_at_once": True,
    "image_pooling_last": True,
    "head_batch_norm_epsilon": 1e-3,
    "dropout_rate": 0.0,
    "align_corners": False,
}
_GARDEN_MOBILE = {**_GARDEN_SHARED, "backbone": "mobilenet_v2_garden", "atrous_rates": ()}
_GARDEN_RESNET = {
    **_GARDEN_SHARED,
    "backbone": "resnet_101_garden",
    "multi_grid": (1, 2, 4),
    "head_activation": "swish",
    "aspp_with_separable_conv": False,
    "decoder_use_separable_conv": False,
}
_GARDEN_VOC = dataclasses.replace(
    PASCAL_VOC,
    image_size=(512, 512),
    source="TensorFlow Model Garden: ImageNet, then PASCAL VOC 2012 train_aug.",
)
# Pooled over windows of the training crop that don't overlap.
_GARDEN_POOLING = {"image_pooling_crop_size": (512, 1024), "image_pooling_stride": (32, 64)}
_GARDEN = "https://storage.googleapis.com/tf_model_garden/vision/qat"

# keras-hub: an encoder without atrous convolutions, a decoder of one 1x1. How its pixels are
# normalised only its file says; here they are as its ImageNet encoder takes them.
_KERAS_HUB = {
    **_TORCH,
    "backbone": "resnet_50_torch",
    "output_stride": 32,
    "atrous_rates": (6, 12, 18),
    "head_batch_norm_epsilon": 1e-3,
    "decoder_use_separable_conv": False,
    "decoder_num_convs": 1,
    "decoder_kernel_size": 1,
    "logits_use_bias": False,
    "dropout_rate": 0.0,
}

ELSEWHERE: dict[str, Preset] = {
    "deeplab_v3_resnet_50_torch_coco": _torchvision(
        "resnet_50_torch",
        8,
        (39_638_869, 168_731_205_888),
        "mIoU 66.4, pixel accuracy 92.4",
        "42.00M parameters and 178.7B",
        "res4",
        "deeplabv3_resnet50_coco-cd0a2569.pth",
    ),
    "deeplab_v3_resnet_101_torch_coco": _torchvision(
        "resnet_101_torch",
        8,
        (58_630_997, 248_752_300_288),
        "mIoU 67.4, pixel accuracy 92.4",
        "61.00M parameters and 258.7B",
        "res4",
        "deeplabv3_resnet101_coco-586e9e4e.pth",
    ),
    "deeplab_v3_mobilenet_v3_large_torch_coco": _torchvision(
        "mobilenet_v3_large_torch",
        16,
        (11_025_477, 10_436_350_688),
        "mIoU 60.3, pixel accuracy 91.2",
        "11.03M parameters and 10.5B",
        "res3",
        "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
    ),
    "deeplab_v3_mobilenet_v2_torch_voc": _port(
        _PORT_V3,
        "mobilenet_v2_torch",
        (5_113_877, 5_844_337_664),
        "VOC val mIoU 70.1 on 513x513 centre crops",
        "6.0",
    ),
    "deeplab_v3_resnet_50_torch_voc": _port(
        _PORT_V3,
        "resnet_50_torch",
        (39_638_869, 51_078_150_592),
        "VOC val mIoU 76.9 on 513x513 centre crops",
        "51.4",
    ),
    "deeplab_v3_resnet_101_torch_voc": _port(
        _PORT_V3,
        "resnet_101_torch",
        (58_630_997, 71_703_706_048),
        "VOC val mIoU 77.3 on 513x513 centre crops",
        "72.1",
    ),
    "deeplab_v3_plus_mobilenet_v2_torch_voc": _port(
        _PORT,
        "mobilenet_v2_torch",
        (5_225_717, 16_817_423_360),
        "VOC val mIoU 71.1 on 513x513 centre crops",
        "17.0",
    ),
    "deeplab_v3_plus_resnet_50_torch_voc": _port(
        _PORT,
        "resnet_50_torch",
        (39_761_845, 62_379_547_072),
        "VOC val mIoU 77.2 on 513x513 centre crops",
        "62.7",
    ),
    "deeplab_v3_plus_resnet_101_torch_voc": _port(
        _PORT,
        "resnet_101_torch",
        (58_753_973, 83_005_102_528),
        "VOC val mIoU 78.3 on 513x513 centre crops",
        "83.4",
    ),
    "deeplab_v3_plus_mobilenet_v2_torch_cityscapes": _port(
        {**_PORT, "num_classes": 19},
        "mobilenet_v2_torch",
        (5_225_203, 133_598_967_936),
        "Cityscapes val mIoU 72.1",
        "135",
        dataclasses.replace(
            CITYSCAPES,
            image_size=(1024, 2048),
            source="DeepLabV3Plus-Pytorch: ImageNet, then Cityscapes train_fine.",
            license="MIT",
        ),
    ),
    "deeplab_v3_plus_resnet_v1c_50_cityscapes": Preset(
        "DeepLabV3Plus",
        {**_MMSEGMENTATION, "backbone": "resnet_v1c_50"},
        _MMSEGMENTATION_INFO,
        cost=(41_225_187, 1_409_259_929_600),
        result="Cityscapes val mIoU 80.09; 81.13 with scales and flips",
        weights=f"{_OPENMMLAB}/deeplabv3plus_r50-d8_512x1024_80k_cityscapes"
        "/deeplabv3plus_r50-d8_512x1024_80k_cityscapes_20200606_114049-f9fb496d.pth",
    ),
    "deeplab_v3_plus_resnet_v1c_101_cityscapes": Preset(
        "DeepLabV3Plus",
        {**_MMSEGMENTATION, "backbone": "resnet_v1c_101"},
        _MMSEGMENTATION_INFO,
        cost=(60_217_315, 2_029_882_703_872),
        result="Cityscapes val mIoU 80.97; 82.03 with scales and flips",
        weights=f"{_OPENMMLAB}/deeplabv3plus_r101-d8_512x1024_80k_cityscapes"
        "/deeplabv3plus_r101-d8_512x1024_80k_cityscapes_20200606_114143-068fcfe9.pth",
    ),
    "deeplab_v3_mobilenet_v2_garden_voc": Preset(
        "DeepLabV3",
        {**_GARDEN_MOBILE, "num_classes": 21},
        dataclasses.replace(
            PASCAL_VOC,
            image_size=(512, 512),
            source="TensorFlow Model Garden: COCO, then PASCAL VOC 2012 train_aug.",
        ),
        cost=(2_113_557, 2_603_958_272),
        result="VOC val mIoU 75.30; 73.95 as int8, 74.68 as int8 after quantisation-aware training",
        weights=f"{_GARDEN}/deeplabv3_mobilenetv2_pascal_coco_0.21/model_none.tflite",
        convertible=False,
    ),
    "deeplab_v3_plus_mobilenet_v2_garden_cityscapes": Preset(
        "DeepLabV3Plus",
        {
            **_GARDEN_MOBILE,
            "num_classes": 19,
            **_GARDEN_POOLING,
        },
        dataclasses.replace(
            CITYSCAPES,
            image_size=(1024, 2048),
            source="TensorFlow Model Garden: COCO, then Cityscapes train_fine.",
        ),
        cost=(2_270_595, 41_781_886_976),
        result="Cityscapes val mIoU 73.84; 72.33 as int8, 73.49 as int8 after quantisation-aware "
        "training",
        weights=f"{_GARDEN}/mnv2_deeplabv3plus_cityscapes/model_none.tflite",
        convertible=False,
    ),
    "deeplab_v3_resnet_101_garden_voc": Preset(
        "DeepLabV3",
        # Trained with the rates of output stride 8.
        {**_GARDEN_RESNET, "num_classes": 21, "atrous_rates": (12, 24, 36)},
        _GARDEN_VOC,
        cost=(58_164_437, 74_274_570_240),
        result="VOC val mIoU 78.7 at 512x512",
    ),
    "deeplab_v3_plus_resnet_101_garden_voc": Preset(
        "DeepLabV3Plus",
        {**_GARDEN_RESNET, "num_classes": 21},
        _GARDEN_VOC,
        cost=(59_468_085, 95_697_764_352),
        result="VOC val mIoU 79.2 at 512x512",
    ),
    "deeplab_v3_plus_resnet_101_garden_cityscapes": Preset(
        "DeepLabV3Plus",
        {**_GARDEN_RESNET, **_GARDEN_POOLING, "num_classes": 19},
        dataclasses.replace(
            CITYSCAPES,
            image_size=(1024, 2048),
            source="TensorFlow Model Garden: ImageNet, then Cityscapes train_fine.",
        ),
        cost=(59_467_571, 765_512_908_800),
        result="Cityscapes val mIoU 78.79",
    ),
    "deeplab_v3_plus_resnet_50_keras_hub_voc": Preset(
        "DeepLabV3Plus",
        _KERAS_HUB,
        dataclasses.replace(
            PASCAL_VOC,
            image_size=(512, 512),
            source="keras-hub: ImageNet, then PASCAL VOC 2012 train_aug.",
        ),
        cost=(39_139_232, 26_760_183_808),
        result="VOC mIoU 63, pixel accuracy 90.01",
        published_cost="39.19M parameters, with the statistics of batch norm and without the last "
        "convolution",
        weights="https://www.kaggle.com/models/keras/deeplabv3plus/keras/"
        "deeplab_v3_plus_resnet50_pascalvoc",
        convertible=False,
    ),
}
