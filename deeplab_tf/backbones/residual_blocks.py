"""Residual blocks of the panoptic models, convolving or attending along the axes, in groups.

Papers: Axial-DeepLab, https://arxiv.org/abs/2003.07853, Fig. 2; SWideRNet,
https://arxiv.org/abs/2011.11675, Fig. 3; with a transformer behind each block, MaX-DeepLab,
https://arxiv.org/abs/2012.00759, Fig. 3.

Blocks take what is activated and return a sum that isn't.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

from keras import layers

from deeplab_tf.errors import InputError
from deeplab_tf.layers.axial_attention import axial_attention_2d
from deeplab_tf.layers.conv import PANOPTIC_BN, BatchNormSettings, activate, conv_bn_act
from deeplab_tf.layers.drop_path import check_keep_prob, drop_path
from deeplab_tf.layers.dual_path_transformer import Transformer, dual_path_transformer
from deeplab_tf.layers.squeeze_excite import simplified_squeeze_excite
from deeplab_tf.layers.switchable_atrous import switchable_conv_bn_act

# The stages whose keep probability falls linearly.
_DROPPED_STAGES = 4


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network of the family.

    Attributes:
        stem: one 7x7 convolution, three of 3x3 ("inception", the beta form), or one of 3x3 before
            a stage more (Wide-ResNet).
        blocks: of stages 2 to 5.
        wide: basic blocks of two 3x3 convolutions at four times the width, and in the last stage
            wider bottlenecks (SWideRNet, Fig. 3); else bottlenecks.
        axial_beyond_stride: blocks whose input has this stride or more attend along the axes
            instead of convolving; 0 for none. Strides count as if nothing were dilated.
        width: factor of all stages.
        attention_bottleneck, key_expansion, value_expansion: channels before attention, of its keys
            and of its values, as multiples of a block's width.
        drop_path_beyond_stride: whose blocks may be left out in training.
    """

    stem: Literal["7x7", "inception", "3x3"]
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    wide: bool = False
    axial_beyond_stride: int = 0
    width: float = 1.0
    attention_bottleneck: int = 2
    key_expansion: int = 1
    value_expansion: int = 2
    drop_path_beyond_stride: int = 16


