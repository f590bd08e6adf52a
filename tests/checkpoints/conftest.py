"""Small official-looking files: TF1 names from a golden case, weights from its generator."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from source_files import write_checkpoint

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
CASE = GOLDEN / "data" / "deeplab_tf1" / "mobilenet_v2_dm05_voc_os16.json"


def pytest_ignore_collect(collection_path, config):
    """Without the official files there is nothing to say about them."""
    missing = config.getoption("--pretrained-dir") is None
    return True if missing and collection_path.name == "test_pretrained.py" else None


def _module(path):
    """A file beside the tests, which lie in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_weights():
    """The module that makes weights from names."""
    return _module(GOLDEN / "weights.py")


@pytest.fixture(scope="session")
def golden_case():
    """What the official code computed with those weights: its JSON, and its arrays."""
    with np.load(CASE.with_suffix(".npz")) as arrays:
        return json.loads(CASE.read_text("utf-8")), dict(arrays)


@pytest.fixture(scope="session")
def tf1_arrays(golden_case, golden_weights):
    """TF1 name -> array: a MobileNetV2 of half width with 21 classes."""
    case, _ = golden_case
    gain = case["weights"]["gain"]
    return {
        name: golden_weights.make(name, shape, kind, gain)
        for name, shape, kind in case["variables"]
    }


@pytest.fixture(scope="session")
def make_model():
    """Builds the architecture of `tf1_arrays`."""
    import deeplab_tf as dl

    def make(num_classes=21, **options):
        options = {"depth_multiplier": 0.5, "atrous_rates": (), **options}
        return dl.DeepLabV3(num_classes, **options)

    return make


@pytest.fixture(scope="session")
def model(make_model):
    """One to load into; a test that depends on its weights makes its own."""
    return make_model()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tf1_arrays):
    """A small prefix to look at; don't write beside it."""
    return write_checkpoint(tmp_path_factory.mktemp("plain") / "model.ckpt-7", tf1_arrays)


def weights_of(model):
    """Path -> array, copied."""
    return {weight.path: np.asarray(weight).copy() for weight in model.weights}


@pytest.fixture
def unchanged(model):
    """Fails if the test changes a weight of `model`."""
    before = weights_of(model)
    yield
    after = weights_of(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)


@pytest.fixture(scope="session")
def tiny_model():
    """Small enough to become a graph and a TFLite file; its batch norms do something."""
    import deeplab_tf as dl

    model = dl.DeepLabV3(
        3, depth_multiplier=0.25, output_stride=8, atrous_rates=(), aspp_convs_filters=8
    )
    random = np.random.RandomState(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean", "bias")):
            weight.assign(random.normal(0, 0.3, weight.shape))
        else:
            fan_in = np.prod(weight.shape[:2] if weight.shape[3] == 1 else weight.shape[:3])
            weight.assign(random.normal(0, 1.4 / np.sqrt(fan_in), weight.shape))
    return model


@pytest.fixture(scope="session")
def tiny_config(tiny_model, tmp_path_factory):
    """A JSON file that describes `tiny_model`."""
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    config = {
        "class_name": "DeepLabV3",
        "arguments": tiny_model.get_config(),
        "info": {
            "classes": ["background", "cat", "dog"],
            "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
            "image_size": [65, 65],
            "resize": "fit",
        },
    }
    path.write_text(json.dumps(config), "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_lite_file(tiny_model, tmp_path_factory):
    """`tiny_model` as an official float TFLite file: batch norm folded, tensors named by scope."""
    files = _module(HERE / "official_files.py")
    return files.write_lite_file(tmp_path_factory.mktemp("lite") / "tiny.tflite", tiny_model, 65)


@pytest.fixture(scope="session")
def tiny_graph_file(tiny_model, tmp_path_factory):
    """`tiny_model` as the official export freezes it: ImageTensor in, SemanticPredictions out."""
    files = _module(HERE / "official_files.py")
    return files.write_frozen_graph(tmp_path_factory.mktemp("graph") / "tiny.pb", tiny_model, 65)
