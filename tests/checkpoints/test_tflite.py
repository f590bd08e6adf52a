"""Float TFLite files give their weights back, batch norm folded or not."""

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.checkpoints import tflite
from deeplab_tf.checkpoints.answer import MOST_DIFFERENCE


@pytest.fixture
def copy(tiny_model):
    """The architecture of `tiny_model` with other weights."""
    return type(tiny_model).from_config(tiny_model.get_config())


def test_a_folded_file_gives_the_same_logits(tiny_model, tiny_lite_file, copy):
    loaded = dl.checkpoints.load(copy, tiny_lite_file)
    assert loaded.format == "TFLite"
    assert [variable.path for variable in loaded.variables] == [w.path for w in copy.weights]
    image = np.random.RandomState(1).randint(0, 256, (1, 65, 65, 3)).astype(np.float32)
    expected, found = (np.asarray(m(image, training=False)) for m in (tiny_model, copy))
    assert np.abs(found - expected).max() <= MOST_DIFFERENCE * np.abs(expected).max()


def test_what_the_file_itself_answers_is_what_its_source_does(tiny_model, tiny_lite_file):
    assert tflite.input_size(tiny_lite_file) == (65, 65)
    image = np.random.RandomState(2).randint(0, 256, (1, 65, 65, 3)).astype(np.float32)
    expected = np.asarray(tiny_model(image, training=False))
    found = tflite.run_tflite(tiny_lite_file, image / 127.5 - 1)
    assert np.abs(found - expected).max() <= MOST_DIFFERENCE * np.abs(expected).max()
    with pytest.raises(ValueError, match="isn't float32"):
        tflite.run_tflite(tiny_lite_file, image[:, :64])


def test_the_name_map_says_what_was_made_up(tiny_lite_file, copy):
    sources = {v.path: v.source for v in dl.checkpoints.load(copy, tiny_lite_file).variables}
    assert sources["aspp0/kernel"] == "aspp0/weights"
    assert sources["aspp0.BatchNorm/gamma"] == "sqrt(1 + 1e-05)"
    assert sources["aspp0.BatchNorm/moving_variance"] == "1"


def test_an_atrous_kernel_written_with_its_holes_is_found_again(copy):
    layer = copy.get_layer("MobilenetV2.expanded_conv_15.depthwise")
    rate = layer.dilation_rate[0]
    assert rate > 1
    kernel = np.random.RandomState(0).normal(size=(3, 3, layer.kernel.shape[2], 1))
    wide = np.zeros((2 * rate + 1, 2 * rate + 1, *kernel.shape[2:]))
    wide[::rate, ::rate] = kernel
    np.testing.assert_array_equal(tflite._without_holes(wide, layer), kernel)
    filled = wide + 1
    assert tflite._without_holes(filled, layer) is filled


@pytest.mark.usefixtures("unchanged")
class TestMistakes:
    def test_another_width_is_named_with_both_shapes(self, model, tiny_lite_file):
        with pytest.raises(dl.InputError, match=r"\(3, 3, 3, 8\) instead of \(3, 3, 3, 16\)"):
            dl.checkpoints.load(model, tiny_lite_file)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_a_file_cut_short(self, model, tiny_lite_file, tmp_path, share):
        data = tiny_lite_file.read_bytes()
        path = tmp_path / "cut.tflite"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(dl.InputError, match="cut.tflite") as error:
            dl.checkpoints.load(model, path)
        assert "damaged or cut-off" in str(error.value) and "\n" not in str(error.value)

    def test_a_quantised_file(self, model, tmp_path):
        import tensorflow as tf

        function = tf.function(
            lambda x: tf.nn.conv2d(x, tf.ones((3, 3, 3, 400)), 1, "SAME")
        ).get_concrete_function(tf.TensorSpec((1, 8, 8, 3)))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        (tmp_path / "small.tflite").write_bytes(converter.convert())
        with pytest.raises(dl.InputError, match="quantised or compressed"):
            dl.checkpoints.load(model, tmp_path / "small.tflite")

    def test_a_file_without_the_official_names(self, model, red_lite_files):
        with pytest.raises(dl.InputError, match="aren't named as in the official"):
            dl.checkpoints.load(model, red_lite_files["probabilities"])
