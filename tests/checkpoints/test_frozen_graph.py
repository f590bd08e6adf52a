"""Frozen graphs: constants with the names of variables, and a graph that runs."""

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.checkpoints import frozen_graph, tf1


def _write(path, arrays):
    """A graph of nothing but constants."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        for name, array in arrays.items():
            tf.constant(array, name=name)
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def test_the_constants_of_a_graph_are_the_weights(make_model, tf1_arrays, tmp_path):
    others = {"mul/x": np.float32(2), "ResizeBilinear/size": np.array([65, 65], np.int32)}
    path = _write(tmp_path / "frozen_inference_graph.pb", {**others, **tf1_arrays})
    ours = make_model()
    loaded = dl.checkpoints.load(ours, path)
    assert loaded.format == "frozen graph" and len(loaded.variables) == 272
    for weight in ours.weights:
        name = tf1.source_name(weight.path, ours)
        np.testing.assert_array_equal(np.asarray(weight), tf1_arrays[name], err_msg=name)


def test_a_graph_is_known_by_its_content_not_its_name(make_model, tf1_arrays, tmp_path):
    path = _write(tmp_path / "graph.bin", tf1_arrays)
    assert len(dl.checkpoints.load(make_model(), path).variables) == 272


@pytest.mark.usefixtures("unchanged")
class TestMistakes:
    def test_a_folded_graph_lacks_its_batch_norms(self, model, tf1_arrays, tmp_path):
        folded = {name: array for name, array in tf1_arrays.items() if "BatchNorm" not in name}
        path = _write(tmp_path / "folded.pb", folded)
        with pytest.raises(dl.InputError, match="216 missing: MobilenetV2/Conv/BatchNorm/gamma"):
            dl.checkpoints.load(model, path)

    def test_a_graph_without_variables(self, model, tmp_path):
        path = _write(tmp_path / "graph.pb", {"some/constant": np.zeros(3)})
        with pytest.raises(dl.InputError, match="none of this graph's constants is named like"):
            dl.checkpoints.load(model, path)

    def test_a_quantised_graph(self, model, tmp_path):
        import tensorflow as tf

        with tf.Graph().as_default() as graph:
            weights = tf.constant(np.zeros((1, 1, 2, 2), np.float32), name="aspp0/weights")
            tf.quantization.fake_quant_with_min_max_args(weights)
        (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
        with pytest.raises(dl.InputError, match="is quantised"):
            dl.checkpoints.load(model, tmp_path / "graph.pb")

    def test_half_a_graph(self, model, tf1_arrays, tmp_path):
        path = _write(tmp_path / "graph.pb", tf1_arrays)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(dl.InputError, match="isn't a frozen TensorFlow graph"):
            dl.checkpoints.load(model, path)


def test_a_graph_that_is_no_official_export_cannot_be_run(tf1_arrays, tmp_path):
    path = _write(tmp_path / "graph.pb", tf1_arrays)
    with pytest.raises(ValueError, match="no ImageTensor"):
        frozen_graph.run_frozen_graph(path, np.zeros((8, 8, 3), np.uint8))


def test_a_graph_as_the_official_export_leaves_it_loads_and_runs(tiny_model, tiny_graph_file):
    copy = type(tiny_model).from_config(tiny_model.get_config())
    dl.checkpoints.load(copy, tiny_graph_file)
    for weight, expected in zip(copy.weights, tiny_model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))
    image = np.random.RandomState(0).randint(0, 256, (50, 61, 3)).astype(np.uint8)
    labels, crop = frozen_graph.run_frozen_graph(tiny_graph_file, image)
    assert crop == (65, 65) and labels.shape == (50, 61)
    padded = np.full((1, 65, 65, 3), 127.5, np.float32)
    padded[0, :50, :61] = image
    expected = np.asarray(copy(padded, training=False))[0, :50, :61].argmax(-1)
    assert np.mean(labels == expected) > 0.999
