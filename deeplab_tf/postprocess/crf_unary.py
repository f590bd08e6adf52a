"""What a network found, as unaries of the CRF: -log of each pixel's probabilities."""

from collections.abc import Callable

import numpy as np

from deeplab_tf.errors import InputError

# Probabilities below count as this one, as in the binding of the authors' code: no class is ever
# out of the question.
MIN_PROBABILITY = 1e-5
# How far a pixel's probabilities may be from adding up to one. In half precision, 150 of them are
# off by some thousandths.
_SUM_TOLERANCE = 0.01
# Pixels at a time: what is made of them on the way stays small.
_STRIP = 1 << 14


def unary_from_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """-log of probabilities, at least `MIN_PROBABILITY`: float [H, W, C] -> float32 [H, W, C].

    Raises:
        InputError: no floats of three dimensions; NaN, a negative number, or a pixel whose
            probabilities don't add up to one.
    """
    probabilities = _checked_map(probabilities, "probabilities")
    return _in_strips(probabilities, _negative_log)


def _negative_log(strip: np.ndarray, first: int) -> np.ndarray:
    strip = strip.astype(np.float32, copy=False)
    total = strip @ np.ones(strip.shape[1], np.float32)
    wrong = ~(np.abs(total - 1) <= _SUM_TOLERANCE)  # NaN isn't within either
    if wrong.any():
        at = int(wrong.argmax())
        raise InputError(
            "probabilities add up to one in each pixel; those of pixel number "
            f"{first + at} add up to {total[at]:.4g}. Give logits as logits, and NaN nowhere."
        )
    if strip.min() < -_SUM_TOLERANCE:
        raise InputError(f"probabilities are at least 0; got {strip.min():.4g}.")
    return -np.log(np.clip(strip, MIN_PROBABILITY, 1))


def unary_from_logits(logits: np.ndarray) -> np.ndarray:
    """The same of softmax(logits): float [H, W, C] -> float32 [H, W, C].

    Raises:
        InputError: no floats of three dimensions; NaN or infinity.
    """
    return _in_strips(_checked_map(logits, "logits"), _negative_log_softmax)


def _negative_log_softmax(strip: np.ndarray, first: int) -> np.ndarray:
    if not np.isfinite(strip).all():
        raise InputError("logits are finite; got NaN or infinity.")
    strip = strip.astype(np.float32) - strip.max(axis=1, keepdims=True)
    strip -= np.log(np.exp(strip).sum(axis=1, keepdims=True))
    return -np.maximum(strip, np.float32(np.log(MIN_PROBABILITY)))


def unary_from_labels(
    labels: np.ndarray,
    num_classes: int,
    *,
    confidence: float = 0.9,
    ignore_label: int | None = 255,
) -> np.ndarray:
    """-log of how likely each class is, given labels: integers [H, W] -> float32 [H, W, C].

    Args:
        labels: 0..num_classes-1, or `ignore_label`.
        num_classes: C, at least 2.
        confidence: probability of a pixel's label, above 0 and below 1; the other classes share
            the rest.
        ignore_label: of pixels that may be anything; None for none.

    Raises:
        InputError: values outside these ranges.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are integers [H, W]; got {labels.dtype} {labels.shape}.")
    if num_classes < 2:
        raise InputError(f"num_classes is at least 2; got {num_classes}.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is above 0 and below 1; got {confidence}.")
    known = np.ones(labels.shape, bool) if ignore_label is None else labels != ignore_label
    if known.any() and not 0 <= labels[known].min() <= labels[known].max() < num_classes:
        raise InputError(
            f"labels are 0..{num_classes - 1} or ignore_label ({ignore_label}); got "
            f"{labels[known].min()}..{labels[known].max()}."
        )
    rest = -np.log((1 - confidence) / (num_classes - 1))
    unary = np.full((*labels.shape, num_classes), rest, np.float32)
    rows, columns = np.nonzero(known)
    unary[rows, columns, labels[known]] = -np.log(confidence)
    unary[~known] = np.log(num_classes)
    return unary


def _checked_map(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 3 or not values.size or not np.issubdtype(values.dtype, np.floating):
        raise InputError(
            f"{name} are floats of shape [H, W, C]; got {values.dtype} {values.shape}."
        )
    return values


def _in_strips(values: np.ndarray, function: Callable) -> np.ndarray:
    """float32 of the same shape: the function of some pixels [n, C] after the other."""
    result = np.empty(values.shape, np.float32)
    pixels = values.reshape(-1, values.shape[-1])
    out = result.reshape(pixels.shape)
    for first in range(0, len(pixels), _STRIP):
        out[first : first + _STRIP] = function(pixels[first : first + _STRIP], first)
    return result
