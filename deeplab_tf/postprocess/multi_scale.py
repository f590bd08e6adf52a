"""Prediction at several scales, flipped and not, fused as the official code does."""

from collections.abc import Sequence

import keras
from keras import ops

from deeplab_tf import keys
from deeplab_tf.layers.resize import (
    ResizeLike,
    ResizeOffsetsLike,
    resize_bilinear,
    resize_nearest,
)
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

    Of a panoptic model (https://arxiv.org/abs/1911.10194, Sec. 4.1) it gives a dictionary: under
    "semantic_logits" the mean probabilities, and the mean heatmap and offsets, whose x changes its
    sign in a mirrored picture. The window of its ASPP stays that of scale 1, where it has one.

    Args:
        model, eval_scales, add_flipped_images: see `predict_probabilities`.
    """
    image = keras.Input(model.input.shape[1:], name=keys.IMAGE)
    endpoints = {keys.SEMANTIC_LOGITS: "logits"}
    panoptic = isinstance(model.output, dict) and keys.CENTER_HEATMAP in model.output
    if panoptic:
        instance_maps = (keys.CENTER_HEATMAP, keys.OFFSET_MAP)
        endpoints |= {name: f"{name}_raw" for name in instance_maps}
    network = model.endpoint_model(*endpoints.values())
    stride = logits_stride(model)
    align_corners = model.get_config().get("align_corners", True)
    answers: dict[str, list] = {name: [] for name in endpoints}
    for number, scale in enumerate(eval_scales):
        found = network(scale_picture(image, scale, align_corners=align_corners))
        maps = {name: found[endpoint] for name, endpoint in endpoints.items()}
        if align_corners and not panoptic:
            for name, x in maps.items():
                maps[name] = logits_on_grid(x, image, scale=scale, largest=scale, stride=stride)
        # A model in itself: called twice, its layers keep their names.
        at_scale = keras.Model(image, maps, name=f"scale_{number}")
        for flip in (False, True) if add_flipped_images else (False,):
            for name, x in at_scale(ops.flip(image, axis=2) if flip else image).items():
                if flip:
                    x = ops.flip(x, axis=2)
                    x = x * ops.array([1.0, -1.0]) if name == keys.OFFSET_MAP else x
                kind = ResizeOffsetsLike if name == keys.OFFSET_MAP else ResizeLike
                x = kind(align_corners=align_corners, dtype="float32")([x, image])
                answers[name].append(ops.softmax(x) if name == keys.SEMANTIC_LOGITS else x)
    means = {name: sum(found[1:], found[0]) / len(found) for name, found in answers.items()}
    result = means if panoptic else means[keys.SEMANTIC_LOGITS]
    return keras.Model(image, result, name=model.name)


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
