"""Cases of the metrics: panoptic quality, mean IoU and instance AP of deeplab2's code."""

import itertools
import math
from pathlib import Path

import numpy as np

from deeplab_tf.metrics.instance_ap import InstanceAP, instance_scores
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.metrics.panoptic_quality import PanopticQuality

# What is stored was summed up in float32.
TOLERANCE = 1e-6
# The reference sums the scores of an instance's pixels one after the other in float32.
SCORE_TOLERANCE = 1e-5


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Scores the stored pictures anew; each stored number and array must come out."""
    run = _instances if "result_12" in arrays else _segments
    # Inputs are `in_*`; what is left of the others at the end was not compared.
    left = {name: stored for name, stored in arrays.items() if not name.startswith("in_")}
    assert left, f"{path}: nothing to compare"
    run(case, arrays, left)
    assert not left, f"{path}: not compared: {', '.join(left)}"


def _pictures(arrays) -> list[str]:
    """Numbers of the stored pictures."""
    indices = itertools.takewhile(lambda n: f"in_truth_{n}" in arrays, itertools.count())
    return [str(n) for n in indices]


def _close(name: str, ours, stored, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(ours, stored, rtol=tolerance, atol=tolerance, err_msg=name)


# --- Panoptic quality and mean IoU ---


def _segments(case: dict, arrays, left) -> None:
    total, pixels = _quality(case), ConfusionMatrix(case["num_classes"], case["ignore_label"])
    for n in _pictures(arrays):
        truth, prediction = arrays[f"in_truth_{n}"], arrays[f"in_prediction_{n}"]
        one = _quality(case)
        one.update(truth, prediction)
        total += one
        for name in ("iou_sum", "tp", "fn", "fp"):
            stored = left.pop(f"image{n}_{name}")
            _close(f"image{n}_{name}", getattr(one, name), stored)
        pixels.update(truth // case["label_divisor"], arrays[f"in_semantic_prediction_{n}"])

    all_, present = total.all, total.present
    ours = {
        "total_iou": total.iou_sum,
        "total_tp": total.tp,
        "total_fn": total.fn,
        "total_fp": total.fp,
        "per_class_pq": np.nan_to_num(total.class_pq),
        "per_class_sq": np.nan_to_num(total.class_sq),
        "per_class_rq": np.nan_to_num(total.class_rq),
        "result_pq_sq_rq_tp_fn_fp": [
            *(all_.pq, all_.sq, all_.rq),
            *(counts[present].mean() for counts in (total.tp, total.fn, total.fp)),
        ],
        "confusion_matrix": pixels.matrix,
        # There, a class that is only predicted has 0.
        "deeplab_pytorch_class_iou_nan_as_minus1": np.where(
            pixels.present, np.nan_to_num(pixels.class_iou), -1
        ),
    }
    for name, value in ours.items():
        _close(name, value, left.pop(name))
    _results(dict(case["results"]), total, pixels)


def _quality(case: dict) -> PanopticQuality:
    return PanopticQuality(
        case["num_classes"], case["thing_class_ids"], case["label_divisor"], case["ignore_label"]
    )


def _results(results: dict, total: PanopticQuality, pixels: ConfusionMatrix) -> None:
    for name, quality in (("pq_things", total.things), ("pq_stuff", total.stuff)):
        stored = results.pop(name)
        if stored is None or math.isnan(stored):  # the mean of no class
            assert not quality.classes, name
        else:
            _close(name, quality.pq, stored)
    assert results.pop("valid_classes") == np.flatnonzero(total.present).tolist()
    for name in ("mean_iou_keras_as_in_deeplab2", "mean_iou_over_classes_with_any_pixel"):
        _close(name, pixels.mean_iou, results.pop(name))

    matrix = pixels.matrix
    labelled = matrix.sum(axis=1) > 0
    recall = np.diag(matrix)[labelled] / matrix.sum(axis=1)[labelled]
    iou = pixels.class_iou[labelled]
    scores = {
        "Pixel Accuracy": np.trace(matrix) / matrix.sum(),
        "Mean Accuracy": recall.mean(),
        "Frequency Weighted IoU": (pixels.pixel_share[labelled] * iou).sum(),
        "Mean IoU": iou.mean(),
    }
    stored = results.pop("deeplab_pytorch_scores")
    assert scores.keys() == stored.keys()
    for name, value in scores.items():
        _close(name, value, stored[name])
    assert not results, f"not compared: {', '.join(results)}"


# --- Instance AP ---


def _instances(case: dict, arrays, left) -> None:
    total = InstanceAP(case["thing_class_ids"], case["label_divisor"])
    for n in _pictures(arrays):
        prediction = arrays[f"in_prediction_{n}"]
        maps = {
            "class_probability": _probability(case, prediction, arrays[f"in_confidence_{n}"]),
            "instance_score": arrays[f"in_instance_score_{n}"],
        }
        divisor = case["label_divisor"]
        scores = instance_scores(prediction, **maps, label_divisor=divisor)
        scores = {k: v for k, v in scores.items() if k // divisor != case["ignore_label"]}
        assert list(scores) == left.pop(f"instance_labels_{n}").tolist()
        name = f"instance_scores_{n}"
        _close(name, list(scores.values()), left.pop(name), SCORE_TOLERANCE)
        # As in deeplab2: what isn't marked is no crowd.
        crowd = arrays.get(f"in_is_crowd_{n}", np.zeros_like(prediction))
        total.update(arrays[f"in_truth_{n}"], prediction, **maps, crowd=crowd)
    _close("result_12", list(total.result().values()), left.pop("result_12"))


def _probability(case: dict, prediction: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Probabilities [H, W, C] of the case: 0.05 is shared by all classes but one."""
    count = case["num_classes"]
    classes = np.clip(prediction // case["label_divisor"], 0, count - 1)
    others = np.float32(0.05 / (count - 1))
    return np.where(np.arange(count) == classes[..., None], confidence[..., None], others)
