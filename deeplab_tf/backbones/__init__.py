"""The one registry of backbones."""

import dataclasses
import functools
import inspect
from collections.abc import Callable

from deeplab_tf.backbones import axial_resnet, classifier, convnext, resnet, xception
from deeplab_tf.backbones.classifier import Classifier
from deeplab_tf.backbones.hnasnet import nas_hnasnet
from deeplab_tf.backbones.mobilenet_v2 import mobilenet_v2, mobilenet_v2_torch
from deeplab_tf.backbones.mobilenet_v3 import (
    mobilenet_edgetpu,
    mobilenet_v3_large,
    mobilenet_v3_large_deeplab2,
    mobilenet_v3_large_seg,
    mobilenet_v3_large_torch,
    mobilenet_v3_small,
    mobilenet_v3_small_deeplab2,
    mobilenet_v3_small_seg,
)
from deeplab_tf.backbones.pnasnet import nas_pnasnet
from deeplab_tf.backbones.vgg16 import vgg_16


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What a model needs to know of a backbone.

    Attributes:
        build: (x, *, output_stride, **options) -> {"res2", "res3", "res4", "res5"}; "res2" to
            "res4" are the low-level features of decoders at stride 4, 8 and 16, "res5" is the
            encoder's output. Other keys are for models that know the backbone.
        scope: the first name of its layers.
        classifier: what ImageNet training puts on top.
        pixels: what the network was made for: "[-1, 1]", "mean" for RGB less the ImageNet means,
            "mean, std" for that over their deviations, or "BGR, mean" for Caffe's order of
            channels and its means.
        output_strides: those it can be built with.
    """

    build: Callable[..., dict]
    scope: str
    classifier: Classifier
    pixels: str = "[-1, 1]"
    output_strides: tuple[int, ...] = (8, 16, 32)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the keyword arguments that `build` takes beside the output stride."""
        parameters = inspect.signature(self.build).parameters.values()
        names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        return tuple(name for name in names if name != "output_stride")


def _resnet(variant: resnet.Variant, pixels: str = "[-1, 1]") -> Backbone:
    build = functools.partial(resnet.resnet_v1, variant)
    return Backbone(build, variant.scope, classifier.RESNET, pixels)


def _xception(variant: xception.Variant) -> Backbone:
    build = functools.partial(xception.xception, variant)
    return Backbone(build, variant.scope, classifier.XCEPTION)


def _axial_resnet(variant: axial_resnet.Variant, **options) -> Backbone:
    build = functools.partial(axial_resnet.axial_resnet, variant, **options)
    return Backbone(build, axial_resnet.SCOPE, classifier.RESNET)


def _convnext(variant: convnext.Variant) -> Backbone:
    build = functools.partial(convnext.convnext, variant)
    strides = (convnext.OUTPUT_STRIDE,)
    return Backbone(build, convnext.SCOPE, classifier.CONVNEXT, output_strides=strides)


