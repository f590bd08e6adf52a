"""Layer scale (https://arxiv.org/abs/2103.17239, Sec. 2)."""

import keras
from keras import initializers


@keras.saving.register_keras_serializable(package="deeplab_tf")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a number of its own, which is learnt: [..., C] -> [..., C].

    At the end of a residual branch, small numbers let the network begin as its shortcuts.

    Args:
        initial: what the numbers begin with.
    """

    def __init__(self, initial: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        self.layer_scale = self.add_weight(
            shape=(*(1,) * (len(input_shape) - 1), input_shape[-1]),
            initializer=initializers.Constant(self.initial),
            name="layer_scale",
        )
        self.built = True

    def call(self, inputs):
        return inputs * self.layer_scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}
