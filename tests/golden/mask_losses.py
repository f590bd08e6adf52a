"""Cases of the mask transformers' losses: values, gradients, matching and drawn pixels."""

import re
from pathlib import Path

import numpy as np
from keras import ops
from panoptic_parts import _array, _close, _dataset, _values_and_gradients

from deeplab_tf import keys
from deeplab_tf.datasets.targets import mask_targets
from deeplab_tf.losses.instance_discrimination import sample_pixels
from deeplab_tf.losses.mask_targets import read_masks
from deeplab_tf.losses.mask_transformer import MaskTransformerLoss
from deeplab_tf.losses.matching import solve
from deeplab_tf.models.mask_classes import class_order

_OUTPUTS = (keys.PIXEL_FEATURE, keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS, keys.SEMANTIC_LOGITS)
# Ours -> theirs.
_TERMS = {
    "pq_class": "pq_style_loss_class_term",
    "pq_dice": "pq_style_loss_mask_dice_term",
    "mask_id": "mask_id_cross_entropy_loss",
    "instance": "instance_discrimination_loss",
    "semantic": "semantic_loss",
}
_WEIGHTS = {
    "semantic_weight": "semantic_loss",
    "pq_weight": "pq_style_loss",
    "mask_id_weight": "mask_id_cross_entropy_loss",
    "instance_weight": "instance_discrimination_loss",
}


class _StoredDraw(MaskTransformerLoss):
    """The loss, drawing what a case has stored, for every output the same."""

    stored = None

    def uniform(self, shape):
        return ops.convert_to_tensor(self.stored)


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """All that a case has stored."""
    targets = _targets(case, arrays)
    outputs = {name: _array(arrays, f"in_{name}") for name in _OUTPUTS}
    auxiliary = [
        _array(arrays, f"in_aux{i}_{keys.PIXEL_FEATURE}")
        for i in range(case["settings"]["auxiliary_outputs"])
    ]
    answers = _answers(case, outputs, auxiliary)
    loss = _loss(case)
    loss.stored = arrays.get("in_gumbel_uniform")

    def run(outputs):
        # The stored gradients are the main answer's.
        terms = loss.terms(targets, {**outputs, **answers})
        return terms, sum(terms.values())

    terms, total, gradients = _values_and_gradients(run, outputs)
    for name, value in terms.items():
        *_, number, term = re.fullmatch(r"(auxiliary_(\d+)_)?(\w+)", name).groups()
        _close(arrays, f"loss_{f'aux_{number}' if number else ''}{_TERMS[term]}", value)
    _close(arrays, "loss_total_loss", total)
    assert len(terms) + 1 == sum(name.startswith("loss_") for name in arrays), [*terms]
    for name, gradient in gradients.items():
        steps = arrays[f"grad_{name}_strides"]
        _close(arrays, f"grad_{name}", gradient[tuple(slice(None, None, n) for n in steps)])
    _check_matching(arrays)
    if loss.stored is not None:
        _check_draw(loss, targets, outputs, arrays)


def _targets(case, arrays) -> dict[str, np.ndarray]:
    """Made from the stored labels, the things as they are stored."""
    known, settings = _dataset(case), case["settings"]
    order = class_order(known["num_classes"], known["thing_classes"], known["ignore_label"])
    assert [*order] == case["thing_stuff_class_ids_order"]
    made = [
        mask_targets(
            arrays[f"in_panoptic_label_{i}"],
            label_divisor=known["label_divisor"],
            thing_classes=known["thing_classes"],
            max_thing_id=settings["max_thing_id"],
        )
        for i in range(settings["batch"])
    ]
    targets = {key: np.stack([np.asarray(one[key]) for one in made]) for key in made[0]}
    for key in (keys.THING_ID_MASK, keys.THING_ID_CLASS):
        np.testing.assert_array_equal(targets[key], arrays[f"in_{key}"], err_msg=key)
    assert (targets[keys.SEMANTIC_WEIGHT] == 1).all()
    return targets


def _loss(case) -> _StoredDraw:
    """From the options' text format: blocks of `name { key: value ... }`."""
    blocks = re.findall(r"(\w+)\s*\{([^{}]*)\}", case["loss_options"])
    options = {name: dict(re.findall(r"(\w+)\s*:\s*\"?([\w.+-]+)", body)) for name, body in blocks}
    assert options["semantic_loss"].get("name") == "softmax_cross_entropy"
    for name, values in options.items():
        known = {"name", "weight", "top_k_percent"} if name == "semantic_loss" else {"weight"}
        assert set(values) <= known, f"{name} is {values}"
    settings = {
        ours: float(options[theirs].get("weight", 1.0)) if theirs in options else 0.0
        for ours, theirs in _WEIGHTS.items()
    }
    drawn = dict(
        re.findall(
            r"instance_discrimination_(sample_\w+)\s*:\s*([\w.+-]+)", case["max_deeplab_options"]
        )
    )
    known = _dataset(case)
    return _StoredDraw(
        known["num_classes"],
        known["thing_classes"],
        known["ignore_label"],
        top_k_percent_pixels=float(options["semantic_loss"].get("top_k_percent", 1.0)),
        instance_sample_k=int(drawn.get("sample_k", 0)),
        instance_sample_temperature=float(drawn.get("sample_temperature", 0.6)),
        **settings,
    )


def _answers(case, outputs: dict, features: list) -> dict:
    """The auxiliary ones: the main one's logits scaled, and features of their own."""
    answers = {}
    for i, feature in enumerate(features):
        answers[keys.AUXILIARY.format(i, keys.PIXEL_FEATURE)] = feature
        for key in (keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS):
            scale = case["settings"]["auxiliary_scales"][i]
            answers[keys.AUXILIARY.format(i, key)] = outputs[key] * np.float32(scale)
    return answers


def _check_matching(arrays):
    """The stored match of the stored costs; those of absent masks are 999 or -999."""
    cost, stored = arrays["hungarian_cost"], arrays["hungarian_match"]
    present = np.abs(cost).max(axis=-1) < 2
    ours = solve(cost, present)
    np.testing.assert_array_equal(ours[present], stored[present])


def _check_draw(loss, targets, outputs, arrays):
    """The pixels, in their order."""
    config = loss.get_config()
    classes = {key: config[key] for key in ("num_classes", "thing_classes", "ignore_label")}
    masks = read_masks(targets, outputs[keys.MASK_LOGITS].shape[1:3], **classes)
    drawn = sample_pixels(
        masks, config["instance_sample_k"], config["instance_sample_temperature"], loss.stored
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(drawn), arrays["sample_indices"])
