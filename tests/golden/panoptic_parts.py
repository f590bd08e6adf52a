"""Cases of what lies around Panoptic-DeepLab's network: targets, losses and the merge.

Targets and label maps are exact; losses and gradients have the tolerance of the networks.
"""

import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.datasets.targets import crowd_mask, panoptic_targets, thing_id_targets
from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss
from deeplab_tf.postprocess import panoptic, panoptic_numpy, panoptic_rules
from deeplab_tf.postprocess.merge_settings import MergeSettings

# Largest difference of a float array, in standard deviations; single values: of the value.
TOLERANCE = 1e-4
# What a case leaves to the name of its data set.
_DATASETS = {
    "cityscapes_panoptic": dict(
        num_classes=19, ignore_label=255, label_divisor=1000, thing_classes=tuple(range(11, 19))
    ),
    "coco_panoptic": dict(
        num_classes=134, ignore_label=0, label_divisor=256, thing_classes=tuple(range(1, 81))
    ),
}


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Finds the check by the beginning of the case's name."""
    for start, check in _CHECKS.items():
        if case["case"].startswith(start):
            check(case, arrays)
            return
    raise AssertionError(f"{path}: no check for {case['case']!r}")


def _dataset(case: dict) -> dict:
    """What is known of the data set: the case's own words, else those of its name."""
    info = case.get("dataset_info", case)
    known = dict(_DATASETS.get(info.get("dataset_name", info.get("dataset")), {}))
    for ours, theirs in (
        ("num_classes", "num_classes"),
        ("ignore_label", "ignore_label"),
        ("ignore_label", "void_label"),
        ("label_divisor", "label_divisor"),
        ("label_divisor", "panoptic_label_divisor"),
        ("thing_classes", "thing_class_ids"),
        ("thing_classes", "class_has_instances_list"),
    ):
        if theirs in info:
            known[ours] = info[theirs]
    return known


def _target_options(case: dict) -> dict:
    settings = case["settings"]
    known = _dataset(case)
    return dict(
        label_divisor=known["label_divisor"],
        thing_classes=known["thing_classes"],
        ignore_label=known["ignore_label"],
        sigma=settings["sigma"],
        small_instance_area=settings["small_instance_threshold"],
        small_instance_weight=settings["small_instance_weight"],
    )


# --- Targets ---


def _check_targets(case, arrays):
    label = arrays["in_panoptic_label"]
    options = _target_options(case)
    make = tf.function(lambda label: panoptic_targets(label, **options))
    targets, weights = make(tf.constant(label))
    labels = {key: options[key] for key in ("label_divisor", "thing_classes")}
    settings = case["settings"]
    things, classes = thing_id_targets(label, **labels, max_thing_id=settings["max_thing_id"])
    ours = {
        "semantic_gt": targets[keys.SEMANTIC_LOGITS],
        "panoptic_gt": label,
        "instance_center_gt": targets[keys.CENTER_HEATMAP][..., 0],
        "instance_regression_gt": targets[keys.OFFSET_MAP],
        "semantic_loss_weight": weights[keys.SEMANTIC_LOGITS],
        "center_loss_weight": weights[keys.CENTER_HEATMAP],
        "regression_loss_weight": weights[keys.OFFSET_MAP],
        "is_crowd_gt": crowd_mask(label, **labels),
        "thing_id_mask_gt": things,
        "thing_id_class_gt": classes,
    }
    for name, stored in arrays.items():
        if name != "in_panoptic_label":
            np.testing.assert_array_equal(np.asarray(ours[name]), stored, err_msg=name)


# --- Losses ---


