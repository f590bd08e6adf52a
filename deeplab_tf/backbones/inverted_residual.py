"""The inverted residual of the mobile networks."""

from typing import Any

from keras import layers

from deeplab_tf.layers.conv import (
    BatchNormSettings,
    conv_bn_act,
    depthwise_bn_act,
    explicit_padding,
)
from deeplab_tf.layers.squeeze_excite import squeeze_excite


def inverted_residual(
    x,
    *,
    expanded: int,
    filters: int,
    kernel_size: int = 3,
    strides: int = 1,
    dilation_rate: int = 1,
    activation: str,
    batch_norm: BatchNormSettings,
    padding: str = "same",
    use_squeeze_excite: bool = False,
    gate_activation: str = "q_sigmoid",
    fused: bool = False,
    residual: bool = True,
    name: str,
):
    """Expand, filter, project: [B, H, W, C] -> ([B, H', W', filters], [B, H', W', expanded]).

    The second result is the filtered map after its activation and before squeeze-and-excite,
    which decoders take as low-level features. `fused` lets one full convolution expand and
    filter (MobileNet EdgeTPU). The projection is linear; the shortcut exists where shapes allow.

    `padding` is "same" or "explicit", see `conv_bn_act`, or "input": the block's input is padded
    and no convolution pads, so that what the expansion makes of zeros (batch norm shifts them)
    lies around the map that is filtered.
    """
    shortcut = x
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm, initializer=0.09)
    spatial: dict[str, Any] = dict(strides=strides, dilation_rate=dilation_rate, padding=padding)
    if padding == "input":
        x = explicit_padding(x, kernel_size, dilation_rate, name=f"{name}.pad")
        spatial["padding"] = "valid"
    if expanded > x.shape[-1]:
        kernel, extra = (kernel_size, spatial) if fused else (1, {})
        x = conv_bn_act(x, expanded, kernel, **extra, **shared, name=f"{name}.expand")
    if not fused:
        x = depthwise_bn_act(x, kernel_size, **spatial, **shared, name=f"{name}.depthwise")
    filtered = x
    if use_squeeze_excite:
        x = squeeze_excite(x, gate_activation=gate_activation, name=f"{name}.squeeze_excite")
    x = conv_bn_act(x, filters, 1, **{**shared, "activation": None}, name=f"{name}.project")
    if residual and strides == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(name=f"{name}.add")([shortcut, x])
    return x, filtered
