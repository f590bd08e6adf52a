"""The losses of Panoptic-DeepLab (https://arxiv.org/abs/1911.10194, Sec. 3.2), one per head.

Each gives a picture the sum of its weighted pixel losses over the number of those that aren't
zero (not over all pixels, and not over the sum of weights), and then takes the mean over the
pictures. Weights come per pixel, as `sample_weight`. Arithmetic is float32 under any policy.
"""

import keras
import numpy as np
from keras import ops

from deeplab_tf.errors import InputError
from deeplab_tf.losses.parts import mean_of_nonzero


class _PixelLoss(keras.losses.Loss):
    """Mean over pictures of `per_image`; a subclass says what one pixel loses.

    Args:
        weight: factor of the loss.
        top_k_percent_pixels: share of all pixels of a picture, those with the largest weighted
            loss, that count.
    """

    def __init__(self, weight: float, top_k_percent_pixels: float = 1.0, **kwargs):
        # Keras puts this in the configs of losses; a mean over pictures is the only one here.
        kwargs.pop("reduction", None)
        super().__init__(reduction=None, **kwargs)
        if not 0.0 < top_k_percent_pixels <= 1.0:
            raise InputError(f"top_k_percent_pixels is in (0, 1]; got {top_k_percent_pixels}.")
        self.weight = float(weight)
        self.top_k_percent_pixels = float(top_k_percent_pixels)

    def __call__(self, y_true, y_pred, sample_weight=None):
        with keras.name_scope(self.name):
            return ops.mean(self.per_image(y_true, y_pred, sample_weight))

    def call(self, y_true, y_pred):
        """Without weights of pixels: -> [B]."""
        return self.per_image(y_true, y_pred)

    def per_image(self, y_true, y_pred, sample_weight=None):
        """The loss of each picture, `weight` included: float32 [B].

        Args:
            y_true: target, see the class.
            y_pred: the model's output, see the class.
            sample_weight: of pixels, [B, H, W]; None counts all alike.
        """
        losses = self.per_pixel(ops.convert_to_tensor(y_true), ops.cast(y_pred, "float32"))
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, "float32")
        losses = ops.reshape(losses, (ops.shape(losses)[0], -1))
        if self.top_k_percent_pixels < 1.0:
            losses = ops.top_k(losses, self._top_k(ops.shape(losses)[1]), sorted=False)[0]
        return self.weight * mean_of_nonzero(losses)

    def per_pixel(self, y_true, y_pred):
        """Unweighted loss of each pixel: float32 [B, H, W]."""
        raise NotImplementedError

    def _top_k(self, pixels):
        """How many pixels count: rounded in float32, halves to even."""
        if isinstance(pixels, int):
            return max(1, int(np.round(np.float32(self.top_k_percent_pixels) * np.float32(pixels))))
        share = ops.cast(pixels, "float32") * self.top_k_percent_pixels
        return ops.maximum(ops.cast(ops.round(share), "int32"), 1)

    def get_config(self):
        return {"name": self.name, "weight": self.weight}


@keras.saving.register_keras_serializable(package="deeplab_tf")
class SemanticLoss(_PixelLoss):
    """Softmax cross-entropy of the hardest pixels: labels [B, H, W], logits [B, H, W, C].

    Labels that are `ignore_label` or no class at all give neither loss nor gradient.

    Args:
        num_classes: C.
        ignore_label: class of pixels that aren't labelled.
        top_k_percent_pixels: share of *all* pixels of a picture that counts; 1 counts all.
        weight: factor of the loss.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        top_k_percent_pixels: float = 0.2,
        weight: float = 1.0,
        name: str = "semantic_loss",
        **kwargs,
    ):
        super().__init__(weight, top_k_percent_pixels, name=name, **kwargs)
        self.num_classes = num_classes
        self.ignore_label = ignore_label

    def per_pixel(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        counted = (labels != self.ignore_label) & (labels >= 0) & (labels < self.num_classes)
        losses = ops.sparse_categorical_crossentropy(
            ops.where(counted, labels, 0), y_pred, from_logits=True
        )
        return ops.where(counted, losses, 0.0)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
            "top_k_percent_pixels": self.top_k_percent_pixels,
        }


@keras.saving.register_keras_serializable(package="deeplab_tf")
class CenterLoss(_PixelLoss):
    """Squared error of centre heatmaps [B, H, W, 1]."""

    def __init__(self, weight: float = 200.0, name: str = "center_loss", **kwargs):
        super().__init__(weight, name=name, **kwargs)

    def per_pixel(self, y_true, y_pred):
        return ops.mean(ops.square(ops.cast(y_true, "float32") - y_pred), axis=-1)


@keras.saving.register_keras_serializable(package="deeplab_tf")
class OffsetLoss(_PixelLoss):
    """Absolute error of offset maps [B, H, W, 2], the mean of both directions."""

    def __init__(self, weight: float = 0.01, name: str = "offset_loss", **kwargs):
        super().__init__(weight, name=name, **kwargs)

    def per_pixel(self, y_true, y_pred):
        return ops.mean(ops.absolute(ops.cast(y_true, "float32") - y_pred), axis=-1)
