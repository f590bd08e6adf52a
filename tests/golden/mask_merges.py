"""Cases of MaX-DeepLab's and kMaX-DeepLab's merge. Label maps are exact."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.models.mask_classes import class_order
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.masks import merge_masks, rank_slots

# Of scores, in standard deviations.
TOLERANCE = 1e-4
_MAPS = ("panoptic", "mask_id_plus_one", "semantic", "instance_score", "semantic_score")


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """All variants of a case, and that nothing stored goes unread."""
    inputs = arrays["in_mask_logits"], arrays["in_class_logits"]
    order = class_order(case["num_classes"], case["thing_class_ids"], case["void_label"])
    assert [*order] == case["thing_stuff_class_ids_order"]
    assert len(order) + 1 == inputs[1].shape[-1]
    read = {"in_mask_logits", "in_class_logits"}
    for name, variant in case["variants"].items():
        settings = _settings(case, variant, inputs[1])
        stored = {key: arrays[f"{name}_{key}"] for key in _MAPS if f"{name}_{key}" in arrays}
        _compare(name, inputs, settings, order, stored)
        read |= {f"{name}_{key}" for key in stored}
    assert case["variants"] and read == set(arrays), f"{path}: {set(arrays) - read} not compared"


def _settings(case: dict, variant: dict, class_logits: np.ndarray) -> MaskSettings:
    """The reference's names for the settings."""
    rule = variant["transformer_post_processing"]
    values = {
        key: variant[key]
        for key in ("thing_area_limit", "stuff_area_limit", "pixel_confidence_threshold")
    }
    values["class_confidence_threshold"] = variant["transformer_class_confidence_threshold"]
    read = {
        "transformer_class_confidence_threshold_thing": "class_confidence_threshold_thing",
        "transformer_class_confidence_threshold_stuff": "class_confidence_threshold_stuff",
        "overlapping_threshold": "overlap_threshold",
        "reorder_class_weight": "class_weight",
        "reorder_mask_weight": "mask_weight",
    }
    for theirs, value in variant.get("maskwise", {}).items():
        values[read[theirs]] = value
    # A threshold above 1, which drops all slots, isn't one of ours; 1 does the same.
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(class_logits))
    for key, value in values.items():
        if key.startswith("class_confidence") and value > 1:
            assert probabilities.max() < 1
            values[key] = 1.0
    return MaskSettings(
        case["thing_class_ids"], case["label_divisor"], case["void_label"], rule=rule, **values
    )


def _compare(name, inputs, settings, order, stored):
    size = stored["panoptic"].shape
    merged = _compiled(lambda *inputs: merge_masks(*inputs, settings, size))(
        *(x[None] for x in inputs)
    )
    merged = {key: np.asarray(value)[0] for key, value in merged.items()}
    slots = rank_slots(*(keras.ops.convert_to_tensor(x) for x in inputs), settings)
    # The reference has the first mask where there is none, and class 0 where no slot is sure.
    mask = np.maximum(merged[keys.INSTANCE_MAP], 1)
    classes = np.array(order)[np.asarray(slots.channel)] * bool(slots.any_sure)
    ours = {
        "panoptic": merged[keys.PANOPTIC_LABEL],
        "mask_id_plus_one": mask,
        "semantic": classes[mask - 1],
    }
    scores = {
        "instance_score": merged[keys.INSTANCE_SCORE],
        "semantic_score": merged[keys.SEMANTIC_SCORE],
    }
    for key in ours.keys() & stored.keys():
        np.testing.assert_array_equal(ours[key], stored[key], err_msg=f"{name}: {key}")
    for key in scores.keys() & stored.keys():
        error = np.abs(scores[key] - stored[key]).max()
        assert error <= TOLERANCE * stored[key].std(), f"{name}, {key}: {error:.3g}"
    thresholds = settings.pixel_confidence_threshold, settings.class_confidence_threshold
    if settings.rule == "pixelwise" and thresholds == (0, 0):
        np.testing.assert_array_equal(merged[keys.SEMANTIC_LABEL], stored["semantic"])


def _compiled(function):
    """As the backend compiles it, sizes unknown where that is possible."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "torch":
        return function

    def call(masks, classes):
        shapes = [None, None, None, masks.shape[-1]], [None, *classes.shape[1:]]
        specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        return tf.function(function, specs, autograph=False)(masks, classes)

    return call
