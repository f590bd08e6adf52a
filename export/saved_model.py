"""Keras model -> SavedModel that takes pictures as they come: any size, raw or JPEG and PNG.

`serving_default`: `image` uint8 [B, H, W, 3] -> `probabilities` float32 [B, H, W, classes] or
`labels` uint8 [B, H, W].
`encoded`: `encoded_image` string [B] -> `labels` uint8 [B, H, W] and `sizes` int32 [B, 2]. Pictures
of a batch may differ in size: H and W are the largest, `labels[i, :h, :w]` with `h, w = sizes[i]`
is picture i's, and the rest is 255. For a single picture nothing has to be cut.
"""

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.export.decode import decode
from deeplab_tf.export.orientation import upright
from deeplab_tf.export.quiet import quiet
from deeplab_tf.export.signature import (
    LABELS,
    OUTPUTS,
    PROBABILITIES,
    check_exportable,
    label_map,
    probabilities,
)
from deeplab_tf.inference.runner import cannot_open, saved_info
from deeplab_tf.layers.atrous import without_gradients
from deeplab_tf.models.info import ModelInfo

ENCODED = "encoded"
ENCODED_IMAGE = "encoded_image"
SIZES = "sizes"
# Of label maps outside their picture; no class has it.
OUTSIDE = 255


def write_saved_model(
    model: keras.Model, folder: str | os.PathLike, *, info: ModelInfo, labels: str = "probabilities"
) -> None:
    """Writes a SavedModel with both signatures.

    Args:
        model: float pixels 0..255 in, logits out.
        folder: where to; as it is, callers give a temporary one.
        info: says what size pictures are brought to, and how.
        labels: what `serving_default` returns, "probabilities" or "argmax".
    """
    check_exportable(model)
    predict = _predictor(model, info)

    def serving_default(image):
        result = predict(tf.cast(image, tf.float32))
        if OUTPUTS[labels] == LABELS:
            return {LABELS: label_map(result)}
        return {PROBABILITIES: result}

    def encoded(data):
        def one(content):
            image = upright(decode(content), content)
            result = label_map(predict(tf.cast(image[None], tf.float32)))[0]
            # Ragged, since map_fn stacks what it returns and sizes differ.
            return tf.RaggedTensor.from_tensor(result), tf.shape(image)[:2]

        ragged, sizes = tf.map_fn(
            one,
            data,
            fn_output_signature=(
                tf.RaggedTensorSpec([None, None], tf.uint8),
                tf.TensorSpec([2], tf.int32),
            ),
        )
        return {LABELS: ragged.to_tensor(OUTSIDE), SIZES: sizes}

    archive = keras.export.ExportArchive()
    archive.track(model)
    with quiet(), without_gradients():
        archive.add_endpoint(
            "serving_default",
            serving_default,
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name=keys.IMAGE)],
        )
        archive.add_endpoint(
            ENCODED,
            encoded,
            input_signature=[tf.TensorSpec([None], tf.string, name=ENCODED_IMAGE)],
        )
        archive.write_out(str(folder), verbose=False)


def _predictor(model: keras.Model, info: ModelInfo) -> Callable[[tf.Tensor], tf.Tensor]:
    """float32 pixels [B, H, W, 3] -> probabilities at the same size, [B, H, W, classes]."""
    fixed = tuple(model.input_shape[1:3])
    rule = info.resize
    # A rule other than "none" comes with a size (`ModelInfo` sees to it).
    size: tuple[int, int] = info.image_size or (0, 0)
    if None not in fixed:
        size, rule = fixed, rule if rule == "fit" else "stretch"

    def predict(image):
        whole = tf.shape(image)[1:3]
        if rule == "none":
            return _resize(probabilities(model, image), whole)
        if rule == "stretch":
            small = _bring_to(image, size)
            return _resize(probabilities(model, small), whole)
        fitted = _fitted_size(whole, size)
        small = _bring_to(image, fitted)
        missing = tf.constant(size) - fitted
        grey = 128.0  # normalises to zero
        small = tf.pad(small - grey, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]) + grey
        result = _resize(probabilities(model, tf.ensure_shape(small, [None, *size, 3])), size)
        return _resize(result[:, : fitted[0], : fitted[1]], whole)

    return predict


def _bring_to(image: tf.Tensor, size) -> tf.Tensor:
    """float32 pixels [B, H, W, 3] -> [B, h, w, 3] as Pillow resizes: rounded after each pass.

    Without the rounding a model in doubt decides otherwise here than in `predict` for some pixels
    in a thousand. (Recent Pillow takes tall pictures' passes in the other order.)
    """
    for sides in ((tf.shape(image)[1], size[1]), (size[0], size[1])):
        image = tf.floor(tf.image.resize(image, tf.stack(sides), antialias=True) + 0.5)
    return image


def _fitted_size(whole: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """[height, width] of a picture whose longer side fills `size`, int32."""
    height, width = whole[0], whole[1]
    tall = height * size[1] >= width * size[0]
    return tf.where(
        tall,
        tf.stack([size[0], tf.maximum(width * size[0] // height, 1)]),
        tf.stack([tf.maximum(height * size[1] // width, 1), size[1]]),
    )


def _resize(result: tf.Tensor, size) -> tf.Tensor:
    """[B, h, w, C] -> [B, H, W, C], bilinear; probabilities still add up to one."""
    return tf.image.resize(result, size)


class ServedModel:
    """A SavedModel written here, loaded again.

    Attributes:
        signatures: name -> {"inputs": [...], "outputs": [...]}.
        info: the record that an export leaves beside it.
    """

    def __init__(self, folder: str | os.PathLike):
        folder = Path(folder)
        if not (folder / "saved_model.pb").is_file():
            raise InputError(f"{folder} isn't a SavedModel: it has no saved_model.pb.")
        self.info = saved_info(folder)
        # Kept: the functions live as long as what they were loaded with.
        try:
            self._loaded = tf.saved_model.load(str(folder))
        except Exception as error:  # protobuf, graph and file errors of many kinds
            raise cannot_open(folder, error) from None
        found = self._loaded.signatures
        if "serving_default" not in found:
            raise InputError(f"{folder} has no signature serving_default; export it again.")
        self._default, self._encoded = found["serving_default"], found.get(ENCODED)
        self.signatures = {
            name: {
                "inputs": sorted(function.structured_input_signature[1]),
                "outputs": sorted(function.structured_outputs),
            }
            for name, function in found.items()
        }

    def run(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> probabilities [H, W, classes] or labels [H, W]."""
        outputs = self._default(**{keys.IMAGE: tf.constant(picture[None])})
        return next(iter(outputs.values())).numpy()[0]

    def run_encoded(self, content: bytes) -> np.ndarray:
        """The same for a file's content: labels [H, W]."""
        outputs = self._encoded(**{ENCODED_IMAGE: tf.constant([content])})
        return outputs[LABELS].numpy()[0]
