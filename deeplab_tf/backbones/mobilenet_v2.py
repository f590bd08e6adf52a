"""MobileNetV2 (https://arxiv.org/abs/1801.04381) as the DeepLab encoder uses it.

The network ends after its last inverted residual (320 channels at multiplier 1): the 1280-wide
convolution of the classifier isn't part of it.
"""

from deeplab_tf.backbones.inverted_residual import inverted_residual
from deeplab_tf.backbones.stride_tracker import StrideTracker
from deeplab_tf.layers.channels import make_divisible
from deeplab_tf.layers.conv import BatchNormSettings, conv_bn_act
from deeplab_tf.layers.padding import PadToKernel

BATCH_NORM = BatchNormSettings(epsilon=1e-3, momentum=0.997)
TORCH_BATCH_NORM = BatchNormSettings(epsilon=1e-5, momentum=0.99)
# Table 2 of the paper: expansion, channels, repeats, stride of the first.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Low-level features: the expanded, depthwise-filtered map inside these blocks, or their output.
_LOW_LEVEL_BLOCKS = {2: "res2", 5: "res3", 12: "res4"}


def mobilenet_v2(
    x,
    *,
    output_stride: int,
    depth_multiplier: float = 1.0,
    divisible_by: int | None = None,
    new_rate_at_once: bool = False,
) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 320 * depth_multiplier channels.

    Args:
        x: normalised pixels.
        output_stride: 8, 16 or 32.
        depth_multiplier: width of every layer.
        divisible_by: channel counts are rounded to multiples of it. None is the official
            choice: 8 at multiplier 1, else 1.
        new_rate_at_once: the layer that loses its stride takes the new rate, not the old one.
    """
    if divisible_by is None:
        divisible_by = 8 if depth_multiplier == 1.0 else 1
    tracker = StrideTracker(output_stride, keeps_rate=not new_rate_at_once)
    return _build(x, tracker, depth_multiplier, divisible_by)


def mobilenet_v2_torch(x, *, output_stride: int, depth_multiplier: float = 1.0) -> dict:
    """[B, H, W, 3], normalised by mean and deviation -> endpoints; "res5" has 320 channels.

    The network of the DeepLabV3Plus-Pytorch repository, which pads neither the first convolution
    nor any inside a block, but the input of every block.
    """
    x = PadToKernel(3, name="MobilenetV2.pad")(x)
    return _build(x, StrideTracker(output_stride), depth_multiplier, 8, torch=True)


def _build(
    x, tracker: StrideTracker, depth_multiplier: float, divisible_by: int, torch: bool = False
) -> dict:
    """`torch` is the padding, batch norm and low-level features of `mobilenet_v2_torch`."""
    batch_norm = TORCH_BATCH_NORM if torch else BATCH_NORM

    def width(channels: int) -> int:
        return make_divisible(channels * depth_multiplier, divisible_by)

    strides, _ = tracker.next(2)
    x = conv_bn_act(
        x,
        width(32),
        3,
        strides=strides,
        activation="relu6",
        batch_norm=batch_norm,
        padding="valid" if torch else "same",
        initializer=0.09,
        name="MobilenetV2.Conv",
    )
    endpoints = {}
    block = 0
    for expansion, channels, repeats, first_stride in _GROUPS:
        for repeat in range(repeats):
            strides, rate = tracker.next(first_stride if repeat == 0 else 1)
            # Expansions are rounded to 8 whatever `divisible_by` is.
            expanded = x.shape[-1] if expansion == 1 else make_divisible(x.shape[-1] * expansion, 8)
            x, filtered = inverted_residual(
                x,
                expanded=expanded,
                filters=width(channels),
                strides=strides,
                dilation_rate=rate,
                activation="relu6",
                batch_norm=batch_norm,
                padding="input" if torch else "same",
                name="MobilenetV2.expanded_conv" + (f"_{block}" if block else ""),
            )
            if block in _LOW_LEVEL_BLOCKS:
                endpoints[_LOW_LEVEL_BLOCKS[block]] = x if torch else filtered
            block += 1
    return {**endpoints, "res5": x}
