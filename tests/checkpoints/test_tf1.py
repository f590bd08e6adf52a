"""TF1 checkpoints: names, files, and what the official code computes with the weights."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.checkpoints import tf1

DATA = Path(__file__).parent.parent / "golden" / "data" / "deeplab_tf1"

NAMES = [
    ("MobilenetV2/Conv/weights", "MobilenetV2.Conv/kernel"),
    ("MobilenetV2/Conv/BatchNorm/moving_mean", "MobilenetV2.Conv.BatchNorm/moving_mean"),
    (
        "MobilenetV2/expanded_conv_3/depthwise/depthwise_weights",
        "MobilenetV2.expanded_conv_3.depthwise/kernel",
    ),
    (
        "MobilenetV2/expanded_conv_3/depthwise/BatchNorm/gamma",
        "MobilenetV2.expanded_conv_3.depthwise.BatchNorm/gamma",
    ),
    ("aspp0/BatchNorm/beta", "aspp0.BatchNorm/beta"),
    ("logits/semantic/weights", "logits.semantic/kernel"),
    ("logits/semantic/biases", "logits.semantic/bias"),
]


@pytest.mark.parametrize(("name", "path"), NAMES)
def test_a_scope_becomes_a_layer_and_back(model, name, path):
    assert tf1.variable_path(name, model) == path
    assert tf1.source_name(path, model) == name
    assert path in {weight.path for weight in model.weights}


def test_fused_separable_convolutions_and_bare_batch_norms_follow_the_same_rule():
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.SeparableConv2D(4, 3, name="cell_1.separable_3x3_1")(x)
    x = keras.layers.BatchNormalization(name="cell_1.bn_sep_3x3_1")(x)
    searched = keras.Model(image, x)
    names = {
        "cell_1/separable_3x3_1/depthwise_weights": "cell_1.separable_3x3_1/depthwise_kernel",
        "cell_1/separable_3x3_1/pointwise_weights": "cell_1.separable_3x3_1/pointwise_kernel",
        "cell_1/separable_3x3_1/biases": "cell_1.separable_3x3_1/bias",
        "cell_1/bn_sep_3x3_1/gamma": "cell_1.bn_sep_3x3_1/gamma",
        "cell_1/bn_sep_3x3_1/beta": "cell_1.bn_sep_3x3_1/beta",
        "cell_1/bn_sep_3x3_1/moving_mean": "cell_1.bn_sep_3x3_1/moving_mean",
        "cell_1/bn_sep_3x3_1/moving_variance": "cell_1.bn_sep_3x3_1/moving_variance",
    }
    assert {tf1.variable_path(name, searched) for name in names} == {
        weight.path for weight in searched.weights
    }
    for name, path in names.items():
        assert tf1.variable_path(name, searched) == path
        assert tf1.source_name(path, searched) == name


@pytest.mark.parametrize(
    ("preset", "case"),
    [
        ("deeplab_v3_mobilenet_v2_voc", "mobilenet_v2_voc_os8"),
        ("deeplab_v3_mobilenet_v2_dm05_voc", "mobilenet_v2_dm05_voc_os16"),
        ("deeplab_v3_mobilenet_v3_large_cityscapes", "mobilenet_v3_large_seg_cityscapes"),
        ("deeplab_v3_mobilenet_v3_small_cityscapes", "mobilenet_v3_small_seg_cityscapes"),
        ("deeplab_v3_plus_mobilenet_v2_ade20k", "mobilenet_v2_ade20k_os16"),
        ("deeplab_v3_mobilenet_edgetpu_cityscapes", "mobilenet_edgetpu_cityscapes_os16"),
        ("deeplab_v3_mobilenet_edgetpu_slim_cityscapes", "mobilenet_edgetpu_slim_cityscapes_os32"),
    ],
)
def test_a_preset_has_exactly_the_variables_of_the_official_graph(preset, case):
    ours = dl.from_preset(preset, load_weights=False)
    official = json.loads((DATA / f"{case}.json").read_text("utf-8"))["variables"]
    found = {tf1.source_name(weight.path, ours): tuple(weight.shape) for weight in ours.weights}
    assert found == {name: tuple(shape) for name, shape, _ in official}


def test_a_checkpoint_gives_the_official_logits(
    make_model, golden_case, golden_weights, checkpoint
):
    case, arrays = golden_case
    ours = make_model(output_stride=16)
    dl.checkpoints.load(ours, checkpoint)
    image = golden_weights.input_image(*case["input"]["shape"][1:3], case["input"]["seed"])
    logits = np.asarray(ours.endpoint_model("logits")(image[None].astype("float32"))["logits"])
    error = np.abs(logits - arrays["logits"]).max() / np.abs(arrays["logits"]).max()
    assert error <= 5e-5


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tf1_arrays):
    """A folder as training leaves it: two steps of a Saver, with its slots and counters."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("trained")
    slots = {
        f"{name}/Momentum": np.full_like(array, 7)
        for name, array in tf1_arrays.items()
        if "moving" not in name
    }
    extra = {
        "aspp0/weights/Adam": np.ones((1, 1, 160, 256), np.float32),
        "aspp0/weights/Adam_1": np.ones((1, 1, 160, 256), np.float32),
        "aspp0/weights/ExponentialMovingAverage": np.ones((1, 1, 160, 256), np.float32),
        "beta1_power": np.float32(0.9),
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.train.get_or_create_global_step()
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=array)
            for name, array in {**tf1_arrays, **slots, **extra}.items()
        }
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        # The first save is of other values, so that a test can tell which one was read.
        session.run(variables["logits/semantic/biases"].assign(np.zeros(21)))
        saver.save(session, str(folder / "model.ckpt"), global_step=9)
        session.run(
            variables["logits/semantic/biases"].assign(tf1_arrays["logits/semantic/biases"])
        )
        session.run(step.assign(10))
        saver.save(session, str(folder / "model.ckpt"), global_step=10)
    return folder


