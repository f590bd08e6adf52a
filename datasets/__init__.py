"""Raw files to TFRecords to batches."""

from deeplab_tf.datasets.audit import check
from deeplab_tf.datasets.build import build_folder
from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.loading import load, reading
from deeplab_tf.datasets.pipeline import Augment, pipeline

__all__ = [
    "Augment",
    "DatasetDescriptor",
    "build_folder",
    "check",
    "load",
    "pipeline",
    "reading",
]
