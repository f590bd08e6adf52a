"""The model as one function of raw pixels: what it takes and gives is fixed here, by name.

Normalisation is the model's own first layers, so nothing but a cast stands before it.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.export.panoptic import panoptic_maps
from deeplab_tf.models.base import instances_by

PROBABILITIES = "probabilities"
LABELS = "labels"
# What a user may ask for -> name of the output.
OUTPUTS = {"probabilities": PROBABILITIES, "argmax": LABELS}


def check_exportable(model: keras.Model) -> None:
    """Raises InputError unless `model` maps one picture tensor to class logits."""
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"export works with Keras on TensorFlow; it runs on {keras.backend.backend()}. "
            "Save a preset folder, then export it with KERAS_BACKEND=tensorflow."
        )
    shape = logits_shape(model)
    if shape is None and isinstance(model.output, dict) and keys.CENTER_HEATMAP in model.output:
        raise InputError(
            f"{model.name} finds centres and offsets but no classes (tasks='instance'), so nothing "
            "can be merged; export a model with both halves (tasks='panoptic')."
        )
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise InputError(
            f"{model.name} doesn't give one map of class logits; only semantic models and panoptic "
            "ones export."
        )


def logits_shape(model: keras.Model):
    """Of the semantic logits, [B, h, w, num_classes], if the model gives them."""
    output = model.output
    if isinstance(output, dict):
        output = output.get(keys.SEMANTIC_LOGITS)
    return getattr(output, "shape", None)


def export_size(model: keras.Model, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of the exported input.

    Args:
        model: its input may fix the size.
        size: one side of a square, or (height, width). None takes the size the model was made
            for.

    Raises:
        InputError: no size is known, or the model's graph has another.
    """
    fixed = tuple(model.input_shape[1:3])
    if size is None:
        info = getattr(model, "info", None)
        size = fixed if None not in fixed else info and info.image_size
        if size is None:
            raise InputError("this model has no picture size of its own; give one, like --size 256")
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if height < 1 or width < 1:
        raise InputError(f"the size is at least 1x1; got {height}x{width}.")
    if any(side not in (None, wanted) for side, wanted in zip(fixed, (height, width), strict=True)):
        raise InputError(
            f"this model was built for {fixed[0]}x{fixed[1]} pictures and can't take "
            f"{height}x{width}; leave the size out, or load it with image_shape=(None, None, 3)."
        )
    return height, width


def semantic_logits(model: keras.Model, image: tf.Tensor) -> tf.Tensor:
    """float32 pixels 0..255 [B, H, W, 3] -> [B, h, w, num_classes]; what else there is, is left."""
    outputs = model(image, training=False)
    return outputs[keys.SEMANTIC_LOGITS] if isinstance(outputs, dict) else outputs


def probabilities(model: keras.Model, image: tf.Tensor) -> tf.Tensor:
    """float32 pixels 0..255 [B, H, W, 3] -> softmax [B, h, w, num_classes]."""
    return tf.nn.softmax(semantic_logits(model, image))


def label_map(logits: tf.Tensor) -> tf.Tensor:
    """Logits or probabilities [..., num_classes] -> the class of each pixel, uint8 [...].

    `keras.ops.argmax` gives int64, which TFLite has no kernel for; int32 converts.
    """
    return tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)


def fixed_function(
    model: keras.Model, size: tuple[int, int], *, labels: str, pixels: tf.DType
) -> tuple[Callable, tf.TensorSpec]:
    """The function to convert to TFLite, with the spec of its input.

    Every side is fixed, the batch to 1: with an open batch each dilated depthwise convolution
    would become three ops.

    A panoptic model gives its three maps, to be merged outside, at the decoders' stride: see
    `deeplab_tf.inference.lite_maps`, which enlarges them.

    Args:
        model: float pixels in, logits out.
        size: (height, width).
        labels: "probabilities" or "argmax".
        pixels: type of the input. Integer quantisation takes float32 and turns it into uint8
            itself; with uint8 here a cast would stay in the file.
    """

    def pixels_to_classes(image):
        image = tf.cast(image, tf.float32)
        if instances_by(model):
            return panoptic_maps(model, image, small=True)
        if OUTPUTS[labels] == LABELS:
            return {LABELS: label_map(semantic_logits(model, image))}
        return {PROBABILITIES: probabilities(model, image)}

    return pixels_to_classes, tf.TensorSpec((1, *size, 3), pixels, name=keys.IMAGE)