BACKBONES = {
    "mobilenet_v2": Backbone(mobilenet_v2, "MobilenetV2", classifier.MOBILENET_V2),
    "mobilenet_v3_large": Backbone(
        mobilenet_v3_large, "MobilenetV3", classifier.MOBILENET_V3_LARGE
    ),
    "mobilenet_v3_small": Backbone(
        mobilenet_v3_small, "MobilenetV3", classifier.MOBILENET_V3_SMALL
    ),
    "mobilenet_v3_large_seg": Backbone(
        mobilenet_v3_large_seg, "MobilenetV3", classifier.MOBILENET_V3_LARGE
    ),
    "mobilenet_v3_small_seg": Backbone(
        mobilenet_v3_small_seg, "MobilenetV3", classifier.MOBILENET_V3_SMALL
    ),
    "mobilenet_edgetpu": Backbone(
        mobilenet_edgetpu, "MobilenetEdgeTPU", classifier.MOBILENET_EDGETPU
    ),
    "resnet_v1_18": _resnet(resnet.RESNET_18, pixels="mean"),
    "resnet_v1_18_beta": _resnet(resnet.RESNET_18_BETA),
    "resnet_v1_50": _resnet(resnet.RESNET_50, pixels="mean"),
    "resnet_v1_50_beta": _resnet(resnet.RESNET_50_BETA),
    "resnet_v1_101": _resnet(resnet.RESNET_101, pixels="mean"),
    "resnet_v1_101_beta": _resnet(resnet.RESNET_101_BETA),
    "xception_41": _xception(xception.XCEPTION_41),
    "xception_65": _xception(xception.XCEPTION_65),
    "xception_71": _xception(xception.XCEPTION_71),
    "nas_pnasnet": Backbone(nas_pnasnet, "pnasnet", classifier.NAS),
    "nas_hnasnet": Backbone(nas_hnasnet, "hnasnet", classifier.NAS),
    # As PyTorch's models were trained: its padding, stride rule and normalisation.
    "resnet_50_torch": _resnet(resnet.RESNET_50_TORCH, pixels="mean, std"),
    "resnet_101_torch": _resnet(resnet.RESNET_101_TORCH, pixels="mean, std"),
    "resnet_v1c_50": _resnet(resnet.RESNET_V1C_50, pixels="mean, std"),
    "resnet_v1c_101": _resnet(resnet.RESNET_V1C_101, pixels="mean, std"),
    "resnet_50_caffe": _resnet(resnet.RESNET_50_CAFFE, pixels="BGR, mean"),
    "resnet_101_caffe": _resnet(resnet.RESNET_101_CAFFE, pixels="BGR, mean"),
    "vgg_16": Backbone(vgg_16, "vgg_16", classifier.VGG, pixels="BGR, mean"),
    # Of TensorFlow's Model Garden: its normalisation.
    "resnet_101_garden": _resnet(resnet.RESNET_101_GARDEN, pixels="mean, std"),
    "mobilenet_v2_garden": Backbone(
        mobilenet_v2, "MobilenetV2", classifier.MOBILENET_V2, pixels="mean, std"
    ),
    "mobilenet_v2_torch": Backbone(
        mobilenet_v2_torch, "MobilenetV2", classifier.MOBILENET_V2, pixels="mean, std"
    ),
    "mobilenet_v3_large_torch": Backbone(
        mobilenet_v3_large_torch, "MobilenetV3", classifier.MOBILENET_V3_LARGE, pixels="mean, std"
    ),
    # Of the panoptic models, as deeplab2 has them and calls them.
    "resnet50": _axial_resnet(axial_resnet.RESNET_50),
    "resnet50_beta": _axial_resnet(axial_resnet.RESNET_50_BETA),
    "wide_resnet41": _axial_resnet(axial_resnet.SWIDERNET),
    "swidernet": _axial_resnet(axial_resnet.SWIDERNET),
    "axial_resnet_s": _axial_resnet(axial_resnet.AXIAL_RESNET_S),
    "axial_resnet_m": _axial_resnet(axial_resnet.AXIAL_RESNET_M),
    "axial_resnet_l": _axial_resnet(axial_resnet.AXIAL_RESNET_L),
    "axial_deeplab_s": _axial_resnet(axial_resnet.AXIAL_DEEPLAB_S),
    "axial_deeplab_m": _axial_resnet(axial_resnet.AXIAL_DEEPLAB_M),
    "axial_deeplab_l": _axial_resnet(axial_resnet.AXIAL_DEEPLAB_L),
    "axial_deeplab_xl": _axial_resnet(axial_resnet.AXIAL_DEEPLAB_XL),
    "axial_swidernet": _axial_resnet(axial_resnet.AXIAL_SWIDERNET),
    "max_deeplab_s_backbone": _axial_resnet(axial_resnet.MAX_DEEPLAB_S),
    "max_deeplab_l_backbone": _axial_resnet(axial_resnet.MAX_DEEPLAB_L),
    "axial_resnet50": _axial_resnet(axial_resnet.MAX_DEEPLAB_S, activation="gelu"),
    "convnext_tiny": _convnext(convnext.TINY),
    "convnext_small": _convnext(convnext.SMALL),
    "convnext_base": _convnext(convnext.BASE),
    "convnext_large": _convnext(convnext.LARGE),
    "mobilenet_v3_large_deeplab2": Backbone(
        mobilenet_v3_large_deeplab2, "MobilenetV3", classifier.MOBILENET_V3_LARGE
    ),
    "mobilenet_v3_small_deeplab2": Backbone(
        mobilenet_v3_small_deeplab2, "MobilenetV3", classifier.MOBILENET_V3_SMALL
    ),
}
