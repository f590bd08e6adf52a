"""ResNet v1 (https://arxiv.org/abs/1512.03385) as the DeepLab encoder uses it.

Three things differ from the paper: a stage's stride sits in its last unit, the last stage has the
rates of a multi grid (v3, Sec. 3.3) and may be repeated in cascade (v3, Sec. 3.2), and the beta
variants begin with three 3x3 convolutions instead of one 7x7. The PyTorch variants ("v1.5") have
the stride in a stage's first unit, on its 3x3 convolution, and pad the max pool alike on all sides.
The Caffe variants, of DeepLabv2 and of `keras.applications`, have it on that unit's first 1x1.
Model Garden's is like PyTorch's, but pads as TensorFlow does and has swish for ReLU.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from keras import layers

from deeplab_tf.backbones.stride_tracker import StrideTracker
from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import BatchNormSettings, activate, conv_bn_act
from deeplab_tf.layers.pooling import max_pool

BATCH_NORM = BatchNormSettings(epsilon=1e-5, momentum=0.95)
_WIDTHS = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One ResNet.

    Attributes:
        scope: the first name of its layers.
        units: residual units per stage.
        stem: filters of the 3x3 convolutions that it begins with; one number means a 7x7.
        bottleneck: units of 1x1, 3x3 and 1x1 convolutions, four times as wide at their end;
            else of two 3x3.
        strided_unit: which unit of a stage has its stride: "last" as in slim, "first" as in
            PyTorch, where low-level features are then the stages' outputs.
        strided_conv: which convolution of that unit, 1 or 2; 2 is a 3x3 in either kind of unit.
        padding: of strided convolutions, "explicit" or "same".
        activation: of every convolution and sum.
        batch_norm: of every convolution.
    """

    scope: str
    units: tuple[int, int, int, int]
    stem: tuple[int, ...]
    bottleneck: bool = True
    strided_unit: Literal["first", "last"] = "last"
    strided_conv: Literal[1, 2] = 2
    padding: str = "explicit"
    activation: str = "relu"
    batch_norm: BatchNormSettings = BATCH_NORM

    def conv(self, x, filters: int, kernel_size: int, *, activation: bool = True, **options):
        """A convolution of this network."""
        return conv_bn_act(
            x,
            filters,
            kernel_size,
            activation=self.activation if activation else None,
            batch_norm=self.batch_norm,
            padding=self.padding,
            initializer="he_normal",
            **options,
        )


RESNET_18 = Variant("resnet_v1_18", (2, 2, 2, 2), (64,), bottleneck=False)
RESNET_18_BETA = Variant("resnet_v1_18", (2, 2, 2, 2), (16, 16, 32), bottleneck=False)
RESNET_50 = Variant("resnet_v1_50", (3, 4, 6, 3), (64,))
RESNET_50_BETA = Variant("resnet_v1_50", (3, 4, 6, 3), (64, 64, 128))
RESNET_101 = Variant("resnet_v1_101", (3, 4, 23, 3), (64,))
RESNET_101_BETA = Variant("resnet_v1_101", (3, 4, 23, 3), (64, 64, 128))
RESNET_50_TORCH = Variant("resnet_50", (3, 4, 6, 3), (64,), strided_unit="first")
RESNET_101_TORCH = Variant("resnet_101", (3, 4, 23, 3), (64,), strided_unit="first")
RESNET_50_CAFFE = dataclasses.replace(RESNET_50_TORCH, strided_conv=1)
RESNET_101_CAFFE = dataclasses.replace(RESNET_101_TORCH, strided_conv=1)
# MMSegmentation's ResNetV1c: the same behind three 3x3 convolutions.
RESNET_V1C_50 = Variant("resnet_50", (3, 4, 6, 3), (32, 32, 64), strided_unit="first")
RESNET_V1C_101 = Variant("resnet_101", (3, 4, 23, 3), (32, 32, 64), strided_unit="first")
RESNET_101_GARDEN = Variant(
    "resnet_101",
    (3, 4, 23, 3),
    (64, 64, 128),
    strided_unit="first",
    padding="same",
    activation="swish",
    batch_norm=BatchNormSettings(epsilon=1e-3, momentum=0.9997),
)


def _stem(x, variant: Variant, strides: int):
    if len(variant.stem) == 1:
        name = f"{variant.scope}.conv1"
        return variant.conv(x, variant.stem[0], 7, strides=strides, name=name)
    for number, filters in enumerate(variant.stem, start=1):
        name = f"{variant.scope}.conv1_{number}"
        x = variant.conv(x, filters, 3, strides=strides if number == 1 else 1, name=name)
    return x


