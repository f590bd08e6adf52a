"""Pixel-wise softmax cross-entropy as the official training code counts it."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import resize_bilinear, resize_nearest
from deeplab_tf.losses.parts import mean_of_nonzero, safe_mean, take_each, without_target


@keras.saving.register_keras_serializable(package="deeplab_tf")
class SoftmaxCrossEntropy(keras.losses.Loss):
    """Labels int [B, H, W] and logits [B, h, w, C] -> one number.

    The mean runs over the pixels of the whole batch that aren't ignored: not per picture, and not
    weighted by the class weights, which only scale each pixel's loss. Nothing labelled gives 0.

    Args:
        num_classes: C.
        ignore_label: value of labels that don't count.
        class_weights: one factor for all classes, or one per class.
        top_k_percent_pixels: share of the hardest pixels that count (hard example mining); the
            share is of *all* pixels of the batch, and the sum is divided by the number of picked
            losses that aren't zero.
        hard_example_mining_step: steps over which that share goes down from 1, linearly.
        upsample_logits: bring the logits to the labels' size; False brings the labels to the
            logits' (nearest, corners aligned).
        label_stride: every how many rows and columns of the labels count. With logits that a model
            made at that stride and resized with aligned corners, that is the loss at the model's
            own stride, as v1 and v2 have it.
        gt_is_matting_map: labels are float confidences of class 1 of two classes.
        step: a variable that counts training steps, for the ramp.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int = 255,
        *,
        class_weights: float | Sequence[float] = 1.0,
        top_k_percent_pixels: float = 1.0,
        hard_example_mining_step: int = 0,
        upsample_logits: bool = True,
        label_stride: int = 1,
        gt_is_matting_map: bool = False,
        step=None,
        name: str = "softmax_cross_entropy",
        **kwargs,
    ):
        super().__init__(name=name, reduction=None, **kwargs)
        weights = np.asarray(class_weights, np.float32)
        if weights.ndim and weights.shape != (num_classes,):
            raise InputError(
                f"class_weights is one number or {num_classes} of them; got {weights.size}."
            )
        if not 0.0 < top_k_percent_pixels <= 1.0:
            raise InputError(f"top_k_percent_pixels is in (0, 1]; got {top_k_percent_pixels}.")
        if label_stride < 1:
            raise InputError(f"label_stride is at least 1; got {label_stride}.")
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.class_weights = weights
        self.top_k_percent_pixels = top_k_percent_pixels
        self.hard_example_mining_step = hard_example_mining_step
        self.upsample_logits = upsample_logits
        self.label_stride = label_stride
        self.gt_is_matting_map = gt_is_matting_map
        self.step = step

    def call(self, labels, logits):
        labels = ops.cast(labels, "float32" if self.gt_is_matting_map else "int32")
        logits = ops.cast(logits, "float32")
        if self.upsample_logits:
            if tuple(logits.shape[1:3]) != tuple(labels.shape[1:3]):
                logits = resize_bilinear(logits, tuple(ops.shape(labels)[1:3]))
        else:
            target = tuple(ops.shape(logits)[1:3])
            labels = ops.squeeze(resize_nearest(labels[..., None], target), axis=-1)
        if self.label_stride > 1 and self.upsample_logits:
            step = self.label_stride
            labels, logits = labels[:, ::step, ::step], logits[:, ::step, ::step]
        labels = ops.reshape(labels, (-1,))
        logits = ops.reshape(logits, (-1, self.num_classes))
        counted = labels != self.ignore_label
        losses = self._pixel_losses(labels, logits, counted)
        if self.top_k_percent_pixels == 1.0:
            return safe_mean(ops.sum(losses), ops.sum(ops.cast(counted, "float32")))
        return self._hardest(losses)

    def _pixel_losses(self, labels, logits, counted):
        """Weighted loss of each pixel, 0 where ignored: [N], [N, C], [N] -> [N]."""
        weight = ops.cast(counted, "float32")
        if self.gt_is_matting_map:
            share = ops.where(counted, labels, 0.0)
            log_probs = ops.log_softmax(logits)
            losses = -(log_probs[:, 0] * (1.0 - share) + log_probs[:, 1] * share)
            return losses * weight * float(self.class_weights)
        # Values outside the classes take class 0 for the look-up, so that none leaves the table.
        known = ops.logical_and(labels >= 0, labels < self.num_classes)
        index = ops.where(ops.logical_and(counted, known), labels, 0)
        total = ops.logsumexp(logits, axis=-1)
        losses = total - take_each(logits, index)
        # A label outside the classes that isn't the ignored one: no loss, yet counted.
        losses = ops.where(known, losses, without_target(total))
        if self.class_weights.ndim:
            return losses * weight * ops.take(ops.convert_to_tensor(self.class_weights), index)
        return losses * weight * float(self.class_weights)

    def _hardest(self, losses):
        """Mean over the hardest pixels: [N] -> one number."""
        count = ops.cast(ops.shape(losses)[0], "float32")
        share = ops.convert_to_tensor(self.top_k_percent_pixels, dtype="float32")
        if self.hard_example_mining_step and self.step is not None:
            done = ops.cast(self.step, "float32") / float(self.hard_example_mining_step)
            done = ops.minimum(done, 1.0)
            share = done * share + (1.0 - done)
        k = ops.cast(share * count, "int32")
        order = ops.argsort(-ops.stop_gradient(losses))
        ranked = ops.take(losses, order)
        picked = ranked * ops.cast(ops.arange(ops.shape(losses)[0]) < k, "float32")
        return mean_of_nonzero(picked[None])[0]

    def get_config(self):
        config = super().get_config()
        config.pop("reduction", None)
        return {
            **config,
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
            "class_weights": self.class_weights.tolist(),
            "top_k_percent_pixels": self.top_k_percent_pixels,
            "hard_example_mining_step": self.hard_example_mining_step,
            "upsample_logits": self.upsample_logits,
            "label_stride": self.label_stride,
            "gt_is_matting_map": self.gt_is_matting_map,
        }
