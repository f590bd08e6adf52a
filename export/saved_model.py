"""Keras model -> SavedModel that takes pictures as they come: any size, raw or JPEG and PNG.

`serving_default`: `image` uint8 [B, H, W, 3] -> `probabilities` float32 [B, H, W, classes] or
`labels` uint8 [B, H, W].
`encoded`: `encoded_image` string [B] -> `labels` uint8 [B, H, W] and `sizes` int32 [B, 2]. Pictures
of a batch may differ in size: H and W are the largest, `labels[i, :h, :w]` with `h, w = sizes[i]`
is picture i's, and the rest is 255. For a single picture nothing has to be cut.

Of a panoptic model, whose merge is inside too, `serving_default` gives `panoptic_label` int32
[B, H, W], `instance_score` float32 [B, H, W], the list of segments (see `listed_segments`) and
probabilities or labels as above (of a mask transformer always labels); `encoded` gives
`panoptic_label`, `sizes` and the segments, and what is outside a picture is void.
"""

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.export import panoptic
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
from deeplab_tf.inference.merged import MergedScoreMap, merged_scores
from deeplab_tf.inference.runner import cannot_open, saved_info
from deeplab_tf.layers.atrous import without_gradients
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.merge_settings import MergeSettings

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
        info: says what size pictures are brought to, and how; of a panoptic model also how its
            maps are merged.
        labels: what `serving_default` returns, "probabilities" or "argmax".
    """
    check_exportable(model)
    settings = panoptic.settings_of(model, info)
    if settings is None:
        serving_default, encoded = _semantic_signatures(model, info, labels)
    else:
        serving_default, encoded = _panoptic_signatures(model, info, labels, settings)
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


def _semantic_signatures(
    model: keras.Model, info: ModelInfo, labels: str
) -> tuple[Callable, Callable]:
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

        specs = (tf.RaggedTensorSpec([None, None], tf.uint8), tf.TensorSpec([2], tf.int32))
        ragged, sizes = tf.map_fn(one, data, fn_output_signature=specs)
        return {LABELS: ragged.to_tensor(OUTSIDE), SIZES: sizes}

    return serving_default, encoded


def _panoptic_signatures(
    model: keras.Model, info: ModelInfo, labels: str, settings: MergeSettings | MaskSettings
) -> tuple[Callable, Callable]:
    bring = _bringer(model, info)

    def predict(image):
        image = tf.cast(image, tf.float32)
        small, filled = bring(image)
        size = tf.shape(image)[1:3]
        if isinstance(settings, MaskSettings):
            return panoptic.merged_masks(model, small, filled, size, settings)
        maps = panoptic.panoptic_maps(model, small)
        maps = {name: _over_picture(x, filled, tf.shape(small)[1:3]) for name, x in maps.items()}
        return panoptic.merged(maps, size, settings)

    def serving_default(image):
        found = predict(image)
        if keys.SEMANTIC_LABEL in found:
            found[LABELS] = tf.cast(found.pop(keys.SEMANTIC_LABEL), tf.uint8)
        elif OUTPUTS[labels] == LABELS:
            found[LABELS] = label_map(found.pop(PROBABILITIES))
        maps = found[keys.PANOPTIC_LABEL], found[keys.INSTANCE_SCORE]
        return found | panoptic.listed_segments(*maps, settings)

    def encoded(data):
        def one(content):
            image = upright(decode(content), content)
            found = predict(image[None])
            maps = found[keys.PANOPTIC_LABEL][0], found[keys.INSTANCE_SCORE][0]
            segments = panoptic.picture_segments(*maps, settings)
            return tf.RaggedTensor.from_tensor(maps[0]), tf.shape(image)[:2], segments

        specs = (
            tf.RaggedTensorSpec([None, None], tf.int32),
            tf.TensorSpec([2], tf.int32),
            panoptic.SEGMENT_SPECS,
        )
        ragged, sizes, segments = tf.map_fn(one, data, fn_output_signature=specs)
        return {
            keys.PANOPTIC_LABEL: ragged.to_tensor(settings.void_value),
            SIZES: sizes,
            **panoptic.padded_segments(segments),
        }

    return serving_default, encoded


def _bringer(
    model: keras.Model, info: ModelInfo
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """float32 pixels [B, H, W, 3] -> the same at the model's size, and how much of that they fill.

    The part is (height, width) at the upper left, int32 [2]; the rest is padding.
    """
    size, rule = _size_and_rule(model, info)

    def bring(image):
        whole = tf.shape(image)[1:3]
        if rule == "none":
            return image, whole
        if rule == "stretch":
            return tf.ensure_shape(_bring_to(image, size), [None, *size, 3]), tf.constant(size)
        fitted = _fitted_size(whole, size)
        small = _bring_to(image, fitted)
        missing = tf.constant(size) - fitted
        grey = 128.0  # normalises to zero
        small = tf.pad(small - grey, [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]) + grey
        return tf.ensure_shape(small, [None, *size, 3]), fitted

    return bring


def _size_and_rule(model: keras.Model, info: ModelInfo) -> tuple[tuple[int, int], str]:
    """What size pictures are brought to, and how; any size under the rule "none"."""
    fixed = tuple(model.input_shape[1:3])
    if None not in fixed:
        return fixed, "fit" if info.resize == "fit" else "stretch"
    # A rule other than "none" comes with a size (`ModelInfo` sees to it).
    return info.image_size or (0, 0), info.resize


def _predictor(model: keras.Model, info: ModelInfo) -> Callable[[tf.Tensor], tf.Tensor]:
    """float32 pixels [B, H, W, 3] -> probabilities at the same size, [B, H, W, classes]."""
    bring = _bringer(model, info)
    size, rule = _size_and_rule(model, info)

    def predict(image):
        small, filled = bring(image)
        result = probabilities(model, small)
        if rule == "fit":
            result = _resize(result, size)[:, : filled[0], : filled[1]]
        return _resize(result, tf.shape(image)[1:3])

    return predict


def _over_picture(values: tf.Tensor, filled: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    """The part of a map [B, h, w, C] that lies over the picture, which fills a part of `whole`."""
    share = tf.cast(filled, tf.float64) / tf.cast(whole, tf.float64)
    sides = tf.round(tf.cast(tf.shape(values)[1:3], tf.float64) * share)
    sides = tf.maximum(tf.cast(sides, tf.int32), 1)
    return values[:, : sides[0], : sides[1]]


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

    @property
    def is_panoptic(self) -> bool:
        """Whether it gives instances."""
        return keys.PANOPTIC_LABEL in self.signatures["serving_default"]["outputs"]

    def outputs(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """All that `serving_default` gives for uint8 [H, W, 3], without the batch axis."""
        outputs = self._default(**{keys.IMAGE: tf.constant(picture[None])})
        return {name: x.numpy()[0] for name, x in outputs.items()}

    def run(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> probabilities [H, W, classes] or labels [H, W]."""
        outputs = self.outputs(picture)
        return outputs[PROBABILITIES] if PROBABILITIES in outputs else outputs[LABELS]

    def scores(self, picture: np.ndarray) -> MergedScoreMap:
        """What a panoptic one says of uint8 [H, W, 3]."""
        outputs = self.outputs(picture)
        if LABELS in outputs:  # certain everywhere
            known = max(len(self.info.classes), int(outputs[LABELS].max()) + 1, 2)
            outputs[PROBABILITIES] = np.eye(known, dtype=np.float32)[outputs[LABELS]]
        return merged_scores(outputs, picture.shape[:2], self.info)

    def run_encoded(self, content: bytes) -> np.ndarray:
        """A file's content -> labels [H, W], of a panoptic one the panoptic map."""
        outputs = self._encoded(**{ENCODED_IMAGE: tf.constant([content])})
        return outputs[keys.PANOPTIC_LABEL if self.is_panoptic else LABELS].numpy()[0]
