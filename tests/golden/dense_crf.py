"""Cases of the fully connected CRF: Q of the authors' C++ code through its Python binding."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from deeplab_tf.postprocess.crf import CRF_PRESETS, CrfParameters, PictureCrf
from deeplab_tf.postprocess.crf_unary import unary_from_probabilities

TOLERANCE = 1e-3
EQUAL_LABELS = 0.999
# "Q_v1_largefov_gaussian_only_iter1": a parameter set, maybe one kernel of it, iterations.
_NAME = re.compile(r"(Q|argmax)_(?P<set>.+?)(?P<only>_(gaussian|bilateral)_only)?_iter(?P<n>\d+)")
# The sets of the papers, which a case may name without listing them.
_KNOWN = {
    "v1_largefov": CRF_PRESETS["deeplab_v1_large_fov"],
    "v2_voc12_resnet101": CRF_PRESETS["deeplab_v2_resnet_101"],
}


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Infers each stored Q and label map anew."""
    probabilities = arrays["probabilities_float16"].astype(np.float32)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    np.testing.assert_array_equal(probabilities.argmax(-1), arrays["argmax_unary"])
    unary, compared = unary_from_probabilities(probabilities), 0
    for name, stored in arrays.items():
        if not (match := _NAME.fullmatch(name)):
            continue
        parameters = _parameters(case, match["set"], match["only"], int(match["n"]))
        q = PictureCrf(arrays["image"], parameters, threads=1).infer(unary)
        if name.startswith("argmax"):
            equal = (q.argmax(-1) == stored).mean()
            assert equal >= EQUAL_LABELS, f"{name}: {equal:.2%} of the labels are equal"
        else:
            ours = q[_strides(case, name)]
            assert ours.shape == stored.shape, f"{name}: {ours.shape}, stored {stored.shape}"
            error = np.abs(ours - stored).max()
            assert error <= TOLERANCE, f"{name}: {error:.2e}"
        compared += 1
    assert compared, f"{path}: nothing to compare"


def _parameters(case: dict, name: str, only: str | None, iterations: int) -> CrfParameters:
    values = case["parameter_sets"].get(name)
    assert values or name in _KNOWN, f"the case doesn't say what {name} is"
    parameters = _KNOWN.get(name)
    if values:
        parameters = CrfParameters(
            w1=values["bi_w"],
            sigma_alpha=values["bi_xy_std"],
            sigma_beta=values["bi_rgb_std"],
            w2=values["pos_w"],
            sigma_gamma=values["pos_xy_std"],
        )
    if only:
        parameters = dataclasses.replace(parameters, **{"w1" if "gauss" in only else "w2": 0})
    return dataclasses.replace(parameters, iterations=iterations)


def _strides(case: dict, name: str) -> tuple[slice, ...]:
    """Which pixels and classes of Q were stored."""
    details = case["details"]
    key = name.removeprefix("Q_")
    if key not in details:
        key = "gaussian_only" if "gaussian_only" in key else "bilateral_only"
    return tuple(slice(None, None, step) for step in details[key]["Q_strides_hwc"])
