"""Golden cases on the other backends of Keras, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# JAX comes with the tests' requirements; PyTorch, a gigabyte, joins in where it is installed.
BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
# Each family of backbones, and each way to pad, pool and resize.
CASES = (
    *("mobilenet_v2_dm05_voc_os16", "mobilenet_v3_small_seg_os16_even", "decoder_sum_merge"),
    *("mobilenet_edgetpu_slim_cityscapes_os32", "resnet_v1_18_beta_v3plus_os16"),
    *("resnet_v1_50_v3plus_os16", "xception_41_bounded_os16_even"),
    *("xception_41_multi_grid_os8_even", "nas_pnasnet_v3plus_os16"),
    *("nas_hnasnet_classification_head", "deeplabv3_mobilenet_v3_large"),
    *("deeplabv3plus_mobilenet_os16", "deeplabv3plus_resnet50_os8"),
    *("largefov_vgg16_voc", "mobilenet_v3_small_os32", "layer_axial_attention_2d"),
    *("losses_cityscapes_49x65", "post_processor_coco_81x113"),
    *("losses_cityscapes_sampled_aux2", "post_processor_coco_97x129"),
    "post_processor_maskwise_coco_97x129",
)
# A case sets every weight. Drawing them first costs JAX more than the case does: it compiles a
# sampler for each shape.
START = """
import sys
import keras, pytest
from keras.initializers import TruncatedNormal, VarianceScaling
for initializer in (TruncatedNormal, VarianceScaling):
    initializer.__call__ = lambda self, shape, dtype=None, **_: keras.ops.zeros(shape, dtype)
sys.exit(pytest.main(sys.argv[1:]))
"""


# Processes of their own, so that two can run side by side.
PARTS = 3


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_official_numbers_come_out(backend, part):
    root, cases = Path(__file__).parents[2], CASES[part::PARTS]
    result = subprocess.run(
        [sys.executable, "-c", START, "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + ["tests/golden/test_golden.py", "-k", " or ".join(f"{case}]" for case in cases)],
        cwd=root,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            # Each operation runs once: compiling it well takes longer than it saves.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(cases)} passed" in result.stdout