@dataclasses.dataclass(frozen=True)
class Network:
    """What all blocks of a network share.

    Attributes:
        variant: which kinds of blocks there are.
        output_stride: beyond it, strides turn into atrous rates.
        activation: of all blocks.
        batch_norm: of all convolutions.
        use_sac_beyond_stride: groups that end at this stride or beyond have switchable atrous
            convolutions; 0 for none.
        use_squeeze_and_excite: gate the channels of each block.
        drop_path_keep_prob: of the last stage, in training.
        drop_path_schedule: "linear" from 1 at the stem, or "constant".

    Raises:
        InputError: an unknown schedule, or no probability.
    """

    variant: Variant
    output_stride: int
    activation: str = "relu"
    batch_norm: BatchNormSettings = PANOPTIC_BN
    use_sac_beyond_stride: int = 0
    use_squeeze_and_excite: bool = False
    drop_path_keep_prob: float = 1.0
    drop_path_schedule: str = "linear"

    def __post_init__(self):
        check_keep_prob(self.drop_path_keep_prob)  # no block may have it itself
        schedule = self.drop_path_schedule
        if schedule not in ("linear", "constant"):
            raise InputError(f"drop_path_schedule is linear or constant; got {schedule!r}.")

    def keep_prob(self, stride: int) -> float:
        """Of a block whose input has that stride, in the network without atrous convolution."""
        if stride < self.variant.drop_path_beyond_stride:
            return 1.0
        level = round(math.log2(stride) - 1) / _DROPPED_STAGES
        share = level if self.drop_path_schedule == "linear" else 1.0
        return 1.0 - (1.0 - self.drop_path_keep_prob) * share


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a block is, and so what it is made of.

    Attributes:
        stride: of its input in the network without atrous convolution.
        last_stage: whether its group ends at stride 32.
        width: channels of its 3x3 convolution.
        strides, dilation_rate: of its first spatial operation.
        second_rate: of the second 3x3 in a basic block.
        switchable: whether 3x3 convolutions have a switch.
    """

    stride: int
    last_stage: bool
    width: int
    strides: int
    dilation_rate: int
    second_rate: int
    switchable: bool


def residual_blocks(
    activated,
    memory,
    network: Network,
    *,
    count: int,
    stride: int,
    own_stride: int = 1,
    width: int,
    transformer: Transformer | None = None,
    name: str,
):
    """A group of blocks: activated [B, H, W, C] -> (not activated [B, h, w, 4 * width], memory).

    Args:
        activated: the map.
        memory: of the transformers, [B, L, D]; without them it comes back as it is.
        network: what the group is part of.
        count: of blocks.
        stride: of the map in the network without atrous convolution, and
        own_stride: of the group there; its first block has it.
        width: channels of a block's 3x3 convolution.
        transformer: follows each block, with its keep probability; None for none.
        name: the blocks are `name.block1`, …, transformers `name.block1_transformer`.
    """
    end, output_stride = stride * own_stride, network.output_stride
    for number in range(1, count + 1):
        before = stride if number == 1 else end
        place = _Place(
            stride=before,
            last_stage=end >= 32,
            width=width,
            strides=own_stride if before < min(end, output_stride) else 1,
            # The block that loses its stride keeps the rate before it.
            dilation_rate=max(before // output_stride, 1),
            second_rate=max(end // output_stride, 1),
            switchable=end >= network.use_sac_beyond_stride > 0,
        )
        block = f"{name}.block{number}"
        x = _block(activated, network, place, name=block)
        if transformer is not None:
            own = dataclasses.replace(transformer, keep_prob=network.keep_prob(before))
            x, memory = dual_path_transformer(x, memory, own, name=f"{block}_transformer")
        if number < count:
            activated = activate(x, network.activation, name=f"{block}.{network.activation}")
    return x, memory


def residual_conv(x, filters: int, kernel_size: int, *, switchable: bool = False, **options):
    """A convolution of these networks; those 3x3 that are switchable have two rates."""
    if switchable:
        return switchable_conv_bn_act(x, filters, kernel_size, **options)
    return conv_bn_act(
        x, filters, kernel_size, padding="explicit", initializer="he_normal", **options
    )


def _block(activated, network: Network, place: _Place, *, name: str):
    """Activated [B, H, W, C] -> the sum with its shortcut, not activated: [B, h, w, D]."""
    variant, activation = network.variant, network.activation
    axial = place.stride >= variant.axial_beyond_stride > 0
    filters = place.width * 4
    conv = functools.partial(residual_conv, activation=activation, batch_norm=network.batch_norm)
    spatial: dict[str, Any] = dict(strides=place.strides, dilation_rate=place.dilation_rate)
    switchable: dict[str, Any] = dict(switchable=place.switchable)
    # The branch begins at zero, and the network as the chain of its shortcuts.
    last: dict[str, Any] = dict(activation=None, gamma_initializer="zeros")
    if variant.wide and not axial and not place.last_stage:
        x = conv(activated, filters, 3, **spatial, **switchable, name=f"{name}.conv1_bn_act")
        rate = place.second_rate
        x = conv(x, filters, 3, dilation_rate=rate, **switchable, **last, name=f"{name}.conv2_bn")
    elif axial:
        inner = place.width * variant.attention_bottleneck
        x = conv(activated, inner, 1, name=f"{name}.conv1_bn_act")
        x = axial_attention_2d(
            x,
            filters=place.width,
            key_expansion=variant.key_expansion,
            value_expansion=variant.value_expansion,
            strides=place.strides,
            batch_norm=network.batch_norm,
            name=f"{name}.attention",
        )
        x = activate(x, activation, name=f"{name}.attention.{activation}")
        x = conv(x, filters, 1, **last, name=f"{name}.conv3_bn")
    else:
        x = conv(activated, place.width, 1, name=f"{name}.conv1_bn_act")
        middle = place.width * (2 if variant.wide else 1)
        x = conv(x, middle, 3, **spatial, **switchable, name=f"{name}.conv2_bn_act")
        x = conv(x, filters, 1, **last, name=f"{name}.conv3_bn")
    if network.use_squeeze_and_excite:
        x = simplified_squeeze_excite(x, name=f"{name}.squeeze_and_excite")
    x = drop_path(x, network.keep_prob(place.stride), name=f"{name}.drop_path")
    shortcut = activated
    if activated.shape[-1] != filters:
        shortcut = conv(
            activated, filters, 1, strides=place.strides, activation=None, name=f"{name}.shortcut"
        )
    elif place.strides > 1:
        shortcut = layers.MaxPooling2D(1, place.strides, name=f"{name}.shortcut")(activated)
    return layers.Add(name=f"{name}.add")([shortcut, x])
