"""Layer names with dots on the PyTorch backend."""

import keras


def allow_dots() -> None:
    """Lets Keras hand variables to PyTorch under names that PyTorch takes.

    Keras registers a layer's variables by path; ours have the dots of the official scopes, and
    PyTorch refuses a parameter name with a dot. Only that registry's names change: paths and
    saved weights stay as they are on the other backends.
    """
    import torch

    def name(variable) -> str:
        return variable.path.replace(".", ":")

    def track(layer):
        named = {name(variable): variable.value for variable in layer.variables}
        layer._torch_params = torch.nn.ParameterDict(named)

    def add(layer, variable):
        if hasattr(layer, "_torch_params") and name(variable) not in layer._torch_params:
            layer._torch_params[name(variable)] = variable.value

    def remove(layer, variable):
        if hasattr(layer, "_torch_params") and name(variable) in layer._torch_params:
            layer._torch_params.pop(name(variable))

    # Keras keeps the class to itself; every layer has it among its bases.
    base = next(c for c in keras.layers.Layer.__mro__ if "_track_variables" in vars(c))
    base._track_variables = track
    base._post_track_variable = add
    base._post_untrack_variable = remove
