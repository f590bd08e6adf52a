"""What training minimises."""

from deeplab_tf.losses.mask_transformer import MaskTransformerLoss
from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss
from deeplab_tf.losses.semantic import SoftmaxCrossEntropy

__all__ = [
    "CenterLoss",
    "MaskTransformerLoss",
    "OffsetLoss",
    "SemanticLoss",
    "SoftmaxCrossEntropy",
]
