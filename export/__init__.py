"""SavedModel, TFLite, quantisation and verification."""

import importlib
from typing import Any

# Public name -> its module. Looked up on first use: timing a .tflite file needs no TensorFlow.
_PUBLIC = {
    "VerificationError": "deeplab_tf.export.verify",
    "export_model": "deeplab_tf.export.exporter",
    "read_metadata": "deeplab_tf.export.metadata",
    "sample_views": "deeplab_tf.export.calibrate",
    "views": "deeplab_tf.export.calibrate",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