def _pool(x, variant: Variant, strides: int, ceil_mode: bool):
    name = f"{variant.scope}.pool1"
    if variant.strided_unit == "first" and variant.padding == "explicit":
        return max_pool(x, strides, ceil_mode=ceil_mode, name=name)
    return layers.MaxPooling2D(3, strides, padding="same", name=name)(x)


def _unit(x, variant: Variant, width: int, *, strides: int, dilation_rate: int, name: str):
    """[B, H, W, C] -> the sum after its ReLU, and the last convolution before the sum."""
    filters = 4 * width if variant.bottleneck else width
    kernels = (1, 3, 1) if variant.bottleneck else (3, 3)
    if x.shape[-1] != filters:
        shortcut = variant.conv(
            x, filters, 1, strides=strides, activation=False, name=f"{name}.shortcut"
        )
    elif strides > 1:
        shortcut = layers.MaxPooling2D(1, strides, name=f"{name}.shortcut")(x)
    else:
        shortcut = x
    last = len(kernels) - 1
    for i, kernel in enumerate(kernels):
        x = variant.conv(
            x,
            filters if i == last else width,
            kernel,
            strides=strides if i == variant.strided_conv - 1 else 1,
            dilation_rate=dilation_rate if kernel > 1 else 1,
            activation=i != last,
            name=f"{name}.conv{i + 1}",
        )
    total = layers.Add(name=f"{name}.add")([shortcut, x])
    return activate(total, variant.activation, name=f"{name}.{variant.activation}"), x


def resnet_v1(
    variant: Variant,
    x,
    *,
    output_stride: int,
    multi_grid: Sequence[int] | None = None,
    cascade_blocks: int = 4,
    new_rate_at_once: bool = False,
    pool_ceil_mode: bool = False,
) -> dict:
    """[B, H, W, 3] -> endpoints; "res5" has 2048 channels, 512 in ResNet-18.

    Args:
        variant: which one.
        x: normalised pixels, as the registry says.
        output_stride: 8, 16 or 32.
        multi_grid: one rate for each unit of the last stage; None is all ones.
        cascade_blocks: stages in all. Those after the fourth are copies of it, and each asks for
            another stride of 2: at a given output stride their rates double.
        new_rate_at_once: the unit that loses its stride takes the new rate, not the old one. The
            Caffe variants do so in any case: there that is what equals the dense network.
        pool_ceil_mode: of the PyTorch and Caffe variants, see `max_pool`; DeepLabv2 has it.

    Raises:
        InputError: a multi grid of another length, or fewer than four stages.
    """
    grid = tuple(multi_grid or (1,) * variant.units[3])
    if len(grid) != variant.units[3]:
        raise InputError(
            f"multi_grid of {variant.scope} has {variant.units[3]} numbers, one per unit of its "
            f"last stage; got {list(grid)}."
        )
    if cascade_blocks < 4:
        raise InputError(
            f"cascade_blocks of {variant.scope} is 4, or more for copies of the last block; "
            f"got {cascade_blocks}."
        )
    # Behind a strided 1x1 convolution, its unit's 3x3 is among those that take the new rate.
    keeps_rate = variant.strided_conv == 2 and not new_rate_at_once
    tracker = StrideTracker(output_stride, keeps_rate=keeps_rate)
    x = _stem(x, variant, tracker.next(2)[0])
    x = _pool(x, variant, tracker.next(2)[0], pool_ceil_mode)
    kind = "bottleneck_v1" if variant.bottleneck else "lite_bottleneck_v1"
    endpoints = {}
    for stage in range(1, cascade_blocks + 1):
        width, units = _WIDTHS[min(stage, 4) - 1], variant.units[min(stage, 4) - 1]
        for unit in range(1, units + 1):
            if variant.strided_unit == "first":
                strided, endpoint = unit == 1 and stage > 1, unit == units
            else:
                # The endpoint is the last unit of the stage's own size: the next has the stride.
                strided, endpoint = unit == units and stage < cascade_blocks, unit == units - 1
            strides, rate = tracker.next(2 if strided else 1)
            x, before_sum = _unit(
                x,
                variant,
                width,
                strides=strides,
                dilation_rate=rate * (grid[unit - 1] if stage >= 4 else 1),
                name=f"{variant.scope}.block{stage}.unit_{unit}.{kind}",
            )
            if endpoint and stage < 4:
                endpoints[f"res{stage + 1}"] = x if unit == units else before_sum
    return {**endpoints, "res5": x}
