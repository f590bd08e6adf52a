"""Labels and metadata inside the file."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import deeplab_tf as dl
from deeplab_tf.errors import InputError
from deeplab_tf.export.benchmark import LiteModel
from deeplab_tf.export.metadata import add_metadata, class_names, read_metadata
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.models.info import ModelInfo

INFO = ModelInfo(
    classes=("background", "Straße"),
    colors=((0, 0, 0), (128, 64, 128)),
    image_size=(16, 24),
    resize="fit",
    source="Drawn by hand.",
    license="CC0",
    metrics={"mean_iou": 0.5},
)


def lite_model(dtype) -> bytes:
    """A file that takes [1, 16, 24, 3] of a type: two classes by brightness."""

    def answer(image):
        light = tf.reduce_mean(tf.cast(image, tf.float32), -1, keepdims=True) / 255.0
        # Constants of odd lengths: alignment has something to do.
        noise = tf.constant(np.linspace(0, 1e-3, 24, dtype=np.float32))[:, None]
        return {"probabilities": tf.concat([1 - light, light], -1) + noise}

    function = tf.function(answer).get_concrete_function(
        tf.TensorSpec((1, 16, 24, 3), dtype, name="image")
    )
    return tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()


@pytest.fixture(scope="module")
def plain():
    return lite_model(tf.uint8)


@pytest.fixture(scope="module")
def labelled(plain):
    return add_metadata(plain, INFO, INFO.classes, name="tiny")


def test_what_is_written_is_read_again(labelled):
    found = read_metadata(labelled)
    assert found.labels == INFO.classes
    assert found.info == INFO
    assert (found.name, found.description, found.license) == ("tiny", "Drawn by hand.", "CC0")
    # The softmax is in the graph and raw bytes go in: nothing is left to do outside.
    assert found.activation == "none"
    assert found.mean is None and found.std is None


def test_float_pixels_get_the_normalisation_that_changes_nothing():
    found = read_metadata(add_metadata(lite_model(tf.float32), INFO, INFO.classes, name="tiny"))
    assert found.mean == (0.0,) and found.std == (1.0,)


def test_a_label_map_does_not_pose_as_a_segmenter(plain):
    found = read_metadata(add_metadata(plain, INFO, INFO.classes, name="tiny", segmenter=False))
    assert found.activation is None
    assert found.labels == INFO.classes


def test_the_model_still_gives_the_same_numbers(plain, labelled, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    answers = []
    for name, content in (("plain", plain), ("labelled", labelled)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        answers.append(LiteModel(path).run(picture))
    np.testing.assert_array_equal(*answers)


def test_predict_finds_its_record_in_the_file(labelled, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(labelled)
    assert LiteRTRunner(path).info == INFO


def test_constants_start_at_multiples_of_sixteen(labelled):
    model = schema.Model.GetRootAsModel(labelled, 0)
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            data = buffer.DataAsNumpy()
            start = data.__array_interface__["data"][0]
            whole = np.frombuffer(labelled, np.uint8).__array_interface__["data"][0]
            assert (start - whole) % 16 == 0


def test_the_archive_is_stored_as_it_is_and_the_same_each_time(plain, labelled):
    with zipfile.ZipFile(io.BytesIO(labelled)) as archive:
        assert archive.read("labels.txt").decode() == "background\nStraße\n"
        # Readers map the file into memory; they refuse compressed entries.
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert add_metadata(plain, INFO, INFO.classes, name="tiny") == labelled


def test_classes_without_a_name_are_called_by_their_value():
    assert class_names(INFO, 3) == ("background", "Straße", "class_2")
    assert class_names(ModelInfo(), 2) == ("class_0", "class_1")


def test_a_file_without_metadata_says_so(plain):
    with pytest.raises(dl.InputError, match="no metadata"):
        read_metadata(plain)


def test_broken_metadata_are_an_error_not_a_crash(labelled):
    start = labelled.index(b"M001")
    broken = labelled[: start + 8] + b"\xff" * 64 + labelled[start + 72 :]
    with pytest.raises(InputError, match="can't be read"):
        read_metadata(broken)
