"""Averaged weights, and batch-norm statistics that fit them."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from deeplab_tf.layers.normalization import BatchNorm


class AveragedWeights:
    """Within the block the model has its averaged weights, if its optimiser keeps averages.

    Averages come with batch-norm statistics of their own. The moving statistics belong to the
    weights of the last steps, whose activations are larger: measured on a portrait model after
    1750 steps at a high rate, mIoU was 0.779 with the last weights, 0.336 with averaged weights
    and moving statistics, 0.814 with averaged weights and statistics taken anew.

    Args:
        model: compiled; everything in it is put back afterwards, random states included.
        batches: gives training batches (images, labels) to take the statistics from.
    """

    def __init__(self, model: keras.Model, batches: Callable[[], Iterable]):
        self._model, self._batches = model, batches
        self._kept: list[tuple[keras.Variable, np.ndarray]] = []

    def __enter__(self) -> None:
        optimizer = self._model.optimizer
        if not optimizer.use_ema:
            return
        variables = self._model.variables
        self._kept = [(v, np.array(keras.ops.convert_to_numpy(v))) for v in variables]
        averages = optimizer._model_variables_moving_average
        try:
            for variable, average in zip(self._model.trainable_variables, averages, strict=True):
                variable.assign(average)
            renew_statistics(self._model, self._batches)
        except BaseException:
            # A block that isn't entered isn't left either.
            self.__exit__()
            raise

    def keep(self) -> None:
        """Leaves the averages in the model when the block ends."""
        self._kept = []

    def __exit__(self, *exception) -> None:
        for variable, value in self._kept:
            variable.assign(value)
        self._kept = []


def renew_statistics(model: keras.Model, batches: Callable[[], Iterable]) -> None:
    """Sets the moving statistics of every batch norm to the mean over the given batches.

    Layers with frozen statistics keep theirs. If there are no others, no batch is asked for.
    """
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, BatchNorm) and layer.trainable and not layer.freeze_statistics
    ]
    if not norms:
        return
    moving = [variable for layer in norms for variable in layer.non_trainable_variables]
    kept = [layer.momentum for layer in norms]
    sums, count = [np.zeros(v.shape) for v in moving], 0
    try:
        for layer in norms:
            # Then each batch leaves its own statistics in the variables.
            layer.momentum = 0.0
        for images, *_ in batches():
            model(keras.ops.convert_to_tensor(images), training=True)
            for total, variable in zip(sums, moving, strict=True):
                total += keras.ops.convert_to_numpy(variable)
            count += 1
    finally:
        for layer, momentum in zip(norms, kept, strict=True):
            layer.momentum = momentum
    for total, variable in zip(sums, moving, strict=True):
        variable.assign(total / max(count, 1))
