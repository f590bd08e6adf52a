"""The benchmark of models counts rightly, and says what it leaves out."""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import deeplab_tf as dl
from deeplab_tf.models.macs import count

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "models.py"


@pytest.fixture
def benchmark(monkeypatch):
    # As for a script, which finds its neighbours.
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("benchmark_of_models", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_side_of_ours_predicts_trains_and_is_counted(benchmark):
    options = {"aspp_with_separable_conv": False, "aspp_convs_filters": 8}
    model = dl.DeepLabV3Plus(21, depth_multiplier=0.25, **options)
    options = argparse.Namespace(size=33, batch=2, jit="auto")
    steps = benchmark.KerasSteps(model, options)
    assert steps.macs == count(model, (33, 33)).multiply_adds
    # Its atrous convolutions are kernels of their own, not pieces of a map.
    assert {"Conv2D", "DepthwiseConv2dNative", "ResizeBilinear"} <= set(steps.profile())
    before = model.get_weights()
    steps.forward()
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    steps.train()
    assert not all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_a_library_that_is_not_there_is_named():
    options = ["--size", "32", "--rounds", "1", "--only", "keras-hub"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if importlib.util.find_spec("keras_hub") is None:
        assert "stride 32: left out, keras_hub is not installed" in done.stdout
    else:
        assert "forward" in done.stdout and "train" in done.stdout
