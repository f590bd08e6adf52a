"""Keras model -> TFLite, with builtin operators only."""

import dataclasses
import re
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.export.quiet import quiet
from deeplab_tf.export.signature import LABELS, OUTPUTS, check_exportable, fixed_function
from deeplab_tf.layers.atrous import without_gradients
from deeplab_tf.layers.axial_attention import all_lines_at_once
from deeplab_tf.models.base import instances_by


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A way to store weights and compute.

    Attributes:
        optimize: let the converter quantise.
        weights: type of the stored weights, if the converter doesn't choose it.
        operators: what the file may be made of.
        calibrated: value ranges are measured on pictures.
        uint8_interface: the converter turns the float input and output into uint8.
        threshold: share of pixels whose class must be that of the float model.
        panoptic_threshold: panoptic quality of a file's segments against the float model's.
    """

    operators: tuple[tf.lite.OpsSet, ...] = (tf.lite.OpsSet.TFLITE_BUILTINS,)
    optimize: bool = False
    weights: tf.DType | None = None
    calibrated: bool = False
    uint8_interface: bool = False
    threshold: float = 0.99
    panoptic_threshold: float = 0.95


_INT16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
SCHEMES = {
    "float32": Scheme(threshold=0.999, panoptic_threshold=0.98),
    "float16": Scheme(optimize=True, weights=tf.float16, threshold=0.995, panoptic_threshold=0.95),
    "dynamic": Scheme(optimize=True, threshold=0.98, panoptic_threshold=0.85),
    # uint8 outside, int8 inside: MediaPipe and the browser runtimes refuse int8 tensors.
    "int8": Scheme(
        operators=(tf.lite.OpsSet.TFLITE_BUILTINS_INT8,),
        optimize=True,
        calibrated=True,
        uint8_interface=True,
        threshold=0.97,
        panoptic_threshold=0.8,
    ),
    # Casts and argmax have no 16-bit form; the second set lets them stay as they are.
    "int16x8": Scheme(
        operators=(_INT16, tf.lite.OpsSet.TFLITE_BUILTINS),
        optimize=True,
        calibrated=True,
        threshold=0.98,
        panoptic_threshold=0.9,
    ),
}


def find_scheme(quantize: str) -> Scheme:
    """The record of `--quantize`.

    Raises:
        InputError: there is none of that name.
    """
    if quantize == "qat":
        raise InputError(
            "qat needs a model that was trained with quantisation, which this version can't do; "
            "int8 quantises a trained model on calibration pictures."
        )
    if quantize not in SCHEMES:
        raise InputError(f"quantize is one of {', '.join(SCHEMES)}; got {quantize!r}.")
    return SCHEMES[quantize]


def convert(
    model: keras.Model,
    size: tuple[int, int],
    *,
    quantize: str = "float32",
    labels: str = "probabilities",
    calibration: list[np.ndarray] | None = None,
) -> bytes:
    """A .tflite file's content: uint8 [1, H, W, 3] in, probabilities or labels out.

    Of a panoptic model the outputs are `probabilities`, `center_heatmap` and `offset_map`, float32
    in every scheme.

    Args:
        model: float pixels 0..255 in, logits out.
        size: (height, width).
        quantize: a key of `SCHEMES`.
        labels: "probabilities" (float32, or uint8 with scale 1/256) or "argmax" (uint8 label map).
        calibration: uint8 [H, W, 3] pictures of that size, for int8 and int16x8.

    Raises:
        InputError: the model has a layer that TFLite's builtin operators can't express, or
            calibration pictures are missing.
    """
    check_exportable(model)
    scheme = find_scheme(quantize)
    if labels not in OUTPUTS:
        raise InputError(f"labels is one of {', '.join(OUTPUTS)}; got {labels!r}.")
    if instances_by(model) == "masks":
        raise InputError(
            f"{model.name} is a mask transformer, and nothing here merges the masks that a .tflite "
            "file would give; export a SavedModel (--to saved_model), which merges inside."
        )
    if instances_by(model) and OUTPUTS[labels] == LABELS:
        raise InputError(
            "a panoptic .tflite file gives probabilities, centres and offsets, which are merged "
            f"outside; leave labels={labels!r} out, or export a SavedModel."
        )
    if scheme.calibrated and not calibration:
        raise InputError(f"{quantize} needs calibration pictures, and none were given.")
    pixels = tf.float32 if scheme.uint8_interface else tf.uint8
    function, spec = fixed_function(model, size, labels=labels, pixels=pixels)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with quiet() as printed, without_gradients(), all_lines_at_once():
                # Not from_keras_model, which opens the batch, and not from_concrete_functions,
                # which leaves Keras variables unfrozen and gives NaN without a word.
                archive = keras.export.ExportArchive()
                archive.track(model)
                archive.add_endpoint("serving_default", function, input_signature=[spec])
                archive.write_out(folder, verbose=False)
                converter = tf.lite.TFLiteConverter.from_saved_model(folder)
                bytes_out = OUTPUTS[labels] != LABELS and instances_by(model) is None
                _configure(converter, scheme, bytes_out, calibration, pixels)
                return converter.convert()
        except InputError:
            raise
        except Exception as error:
            known = _in_words(error, printed.text, quantize)
            if known is None:
                raise
            raise known from error


def _configure(converter, scheme: Scheme, bytes_out: bool, calibration, pixels: tf.DType) -> None:
    converter.target_spec.supported_ops = list(scheme.operators)
    if scheme.optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme.weights is not None:
        converter.target_spec.supported_types = [scheme.weights]
    if scheme.calibrated:
        converter.representative_dataset = lambda: _representative(
            calibration, pixels.as_numpy_dtype
        )
    if scheme.uint8_interface:
        converter.inference_input_type = tf.uint8
        if bytes_out:
            converter.inference_output_type = tf.uint8


def _representative(calibration: list[np.ndarray], dtype) -> Iterator[dict[str, np.ndarray]]:
    """Feeds the pictures one by one; together they span 0..255 exactly.

    Were the brightest calibration pixel 250, the input would get the scale 250/255 and raw uint8
    pixels could not go straight in. So one corner of the first picture is made black, another
    white.
    """
    for number, picture in enumerate(calibration):
        if number == 0:
            picture = picture.copy()
            picture[0, 0], picture[-1, -1] = 0, 255
        yield {keys.IMAGE: picture[None].astype(dtype)}


def _in_words(error: Exception, printed: str, quantize: str) -> InputError | None:
    """The converter's failure as something to act on, where we know what it is."""
    text = f"{error}\n{printed}"
    missing = sorted(set(re.findall(r"'(tf\.\w+)' op is neither a custom op", text)))
    if missing:
        return InputError(
            f"TFLite's builtin operators have no {', '.join(missing)}; replace the layers that "
            "use it, or export a SavedModel."
        )
    unquantized = sorted(set(re.findall(r"not yet supported for op: '(\w+)'", text)))
    if unquantized:
        return InputError(
            f"{quantize} has no form of {', '.join(unquantized)}; use float16 or dynamic."
        )
    return None
