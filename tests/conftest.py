"""Options of the test run, and one quiet TensorFlow for all of it."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# oneDNN's kernels round half as much again as TensorFlow's own. kMaX-DeepLab sums over pixels six
# times, and with a golden case's weights a thousandfold of it comes out.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

ROOT = Path(__file__).parent.parent


def pytest_collection_finish():
    # Each collection would go through all of TensorFlow, and building models makes for many.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=ROOT / "tests" / "golden" / "data",
        help="folder of golden cases: <family>/<case>.json with or without .npz",
    )
    parser.addoption(
        "--pretrained-dir",
        type=Path,
        help="folder with official weights and checks.json, the answers they must give; without "
        "it there are no tests of them",
    )


@pytest.fixture(scope="session")
def tiny_preset(tmp_path_factory) -> Path:
    """A preset folder: a real model of two classes, tiny, with random weights; 32x32."""
    import keras

    import deeplab_tf as dl

    keras.utils.set_random_seed(7)
    model = dl.DeepLabV3(
        2, depth_multiplier=0.1, divisible_by=1, atrous_rates=(), aspp_convs_filters=8
    )
    info = dl.ModelInfo(
        classes=("background", "person"),
        colors=((0, 0, 0), (0, 153, 255)),
        image_size=(32, 32),
        resize="stretch",
    )
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(folder, info)
    return folder


@pytest.fixture(scope="session")
def red_lite_files(tmp_path_factory) -> dict[str, Path]:
    """.tflite files that all find red pixels: class 1 where red is above 128. 24x32 pixels.

    They differ in what goes in and out: "probabilities" (uint8 in), "int8" (quantised within,
    uint8 in and out), "signed" (int8 in and out), "argmax", "logits" (float pixels -1..1) and
    "single" (one map).
    """
    import numpy as np
    import tensorflow as tf

    def logits(image):
        red = (tf.cast(image[..., :1], tf.float32) - 128) / 16
        return tf.concat([-red, red], -1)

    def as_float(image):
        return tf.nn.softmax(logits(image))

    functions = {
        "probabilities": (as_float, tf.uint8),
        "int8": (as_float, tf.float32),
        "signed": (as_float, tf.float32),
        "argmax": (lambda x: tf.argmax(logits(x), -1, output_type=tf.int32), tf.uint8),
        "logits": (lambda x: logits((x + 1) * 127.5), tf.float32),
        "single": (lambda x: tf.sigmoid(2 * logits(x)[..., 1:]), tf.uint8),
    }
    folder, random = tmp_path_factory.mktemp("lite"), np.random.default_rng(0)
    samples = [random.integers(0, 256, (1, 24, 32, 3)).astype(np.float32) for _ in range(4)]
    samples[0][0, 0, 0], samples[0][0, 0, 1] = 0, 255
    files = {}
    for name, (function, pixels) in functions.items():
        signature = tf.TensorSpec((1, 24, 32, 3), pixels, name="image")
        concrete = tf.function(function).get_concrete_function(signature)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        if name in ("int8", "signed"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: [[sample] for sample in samples]
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            kind = tf.uint8 if name == "int8" else tf.int8
            converter.inference_input_type = converter.inference_output_type = kind
        files[name] = folder / f"{name}.tflite"
        files[name].write_bytes(converter.convert())
    return files


@pytest.fixture(scope="session")
def drawn_records(tmp_path_factory) -> Path:
    """Records of 8 training and 4 validation pictures, 32x32: a disc and a bar on dark ground."""
    import numpy as np
    from PIL import Image

    from deeplab_tf.datasets import build_folder

    folder = tmp_path_factory.mktemp("drawn")
    y, x = np.indices((32, 32))
    for index in range(12):
        random = np.random.default_rng(index)
        label = np.zeros((32, 32), np.uint8)
        top, left = random.integers(8, 24, 2)
        label[(y - top) ** 2 + (x - left) ** 2 < 50] = 1
        label[random.integers(0, 28) :][:4] = 2
        label[0] = 255
        image = random.integers(0, 60, (32, 32, 3)).astype(np.uint8)
        image[label == 1, 0] += 150
        image[label == 2, 2] += 150
        for part, array in (("images", image), ("masks", label)):
            (folder / "raw" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / "raw" / part / f"p{index:02d}.png")
    names = [f"p{index:02d}\n" for index in range(12)]
    (folder / "raw" / "train.txt").write_text("".join(names[:8]))
    (folder / "raw" / "val.txt").write_text("".join(names[8:]))
    (folder / "raw" / "classes.csv").write_text(
        "index,name,red,green,blue\n0,ground,0,0,0\n1,disc,255,0,0\n2,bar,0,0,255\n"
    )
    build_folder(folder / "raw", folder / "records", quiet=True)
    return folder / "records"


@pytest.fixture(scope="session")
def disc_folder(tmp_path_factory) -> Path:
    """A folder of 8 training and 4 validation pictures, 33x45: red discs apart, above a blue bar.

    images/, semantic/, instances/ and classes.csv; the upper row isn't labelled.
    """
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("discs") / "discs"
    y, x = np.indices((33, 45))
    for index in range(12):
        random = np.random.default_rng(index)
        label, instance = np.zeros((2, 33, 45), np.uint8)
        label[25 + random.integers(3) :][:4] = 2
        for number, left in enumerate((8, 22, 36)[: 1 + (index + 1) % 3], 1):
            top, radius = random.integers(9, 16), random.integers(4, 7)
            disc = (y - top) ** 2 + (x - left) ** 2 < radius**2
            label[disc], instance[disc] = 1, number
        label[0] = 255
        image = random.integers(0, 60, (33, 45, 3)).astype(np.uint8)
        image[label == 1, 0] += 150
        image[label == 2, 2] += 150
        for part, array in (("images", image), ("semantic", label), ("instances", instance)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / part / f"p{index:02d}.png")
    names = [f"p{index:02d}\n" for index in range(12)]
    (folder / "train.txt").write_text("".join(names[:8]))
    (folder / "val.txt").write_text("".join(names[8:]))
    (folder / "classes.csv").write_text(
        "index,name,thing,red,green,blue\n0,ground,0,0,0,0\n1,disc,1,255,0,0\n2,bar,0,0,0,255\n"
    )
    return folder


@pytest.fixture(scope="session")
def disc_records(disc_folder) -> Path:
    """Records of `disc_folder`."""
    from deeplab_tf.datasets import build_folder

    build_folder(disc_folder, disc_folder.parent / "records", quiet=True)
    return disc_folder.parent / "records"


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory) -> Path:
    """A config file whose run takes seconds."""
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(
        '''"""Small enough for tests."""
from deeplab_tf.datasets import Augment
from deeplab_tf.training.config import ModelConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(
        arguments=dict(
            backbone="mobilenet_v2",
            depth_multiplier=0.25,
            output_stride=32,
            atrous_rates=(),
            aspp_convs_filters=16,
            decoder_filters=16,
            decoder_projection_filters=8,
        )
    ),
    augment=Augment(color=0.5),
    optimizer=OptimizerConfig(learning_rate=0.02),
    image_size=(33, 33),
    batch_size=4,
    steps=6,
    batch_norm_momentum=0.9,
    evaluate_every=3,
    checkpoint_every=1,
)
'''
    )
    return path
