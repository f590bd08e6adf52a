"""Raw files to TFRecords to batches."""

from deeplab_tf.datasets.build import build_folder
from deeplab_tf.datasets.descriptors import DatasetDescriptor
from deeplab_tf.datasets.pipeline import Augment, load, pipeline

__all__ = ["Augment", "DatasetDescriptor", "build_folder", "load", "pipeline"]
