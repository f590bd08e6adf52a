"""The assignments of kMaX-DeepLab's steps: whose choice they are, and what follows from a case's.

Each pixel goes to the slot of its largest logit. Where two are as large, rounding decides, and a
pixel more or less in a cluster changes all that comes after. So where a choice differs from the
stored one, it has to be such a tie, and the rest is compared as it is with the stored one.
"""

import re

import keras
import numpy as np

from deeplab_tf import keys
from deeplab_tf.layers.kmeans_attention import ClusterSums


def with_clusters(model: keras.Model, stored: dict[str, np.ndarray]) -> keras.Model:
    """The same layers, but pixels go to the slots that are stored, [B, h, w] for each step."""

    def call(layer, *inputs, **options):
        if isinstance(layer, ClusterSums):
            step = re.search(r"kmax_decoder\.(\d+)\.", layer.name)[1]
            values, logits = inputs[0]
            sure = np.eye(logits.shape[-1], dtype="float32")[stored[f"aux{step}_assignment"]]
            inputs = ([values, keras.ops.convert_to_tensor(sure)],)
        return layer(*inputs, **options)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def compare_clusters(
    name: str, outputs: dict[str, np.ndarray], arrays: dict[str, np.ndarray], strides
) -> None:
    """Compares one step's choice, given the same choices before it.

    Another slot is a tie if its logit is no further from that of the stored one than twice the
    largest error of the logits.

    Args:
        name: of the assignment in a case.
        outputs, arrays: ours and the stored ones by their names.
        strides: of the stored logits.
    """
    masks = name.replace("assignment", keys.MASK_LOGITS)
    logits, steps = outputs[masks], tuple(slice(None, None, step) for step in strides)
    error = np.abs(logits[steps] - arrays[masks]).max()
    pixels = np.nonzero(outputs[name] != arrays[name])
    ours, theirs = outputs[name][pixels], arrays[name][pixels]
    gaps = logits[(*pixels, ours)] - logits[(*pixels, theirs)]
    assert np.all(gaps <= 2 * error), f"{name}: {np.sum(gaps > 2 * error)} pixels differ"
