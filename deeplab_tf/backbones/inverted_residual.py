"""The inverted residual of the mobile networks."""

from typing import Any

from keras import layers

from deeplab_tf.layers.conv import BatchNormSettings, conv_bn_act, depthwise_bn_act
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
    use_squeeze_excite: bool = False,
    fused: bool = False,
    residual: bool = True,
    name: str,
):
    """Expand, filter, project: [B, H, W, C] -> ([B, H', W', filters], [B, H', W', expanded]).

    The second result is the filtered map after its activation and before squeeze-and-excite,
    which decoders take as low-level features. `fused` lets one full convolution expand and
    filter (MobileNet EdgeTPU). The projection is linear; the shortcut exists where shapes allow.
    """
    shortcut = x
    shared: dict[str, Any] = dict(activation=activation, batch_norm=batch_norm, initializer=0.09)
    spatial: dict[str, Any] = dict(strides=strides, dilation_rate=dilation_rate)
    if expanded > x.shape[-1]:
        kernel, extra = (kernel_size, spatial) if fused else (1, {})
        x = conv_bn_act(x, expanded, kernel, **extra, **shared, name=f"{name}.expand")
    if not fused:
        x = depthwise_bn_act(x, kernel_size, **spatial, **shared, name=f"{name}.depthwise")
    filtered = x
    if use_squeeze_excite:
        x = squeeze_excite(x, name=f"{name}.squeeze_excite")
    x = conv_bn_act(x, filters, 1, **{**shared, "activation": None}, name=f"{name}.project")
    if residual and strides == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(name=f"{name}.add")([shortcut, x])
    return x, filtered
