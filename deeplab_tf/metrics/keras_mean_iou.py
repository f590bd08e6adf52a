"""Mean IoU as a Keras metric, for `model.compile`."""

import keras
from keras import ops

# Counts are kept in two whole numbers, this many to one of the higher: exact far beyond 2 ** 31
# pixels on backends without 64-bit integers, where float32 stops counting at 2 ** 24.
_CARRY = 2**24


@keras.saving.register_keras_serializable(package="deeplab_tf")
class MeanIoU(keras.metrics.Metric):
    """Labels int [B, h, w] and logits [B, h, w, C] -> mean IoU by the official rule.

    The mean runs over classes that are labelled or predicted: one that is predicted but never
    labelled counts as 0, one in neither is left out. It equals `ConfusionMatrix.mean_iou`.
    Runs inside the compiled step on any backend, so a label outside the classes can't raise
    here: it doesn't count, as the ignored one doesn't.

    Args:
        num_classes: C.
        ignore_label: value of labels that don't count.
    """

    def __init__(
        self, num_classes: int, ignore_label: int | None = 255, *, name: str = "mean_iou", **kw
    ):
        super().__init__(name=name, **kw)
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        shape = (num_classes * num_classes,)
        self._low = self.add_variable(shape, "zeros", dtype="int32", name="low")
        self._high = self.add_variable(shape, "zeros", dtype="int32", name="high")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch. Of `sample_weight`, [B, h, w], only zeros matter: they don't count."""
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        predictions = ops.reshape(ops.argmax(y_pred, axis=-1), (-1,))
        counted = ops.logical_and(labels >= 0, labels < self.num_classes)
        if self.ignore_label is not None:
            counted = ops.logical_and(counted, labels != self.ignore_label)
        if sample_weight is not None:
            weight = ops.broadcast_to(sample_weight, ops.shape(y_true))
            counted = ops.logical_and(counted, ops.reshape(weight, (-1,)) != 0)
        joint = ops.where(counted, labels, 0) * self.num_classes
        joint = joint + ops.cast(predictions, "int32")
        size = self.num_classes * self.num_classes
        total = self._low + ops.segment_sum(ops.cast(counted, "int32"), joint, num_segments=size)
        self._high.assign(self._high + total // _CARRY)
        self._low.assign(total % _CARRY)

    def result(self):
        square = (self.num_classes, self.num_classes)
        counts = ops.cast(self._high, "float32") * _CARRY + ops.cast(self._low, "float32")
        matrix = ops.reshape(counts, square)
        hits = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - hits
        present = ops.cast(union > 0, "float32")
        iou = hits / ops.maximum(union, 1.0)
        return ops.sum(iou * present) / ops.maximum(ops.sum(present), 1.0)

    def reset_state(self):
        for variable in (self._low, self._high):
            variable.assign(ops.zeros_like(variable))

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
        }
