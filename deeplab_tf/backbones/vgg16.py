"""VGG-16 (https://arxiv.org/abs/1409.1556) as DeepLabv1 and v2 use it.

The classifier's layers are convolutions of the head (v1, Sec. 3.1). Max pools are 3x3 and overlap,
and pools that would shrink the map further have stride 1, with rate 2 in the convolutions behind.
"""

from deeplab_tf.backbones.stride_tracker import StrideTracker
from deeplab_tf.layers.conv import conv_bn_act
from deeplab_tf.layers.pooling import max_pool

# Convolutions and their filters, for each of the stages that a pool ends.
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
SCOPE = "vgg_16"


def vgg_16(x, *, output_stride: int, pool_ceil_mode: bool = False) -> dict:
    """[B, H, W, 3] -> endpoints; "res5" is the last pool's output, of 512 channels.

    "pool1" to "pool5" are all of the pools' outputs. A pool keeps its window of 3x3 where it
    follows an atrous convolution, so features before the fifth pool equal the dense network's,
    subsampled, and those behind it at stride 16 and 32 alone.

    Args:
        x: BGR, less the means.
        output_stride: 8, 16 or 32.
        pool_ceil_mode: see `max_pool`; v1 and v2 have it.
    """
    tracker = StrideTracker(output_stride, keeps_rate=False)
    endpoints = {}
    rate = 1
    for stage, (convs, filters) in enumerate(_STAGES, start=1):
        for number in range(1, convs + 1):
            x = conv_bn_act(
                x,
                filters,
                3,
                dilation_rate=rate,
                batch_norm=None,
                name=f"{SCOPE}.conv{stage}_{number}",
            )
        strides, rate = tracker.next(2)
        x = max_pool(x, strides, ceil_mode=pool_ceil_mode, name=f"{SCOPE}.pool{stage}")
        endpoints[f"pool{stage}"] = x
    low_level = {f"res{number}": endpoints[f"pool{number}"] for number in (2, 3, 4)}
    return {**endpoints, **low_level, "res5": x}
