"""Numbers of the official implementations, reproduced.

pytest tests/golden --golden-dir DIR [-k FAMILY_OR_CASE]
"""

import importlib
import json

import numpy as np
import pytest

# Family -> the module here whose `run_case(case, arrays, path)` raises AssertionError.
FAMILIES = {
    "axial_deeplab": "deeplab2_models",
    "deeplab_v1": "caffe_models",
    "deeplab_v2": "caffe_models",
    "deeplab_tf1": "tf1_semantic",
    "deeplab_tf1_training": "tf1_training",
    "deeplabv3plus_pytorch": "pytorch_models",
    "dense_crf": "dense_crf",
    "kmax_deeplab": "mask_transformers",
    "max_deeplab": "mask_transformers",
    "metrics": "panoptic_metrics",
    "panoptic_deeplab": "deeplab2_models",
    "torchvision": "pytorch_models",
}


def test_case_equals_the_reference(golden_case):
    family = golden_case.parent.name
    if family not in FAMILIES:
        pytest.skip(f"not built: {family}")
    case = json.loads(golden_case.read_text())
    arrays = golden_case.with_suffix(".npz")
    if arrays.exists():
        with np.load(arrays) as archive:
            loaded = {name: archive[name] for name in archive.files}
    else:
        loaded = None
    importlib.import_module(FAMILIES[family]).run_case(case, loaded, golden_case)
