"""Scores: `MeanIoU` for `model.compile`; the NumPy ones, which need no Keras, lie beside it."""

from typing import Any

__all__ = ["MeanIoU"]


def __getattr__(name: str) -> Any:
    # On first use: evaluating a .tflite file counts pixels without Keras.
    if name == "MeanIoU":
        from deeplab_tf.metrics.keras_mean_iou import MeanIoU

        return MeanIoU
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