def _assert_equal(model, arrays):
    weights = {tf1.source_name(weight.path, model): np.asarray(weight) for weight in model.weights}
    assert set(weights) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def test_a_saver_checkpoint_loads_whole_without_its_slots(make_model, trained, tf1_arrays):
    ours = make_model()
    loaded = dl.checkpoints.load(ours, trained)
    _assert_equal(ours, tf1_arrays)
    assert len(loaded.variables) == 272
    # 164 trainable variables with a slot, the step, and four more.
    assert len(loaded.left_out) == 164 + 1 + 4
    assert "global_step" in loaded.left_out
    assert loaded.path.endswith("model.ckpt-10")
    assert "272 variables set, 169 left out" in str(loaded)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "checkpoint",
        "model.ckpt-10",
        "model.ckpt-10.index",
        "model.ckpt-10.meta",
        "model.ckpt-10.data-00000-of-00001",
    ],
)
def test_any_name_of_a_checkpoint_will_do(trained, name):
    assert tf1.checkpoint_prefix(trained / name) == str(trained / "model.ckpt-10")
    assert dl.checkpoints.recognise(trained / name) == "TF1 checkpoint"


def test_a_folder_that_was_moved_still_has_its_newest_checkpoint(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "moved")
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/elsewhere/train/model.ckpt-9"\n'
        'all_model_checkpoint_paths: "/elsewhere/train/model.ckpt-10"\n'
    )
    assert tf1.checkpoint_prefix(folder) == str(folder / "model.ckpt-9")


def test_without_a_checkpoint_file_the_highest_step_counts(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "unpacked")
    (folder / "checkpoint").unlink()
    assert tf1.checkpoint_prefix(folder) == str(folder / "model.ckpt-10")


def test_a_checkpoint_file_that_names_something_else_is_named(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "half")
    (folder / "model.ckpt-10.index").unlink()
    with pytest.raises(dl.InputError, match=r"checkpoint names model.ckpt-10, but"):
        tf1.checkpoint_prefix(folder)


@pytest.fixture
def copied(checkpoint, tmp_path):
    """A checkpoint to damage."""
    folder = shutil.copytree(Path(checkpoint).parent, tmp_path / "copied")
    return folder / Path(checkpoint).name


@pytest.mark.usefixtures("unchanged")
class TestDamage:
    def test_data_without_index(self, model, copied):
        Path(f"{copied}.index").unlink()
        for path in (copied, f"{copied}.data-00000-of-00001"):
            with pytest.raises(dl.InputError, match=r"half a checkpoint, model.ckpt-7.index"):
                dl.checkpoints.load(model, path)

    def test_index_without_data(self, model, copied):
        Path(f"{copied}.data-00000-of-00001").unlink()
        with pytest.raises(dl.InputError, match=r"half a checkpoint, model.ckpt-7.data-00000"):
            dl.checkpoints.load(model, copied)

    @pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
    def test_a_file_cut_short(self, model, copied, suffix):
        path = Path(f"{copied}{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(dl.InputError, match="model.ckpt-7: .*incomplete or damaged"):
            dl.checkpoints.load(model, copied)

    def test_a_changed_byte(self, model, copied):
        path = Path(f"{copied}.data-00000-of-00001")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(dl.InputError, match="incomplete or damaged"):
            dl.checkpoints.load(model, copied)

    def test_a_tf2_checkpoint(self, model, tmp_path):
        import tensorflow as tf

        prefix = tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
        with pytest.raises(dl.InputError, match="TF2"):
            dl.checkpoints.load(model, prefix)
