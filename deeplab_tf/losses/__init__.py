"""What training minimises."""

from deeplab_tf.losses.semantic import SoftmaxCrossEntropy

__all__ = ["SoftmaxCrossEntropy"]
