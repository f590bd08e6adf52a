"""ConvNeXt (https://arxiv.org/abs/2201.03545) as kMaX-DeepLab has it.

The paper's strided convolutions see patches that don't overlap, so they would cut off the end of a
map that isn't a multiple of their stride. Here zeros are added first: a row and a column before
the picture and two behind it, then one behind each map, before its normalisation. So the sizes are
those of every other backbone, and corners stay aligned at sizes of 32 * n + 1. There is no
normalisation after the last stage: what is on top has its own.
"""

import dataclasses

import numpy as np
from keras import initializers, layers

from deeplab_tf.errors import InputError
from deeplab_tf.layers.conv import activate
from deeplab_tf.layers.drop_path import check_keep_prob, drop_path
from deeplab_tf.layers.layer_scale import LayerScale

SCOPE = "encoder"
OUTPUT_STRIDE = 32


@dataclasses.dataclass(frozen=True)
class Variant:
    """One ConvNeXt (Sec. 3): blocks and channels of its four stages."""

    blocks: tuple[int, int, int, int] = (3, 3, 27, 3)
    widths: tuple[int, int, int, int] = (96, 192, 384, 768)


TINY = Variant(blocks=(3, 3, 9, 3))
SMALL = Variant()
BASE = Variant(widths=(128, 256, 512, 1024))
LARGE = Variant(widths=(192, 384, 768, 1536))


def convnext(variant: Variant, x, *, output_stride: int, drop_path_keep_prob: float = 1.0) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints: "stage1" to "stage5", and activated "res1" to "res5".

    "stage1" is the stem's output, at stride 4 as "stage2". No stage has an activation at its end,
    so the "res" maps have a GELU more than the network itself.

    Args:
        variant: which one.
        x: normalised pixels.
        output_stride: 32.
        drop_path_keep_prob: of the last block, in training; of the others it falls linearly from
            1 at the first.

    Raises:
        InputError: another output stride, or no probability.
    """
    if output_stride != OUTPUT_STRIDE:
        raise InputError(f"output_stride of ConvNeXt is {OUTPUT_STRIDE}; got {output_stride}.")
    check_keep_prob(drop_path_keep_prob)
    keep_probs = iter(np.linspace(1.0, drop_path_keep_prob, sum(variant.blocks)).tolist())
    x = _stem(x, variant.widths[0], name=f"{SCOPE}.downsample_layers.0")
    endpoints = {"stage1": x, "res1": activate(x, "gelu", name=f"{SCOPE}.stem.gelu")}
    for stage, (blocks, width) in enumerate(zip(variant.blocks, variant.widths, strict=True)):
        if stage > 0:
            x = _downsample(x, width, name=f"{SCOPE}.downsample_layers.{stage}")
        for block in range(blocks):
            x = _block(x, next(keep_probs), name=f"{SCOPE}.stages.{stage}.{block}")
        activated = activate(x, "gelu", name=f"{SCOPE}.stages.{stage}.gelu")
        endpoints |= {f"stage{stage + 2}": x, f"res{stage + 2}": activated}
    return endpoints


def _stem(x, width: int, *, name: str):
    """[B, H, W, 3] -> [B, H / 4, W / 4, width], sizes rounded up."""
    x = layers.ZeroPadding2D(((1, 2), (1, 2)), name=f"{name}.pad")(x)
    return _norm(_conv(x, width, 4, strides=4, name=f"{name}.conv"), name=f"{name}.norm")


def _downsample(x, width: int, *, name: str):
    """[B, H, W, C] -> [B, H / 2, W / 2, width], sizes rounded up."""
    # Before the normalisation, which makes its beta of the zeros.
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}.pad")(x)
    return _conv(_norm(x, name=f"{name}.norm"), width, 2, strides=2, name=f"{name}.conv")


def _block(shortcut, keep_prob: float, *, name: str):
    """[B, H, W, C] -> the sum with its shortcut (Fig. 4), of the same shape."""
    width = shortcut.shape[-1]
    x = layers.DepthwiseConv2D(
        7, padding="same", depthwise_initializer=_initializer(), name=f"{name}.depthwise_conv"
    )(shortcut)
    x = _norm(x, name=f"{name}.norm")
    x = _conv(x, 4 * width, 1, name=f"{name}.pointwise_conv1")
    x = activate(x, "gelu", name=f"{name}.gelu")
    x = _conv(x, width, 1, name=f"{name}.pointwise_conv2")
    x = LayerScale(name=f"{name}.layer_scale")(x)
    x = drop_path(x, keep_prob, name=f"{name}.drop_path")
    return layers.Add(name=f"{name}.add")([shortcut, x])


def _conv(x, filters: int, kernel_size: int, *, strides: int = 1, name: str):
    return layers.Conv2D(
        filters, kernel_size, strides=strides, kernel_initializer=_initializer(), name=name
    )(x)


def _initializer():
    return initializers.TruncatedNormal(stddev=0.02)


def _norm(x, *, name: str):
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)
