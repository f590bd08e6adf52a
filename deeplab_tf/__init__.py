"""The DeepLab family in Keras 3."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that has it. Looked up on first use, so that `import deeplab_tf`
# and commands that need no model never load TensorFlow.
_PUBLIC = {
    "AxialDeepLab": "deeplab_tf.models.panoptic_deeplab",
    "BACKBONES": "deeplab_tf.backbones",
    "DeepLabV1": "deeplab_tf.models.deeplab_v1",
    "DeepLabV2": "deeplab_tf.models.deeplab_v2",
    "DeepLabV3": "deeplab_tf.models.deeplab_v3",
    "DeepLabV3Plus": "deeplab_tf.models.deeplab_v3_plus",
    "ImageClassifier": "deeplab_tf.models.classifier",
    "InputError": "deeplab_tf.errors",
    "KMaXDeepLab": "deeplab_tf.models.kmax_deeplab",
    "MaXDeepLab": "deeplab_tf.models.max_deeplab",
    "ModelInfo": "deeplab_tf.models.info",
    "PanopticDeepLab": "deeplab_tf.models.panoptic_deeplab",
    "from_preset": "deeplab_tf.models.presets",
    "list_presets": "deeplab_tf.models.presets",
    "segment": "deeplab_tf.inference.segment",
}
_ROOMS = (
    "backbones",
    "checkpoints",
    "datasets",
    "export",
    "inference",
    "layers",
    "losses",
    "metrics",
    "models",
    "pictures",
    "postprocess",
    "training",
)

__all__ = ["__version__", *_PUBLIC, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
