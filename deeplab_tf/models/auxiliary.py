"""The auxiliary head: logits from the middle of the encoder, for a second loss in training."""

from keras import layers

from deeplab_tf.layers.conv import conv_bn_act


def auxiliary_head(x, num_classes: int, *, dropout_rate: float = 0.1, name: str = "auxiliary"):
    """A 3x3 convolution to a quarter of the channels and a 1x1: [B, H, W, C] -> [..., classes].

    It is what torchvision calls the FCN head.
    """
    x = conv_bn_act(x, x.shape[-1] // 4, 3, name=f"{name}.conv")
    x = layers.Dropout(dropout_rate, name=f"{name}.dropout")(x)
    return layers.Conv2D(num_classes, 1, name=f"{name}.logits")(x)