def _losses(case: dict) -> dict:
    """Output -> loss, from the options' text format: blocks of `name { key: value ... }`."""
    blocks = re.findall(r"(\w+)\s*\{([^{}]*)\}", case["loss_options"])
    options = {name: dict(re.findall(r"(\w+)\s*:\s*\"?([\w.+-]+)", body)) for name, body in blocks}
    for name, kind in (
        ("semantic_loss", "softmax_cross_entropy"),
        ("center_loss", "mse"),
        ("regression_loss", "l1"),
    ):
        assert options[name].get("name", kind) == kind, f"{name} is {options[name]}"
    weight = {name: float(values.get("weight", 1.0)) for name, values in options.items()}
    known = _dataset(case)
    return {
        keys.SEMANTIC_LOGITS: SemanticLoss(
            known["num_classes"],
            known["ignore_label"],
            float(options["semantic_loss"].get("top_k_percent", 1.0)),
            weight["semantic_loss"],
        ),
        keys.CENTER_HEATMAP: CenterLoss(weight["center_loss"]),
        keys.OFFSET_MAP: OffsetLoss(weight["regression_loss"]),
    }


_LOSS_NAMES = {
    keys.SEMANTIC_LOGITS: "semantic_loss",
    keys.CENTER_HEATMAP: "center_loss",
    keys.OFFSET_MAP: "regression_loss",
}


def _check_losses(case, arrays):
    losses, options = _losses(case), _target_options(case)
    made = [
        panoptic_targets(arrays[f"in_panoptic_label_{i}"], **options)
        for i in range(case["settings"]["batch"])
    ]
    targets, weights = tf.nest.map_structure(lambda *parts: tf.stack(parts), *made)
    outputs = {
        keys.SEMANTIC_LOGITS: _array(arrays, "in_semantic_logits"),
        keys.CENTER_HEATMAP: _array(arrays, "in_center_heatmap")[..., None],
        keys.OFFSET_MAP: _array(arrays, "in_offset_map"),
    }
    targets, weights = tf.nest.map_structure(lambda x: x.numpy(), (targets, weights))

    def run(outputs):
        values = {
            name: loss.per_image(targets[name], outputs[name], weights[name])
            for name, loss in losses.items()
        }
        return values, sum(values.values())

    values, total, gradients = _values_and_gradients(run, outputs)
    for name, value in values.items():
        _close(arrays, f"loss_{_LOSS_NAMES[name]}", value)
        mean = losses[name](targets[name], outputs[name], weights[name])
        np.testing.assert_allclose(np.asarray(mean), np.mean(value), rtol=1e-6)
    _close(arrays, "loss_total_loss", total)
    for name, gradient in gradients.items():
        gradient = np.asarray(gradient)
        if name == keys.CENTER_HEATMAP:
            gradient = gradient[..., 0]
        strides = arrays.get(f"grad_{name}_strides", np.ones(gradient.ndim, int))
        _close(arrays, f"grad_{name}", gradient[tuple(slice(None, None, n) for n in strides)])


def _values_and_gradients(run, outputs: dict[str, np.ndarray]):
    """What `run` gives, and the gradient of its second answer's sum, as arrays."""
    if keras.backend.backend() == "jax":
        import jax

        gradient = jax.grad(lambda outputs: run(outputs)[1].sum())
        found = jax.jit(lambda outputs: (*run(outputs), gradient(outputs)))(outputs)
    elif keras.backend.backend() == "torch":
        import torch

        outputs = {name: torch.from_numpy(x).requires_grad_() for name, x in outputs.items()}
        found = run(outputs)
        found[1].sum().backward()
        gradients = {name: x.grad for name, x in outputs.items()}
        found = keras.tree.map_structure(lambda x: x.detach(), (*found, gradients))
    else:

        @tf.function(autograph=False)
        def both(outputs):
            with tf.GradientTape() as tape:
                tape.watch(outputs)
                values, total = run(outputs)
            return values, total, tape.gradient(total, outputs)

        found = both({name: tf.constant(x) for name, x in outputs.items()})
    return keras.tree.map_structure(np.asarray, found)


def _array(arrays, name):
    """A float32 array that may have been stored as float16."""
    stored = arrays[name] if name in arrays else arrays[f"{name}_float16"]
    return stored.astype(np.float32)


def _close(arrays, name, ours):
    ours, stored = np.asarray(ours), arrays[name]
    assert ours.shape == stored.shape, f"{name}: shape {ours.shape}, stored {stored.shape}"
    scale = np.abs(stored).max() if name.startswith("loss") else stored.std()
    error = np.abs(ours - stored).max()
    assert error <= TOLERANCE * scale, f"{name}: {error:.3g} of {scale:.3g}"


