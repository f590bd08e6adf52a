"""`deeplab-tf convert` on files that hold the cases' weights: the cases' numbers come out.

pytest tests/golden --golden-dir DIR -k convert
"""

import json
import re
import tempfile
from pathlib import Path

import caffe_models
import deeplab2_models
import mask_transformers
import numpy as np
import pytest
import pytorch_models
import tf1_semantic
from click.testing import CliRunner
from source_files import write_checkpoint, write_object_checkpoint, write_state_dict

import deeplab_tf as dl
from deeplab_tf.cli import main

FAMILIES = {
    "axial_deeplab": deeplab2_models,
    "kmax_deeplab": mask_transformers,
    "max_deeplab": mask_transformers,
    "panoptic_deeplab": deeplab2_models,
    "deeplab_tf1": tf1_semantic,
    "deeplab_v1": caffe_models,
    "deeplab_v2": caffe_models,
    "deeplabv3plus_pytorch": pytorch_models,
    "torchvision": pytorch_models,
}
# Of the cases stored here, one for each kind of network and of name; of another folder's, all.
STORED = Path(__file__).parent / "data"
A_FEW = (
    "resnet_v1_18_beta_v3plus_os16",
    "xception_41_multi_grid_os8_even",
    "dpc_pyramid_pooling",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3plus_mobilenet_os16",
    "deeplabv2s_resnet101_msc_voc",
    "mobilenet_v3_small_os32",
    "max_deeplab_s_backbone_os16",
)
OBJECT_BASED = (deeplab2_models, mask_transformers)
TENSORFLOW = (tf1_semantic, *OBJECT_BASED)


def takes_case(path: Path) -> bool:
    if path.parent.name not in FAMILIES or "variables" not in json.loads(path.read_text("utf-8")):
        return False
    return path.stem in A_FEW or path.parents[1] != STORED


@pytest.fixture
def folder():
    """Emptied at once: with slots, a checkpoint takes half a gigabyte."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write(path: Path, folder: Path, change=lambda name, array: {name: array}) -> list[str]:
    """Writes a case's variables as their source does, and says how to convert them."""
    family, case = FAMILIES[path.parent.name], json.loads(path.read_text("utf-8"))
    arrays = {}
    for name, array in family.variables(case).items():
        arrays |= change(name, array)
    if family is tf1_semantic:
        source = write_checkpoint(folder / "model.ckpt-7", _with_slots(arrays))
    elif family in OBJECT_BASED:
        source = write_object_checkpoint(folder / "ckpt-60000", arrays)
    else:
        source = write_state_dict(folder / "model.pth", _with_counters(arrays))
    config = folder / "model.json"
    config.write_text(json.dumps(family.describe_model(case)), "utf-8")
    return ["convert", source, "--model", str(config), "--out", str(folder / "preset")]


def _with_slots(arrays: dict) -> dict:
    """As training leaves them: a slot for each variable that it changes, and the step."""
    learnt = [name for name in arrays if "/moving_" not in name]
    slots = {f"{name}/Momentum": np.full_like(arrays[name], 7) for name in learnt}
    return {**arrays, **slots, "global_step": np.int64(30000)}


def _with_counters(arrays: dict) -> dict:
    counters = {n: a.astype("int64") for n, a in arrays.items() if n.endswith("batches_tracked")}
    return {**arrays, **counters}


def test_the_numbers_of_a_case_come_out_of_its_preset(golden_case, folder):
    result = CliRunner().invoke(main, _write(golden_case, folder))
    assert result.exit_code == 0, result.output
    assert "Nothing missing, nothing extra." in result.output
    case = json.loads(golden_case.read_text("utf-8"))
    report = json.loads((folder / "preset" / "report.json").read_text("utf-8"))
    weights = {name for name, _, kind in case["variables"] if kind != "zero"}
    assert {variable["source"] for variable in report["variables"]} == weights
    with np.load(golden_case.with_suffix(".npz")) as arrays:
        model = dl.from_preset(folder / "preset")
        FAMILIES[golden_case.parent.name].compare(model, case, dict(arrays))


def test_a_variable_renamed_removed_or_transposed_is_named(golden_case, folder):
    # The axes of channels, by which most kernels aren't square.
    axes = (2, 3) if FAMILIES[golden_case.parent.name] in TENSORFLOW else (0, 1)
    variables = json.loads(golden_case.read_text("utf-8"))["variables"]
    kernels = [n for n, s, _ in variables if len(s) == 4 and s[axes[0]] != s[axes[1]]]
    renamed, removed, transposed = (kernels[len(kernels) * i // 4] for i in (1, 2, 3))

    def change(name, array):
        if name == renamed:
            return {f"{name}_2": array}
        if name == transposed:
            array = np.ascontiguousarray(array.swapaxes(*axes))
        return {} if name == removed else {name: array}

    arguments = _write(golden_case, folder, change)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {arguments[1]} doesn't fit ")
    assert len(result.stderr.splitlines()) == 1
    _, missing, extra, misshapen = re.split(r"\d+ (?:missing|that|of another)", result.stderr)
    assert f"{renamed} (is it {renamed}_2?)" in missing and removed in missing
    assert extra == f" the model doesn't have: {renamed}_2. "
    assert misshapen.startswith(f" shape: {transposed} (") and "(transposed?)" in misshapen
    assert not (folder / "preset").exists()
