"""Prediction at several scales, flipped and not, fused as the official code does."""

from collections.abc import Sequence

from keras import ops

from deeplab_tf.layers.resize import resize_bilinear, resize_nearest
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.image_pyramid import logits_stride, scaled_logits


def predict_probabilities(
    model: SegmentationModel,
    images,
    *,
    eval_scales: Sequence[float] = (1.0,),
    add_flipped_images: bool = False,
):
    """Mean of the softmax over scales and flips: [B, H, W, 3] -> float32 [B, H, W, num_classes].

    Args:
        model: any semantic model with an endpoint "logits".
        images: RGB 0..255.
        eval_scales: scales of the picture (v3+, Sec. 4: 0.5 to 1.75).
        add_flipped_images: also run the mirrored picture and mirror its answer back.
    """
    images = ops.convert_to_tensor(images, dtype="float32")
    network = model.endpoint_model("logits")
    stride = logits_stride(model)
    size = tuple(ops.shape(images)[1:3])
    total = 0.0
    for scale in eval_scales:
        for flip in (False, True) if add_flipped_images else (False,):
            logits = scaled_logits(
                lambda x: network(x, training=False)["logits"],
                ops.flip(images, axis=2) if flip else images,
                scale,
                largest=scale,
                stride=stride,
            )
            if flip:
                logits = ops.flip(logits, axis=2)
            total = total + ops.softmax(resize_bilinear(ops.cast(logits, "float32"), size))
    return total / (len(eval_scales) * (2 if add_flipped_images else 1))


def predict_without_upsampled_logits(model: SegmentationModel, images):
    """Labels and probabilities made at the logits' stride and then resized.

    The labels are the nearest neighbour's; probabilities are resized bilinearly. Cheaper on a
    phone than resizing the logits, and coarser at edges.

    Returns:
        (labels int32 [B, H, W], probabilities float32 [B, H, W, num_classes]).
    """
    images = ops.convert_to_tensor(images, dtype="float32")
    size = tuple(ops.shape(images)[1:3])
    logits = ops.cast(model.endpoint_model("logits")(images, training=False)["logits"], "float32")
    labels = ops.cast(ops.argmax(logits, axis=-1, keepdims=True), "int32")
    labels = ops.squeeze(resize_nearest(labels, size), axis=-1)
    return labels, resize_bilinear(ops.softmax(logits), size)