# --- The merge ---


def _check_merge(case, arrays):
    known, compared = _dataset(case), 0
    for name, variant in case["variants"].items():
        # What the reference keeps of too many centres depends on its sort: documentation only.
        if name.startswith("keep_3"):
            continue
        scale = variant.get("center_scale", 0.0 if name == "no_centers" else 1.0)
        inputs = (
            arrays["in_semantic_label"],
            arrays["in_center_heatmap"] * np.float32(scale),
            arrays["in_offset"],
        )
        for rule, stored in _stored_maps(case, name, arrays):
            _compare_merge(case, name, inputs, _settings(variant, known, rule), stored)
            compared += 1
    assert compared, f"{case['case']}: nothing to compare"


def _stored_maps(case, name, arrays):
    """Rule and array name -> map, of one variant."""
    if "void_panoptic_id" in case:
        return [("pytorch", {"panoptic": arrays[f"{name}_panoptic"], **_centers(name, arrays)})]
    maps = ("panoptic", "instance", "center", "instance_score")
    stored = {key: arrays[f"{name}_{key}"] for key in maps if f"{name}_{key}" in arrays}
    found = [("tensorflow", {**stored, **_centers(name, arrays)})]
    if f"{name}_panoptic_merge_of_compiled_op" in arrays:
        found.append(("compiled", {"panoptic": arrays[f"{name}_panoptic_merge_of_compiled_op"]}))
    return found


def _centers(name, arrays):
    key = f"{name}_centers_yx"
    return {"centers_yx": arrays[key]} if key in arrays else {}


def _settings(variant: dict, known: dict, rule: str) -> MergeSettings:
    """The case's names for the settings, deeplab2's or the PyTorch release's."""
    read = dict(
        center_threshold=("center_threshold", "threshold"),
        nms_kernel=("nms_kernel",),
        keep_k_centers=("keep_k_centers", "top_k"),
        stuff_area_limit=("stuff_area_limit", "stuff_area"),
    )
    values = {
        ours: variant[theirs]
        for ours, names in read.items()
        for theirs in names
        if theirs in variant
    }
    return MergeSettings(
        known["thing_classes"], known["label_divisor"], known["ignore_label"], rule=rule, **values
    )


def _compare_merge(case, name, inputs, settings, stored):
    semantic, heatmap, offsets = inputs
    batch = semantic[None], heatmap[None, ..., None], offsets[None]
    merged = _compiled(lambda *inputs: panoptic.merge(*inputs, settings))(*batch)
    merged = {key: np.asarray(value)[0] for key, value in merged.items()}
    for key, value in panoptic_numpy.merge(semantic, heatmap, offsets, settings).items():
        np.testing.assert_array_equal(value, merged[key], err_msg=f"{name}: NumPy's {key}")
    positions, scores, count = panoptic_rules.find_centers(panoptic_numpy.OPS, heatmap, settings)
    y, x = np.divmod(positions[:count], heatmap.shape[1])
    peaks = np.zeros_like(heatmap)
    peaks[y, x] = scores[:count]
    labels = merged[keys.PANOPTIC_LABEL]
    if "void_panoptic_id" in case:  # written as it is given, multiple of the divisor or not
        labels = np.where(labels == settings.void_value, case["void_panoptic_id"], labels)
    ours = {
        "panoptic": labels,
        "instance": merged[keys.INSTANCE_MAP],
        "instance_score": merged[keys.INSTANCE_SCORE],
        "center": peaks,
        "centers_yx": np.stack([y, x], axis=-1),
    }
    for key, value in stored.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=f"{name}, {settings.rule}: {key}")


def _compiled(function):
    """As the backend compiles it, sizes unknown where that is possible."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "torch":
        return function
    specs = [
        tf.TensorSpec((None, None, None), tf.int32),
        tf.TensorSpec((None, None, None, 1), tf.float32),
        tf.TensorSpec((None, None, None, 2), tf.float32),
    ]
    compiled = tf.function(function, specs, autograph=False)
    return compiled.get_concrete_function()


_CHECKS = {
    "targets_": _check_targets,
    "losses_": _check_losses,
    "post_processor_": _check_merge,
}
