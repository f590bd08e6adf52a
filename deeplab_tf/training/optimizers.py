"""Optimisers that count weight decay and learning-rate multipliers as the official code does."""

from collections.abc import Mapping, Sequence

import keras
from keras import layers, ops

# Layers after the backbone, found by a part of the name.
LAST_LAYERS = (
    "logits",
    "fc8",
    "image_pooling",
    "aspp",
    "concat_projection",
    "decoder",
    "meta_architecture",
    # Of models that tell instances apart.
    "_head",
    "last_layer",
    "pixel_space",
    "_transformer.",
    "memory_feature",
    "_extra",
)


def decayed_variables(model: keras.Model) -> list:
    """Variables with an L2 penalty: kernels of convolutions, pointwise ones included.

    Depthwise kernels have none, except in fused separable convolutions (the searched backbones).
    Biases, gammas and betas never do.
    """
    found = []
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.SeparableConv2D):
            found += [layer.depthwise_kernel, layer.pointwise_kernel]
        elif isinstance(layer, layers.DepthwiseConv2D):
            continue
        elif isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Dense):
            # `_kernel`, since reading `kernel` may merge adapters into a new tensor.
            found.append(layer._kernel)
    return list({id(variable): variable for variable in found}.values())


def l2_penalty(model: keras.Model, coefficient: float):
    """coefficient * sum(w ** 2) / 2 over `decayed_variables`: a scalar tensor.

    Half the square, as TensorFlow 1 counted; `keras.regularizers.l2` counts the whole.
    """
    squares = [ops.sum(ops.square(ops.cast(w, "float32"))) for w in decayed_variables(model)]
    return coefficient * 0.5 * sum(squares)


def learning_rate_multipliers(
    model: keras.Model,
    last_layer_multiplier: float = 1.0,
    *,
    last_layers_contain_logits_only: bool = False,
    bias_multiplier: float = 2.0,
) -> dict[str, float]:
    """Variable path -> factor of its gradient, for those whose factor isn't 1.

    Args:
        model: whose trainable variables are meant.
        last_layer_multiplier: for everything after the backbone, batch norms included.
        last_layers_contain_logits_only: then for the logits alone.
        bias_multiplier: for convolutions' biases, on top; twice in the official code.
    """
    names = LAST_LAYERS[:1] if last_layers_contain_logits_only else LAST_LAYERS
    multipliers = {}
    for variable in model.trainable_variables:
        factor = last_layer_multiplier if any(n in variable.path for n in names) else 1.0
        if variable.path.endswith("/bias"):
            factor *= bias_multiplier
        if factor != 1.0:
            multipliers[variable.path] = factor
    return multipliers


def _path(optimizer, variable) -> str:
    """The variable's path; on TensorFlow an update gets the bare `tf.Variable`, without one."""
    return optimizer._trainable_variables[optimizer._get_variable_index(variable)].path


class _KeepsWeights:
    """For optimisers whose averages stay beside the weights."""

    def finalize_variable_values(self, var_list) -> None:
        """Nothing. Keras would replace the weights by their averages whenever `fit` ends.

        A resumed run has other calls of `fit` than one that wasn't stopped, so it would go on
        from other weights; `AveragedWeights` takes the averages where they are wanted.
        """


@keras.saving.register_keras_serializable(package="deeplab_tf")
class Momentum(_KeepsWeights, keras.optimizers.Optimizer):
    """SGD with the learning rate outside the velocity: v = m v + g, w -= rate v.

    Keras' own SGD keeps the rate inside, so that a drop of the rate comes late by 1 / (1 - m)
    steps. The penalty's gradient is part of g, and is multiplied too.

    Args:
        learning_rate: a number or a schedule.
        momentum: m.
        weight_decay_l2: coefficient of sum(w ** 2) / 2.
        decayed: paths of the variables that it applies to.
        multipliers: variable path -> factor of the gradient.
    """

    def __init__(
        self,
        learning_rate=0.007,
        momentum: float = 0.9,
        *,
        weight_decay_l2: float = 0.0,
        decayed: Sequence[str] = (),
        multipliers: Mapping[str, float] | None = None,
        name: str = "momentum",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.weight_decay_l2 = weight_decay_l2
        self.decayed = frozenset(decayed)
        self.multipliers = dict(multipliers or {})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype)
        velocity = self.velocities[self._get_variable_index(variable)]
        path = _path(self, variable)
        if self.weight_decay_l2 and path in self.decayed:
            gradient = gradient + self.weight_decay_l2 * variable
        gradient = gradient * self.multipliers.get(path, 1.0)
        self.assign(velocity, velocity * self.momentum + gradient)
        self.assign_sub(variable, velocity * ops.cast(learning_rate, variable.dtype))

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay_l2": self.weight_decay_l2,
            "decayed": sorted(self.decayed),
            "multipliers": self.multipliers,
        }


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AdamW(_KeepsWeights, keras.optimizers.AdamW):
    """Keras' AdamW with a factor per variable on its learning rate.

    Args:
        multipliers: variable path -> factor.
        **kwargs: of `keras.optimizers.AdamW`.
    """

    def __init__(self, *args, multipliers: Mapping[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.multipliers = dict(multipliers or {})

    def update_step(self, gradient, variable, learning_rate):
        factor = self.multipliers.get(_path(self, variable), 1.0)
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return {**super().get_config(), "multipliers": self.multipliers}
