"""Prediction at several scales, flipped and not, fused as the official code does."""

from collections.abc import Sequence

import keras
from keras import ops

from deeplab_tf import keys
from deeplab_tf.layers.resize import ResizeLike, resize_bilinear, resize_nearest
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.image_pyramid import logits_on_grid, logits_stride, scale_picture


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
    fused = fused_model(model, eval_scales=eval_scales, add_flipped_images=add_flipped_images)
    return fused(ops.convert_to_tensor(images, dtype="float32"), training=False)


def fused_model(
    model: SegmentationModel, *, eval_scales: Sequence[float], add_flipped_images: bool
) -> keras.Model:
    """The same as a model of its own, with the same weights: for many pictures.

    Args:
        model, eval_scales, add_flipped_images: see `predict_probabilities`.
    """
    image = keras.Input(model.input.shape[1:], name=keys.IMAGE)
    network = model.endpoint_model("logits")
    stride = logits_stride(model)
    align_corners = model.get_config().get("align_corners", True)
    answers = []
    for number, scale in enumerate(eval_scales):
        logits = network(scale_picture(image, scale, align_corners=align_corners))["logits"]
        if align_corners:
            logits = logits_on_grid(logits, image, scale=scale, largest=scale, stride=stride)
        # A model in itself: called twice, its layers keep their names.
        at_scale = keras.Model(image, logits, name=f"scale_{number}")
        for flip in (False, True) if add_flipped_images else (False,):
            logits = at_scale(ops.flip(image, axis=2) if flip else image)
            if flip:
                logits = ops.flip(logits, axis=2)
            resize = ResizeLike(align_corners=align_corners, dtype="float32")
            answers.append(ops.softmax(resize([logits, image])))
    total = sum(answers[1:], answers[0])
    return keras.Model(image, total / len(answers), name=model.name)


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
    align_corners = model.get_config().get("align_corners", True)
    return labels, resize_bilinear(ops.softmax(logits), size, align_corners=align_corners)
