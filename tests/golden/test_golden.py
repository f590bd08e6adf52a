"""Numbers of the official implementations, reproduced.

pytest tests/golden --golden-dir DIR [-k FAMILY_OR_CASE]
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest


def _load(name: str):
    """A module of this folder; under importlib mode tests don't see their neighbours."""
    full_name = f"deeplab_tf_golden_{name}"
    if full_name not in sys.modules:
        path = Path(__file__).parent / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full_name, path)
        sys.modules[full_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full_name])
    return sys.modules[full_name]


# Family -> the module here whose `run_case(case, arrays, path)` raises AssertionError.
FAMILIES = {
    "deeplab_tf1": "tf1_semantic",
    "deeplab_tf1_training": "tf1_training",
    "deeplabv3plus_pytorch": "pytorch_models",
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
    _load(FAMILIES[family]).run_case(case, loaded, golden_case)
