""".tflite files of every kind give the same answer, without TensorFlow in the process."""

import json
import subprocess
import sys
import zipfile

import flatbuffers
import numpy as np
import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.inference.intact import INFO_FILE
from deeplab_tf.inference.litert import LiteRTRunner, _normalization
from deeplab_tf.models.info import ModelInfo

KINDS = ("probabilities", "int8", "signed", "argmax", "logits", "single")


def half_red(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), 30, np.uint8)
    image[:, width // 2 :, 0] = 220
    return image


def with_files(source, target, **files: str):
    """A copy of a .tflite file with an archive behind it."""
    target.write_bytes(source.read_bytes())
    with zipfile.ZipFile(target, "a") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_dot_", "."), text)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_finds_the_red_half(red_lite_files, kind):
    runner = LiteRTRunner(red_lite_files[kind])
    assert runner.size == (24, 32)
    image = half_red(48, 80)
    probabilities = runner.probabilities(image)
    assert probabilities.shape == (48, 80, 2) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-4)
    assert (runner.scores(image).labels() == (image[..., 0] > 128)).mean() > 0.98
    assert probabilities[:, 60:, 1].min() > 0.97 and probabilities[:, :20, 1].max() < 0.03


def test_pixels_reach_the_model_as_they_are(red_lite_files):
    # At 128 +- 8 the model isn't sure: a wrong range of pixels would show.
    image = np.full((24, 32, 3), 136, np.uint8)
    expected = 1 / (1 + np.exp(-1))
    for kind in ("probabilities", "int8", "signed", "logits", "single"):
        found = LiteRTRunner(red_lite_files[kind]).probabilities(image)[..., 1]
        assert np.abs(found - expected).max() < 0.06, kind


def test_float_pixels_take_the_range_that_is_asked_for(red_lite_files):
    image = half_red(24, 32)
    runner = LiteRTRunner(red_lite_files["logits"], pixels=(0.0, 1.0))
    assert runner.pixels == (0.0, 1.0)
    assert runner.probabilities(image)[..., 1].min() > 0.4
    assert LiteRTRunner(red_lite_files["logits"]).pixels == (-1.0, 1.0)
    assert LiteRTRunner(red_lite_files["probabilities"]).pixels is None


def test_labels_come_from_the_archive_behind_the_file(red_lite_files, tmp_path):
    path = with_files(
        red_lite_files["int8"], tmp_path / "a.tflite", labels_dot_txt="background\nred\n"
    )
    info = LiteRTRunner(path).info
    assert info.classes == ("background", "red")
    assert info.image_size == (24, 32) and info.resize == "stretch"
    assert info.colors == ((0, 0, 0), (128, 0, 0))
    assert LiteRTRunner(red_lite_files["int8"]).info.classes == ()


def test_our_own_record_says_all_there_is_to_know(red_lite_files, tmp_path):
    info = ModelInfo(("nothing", "red"), ((0, 0, 0), (9, 9, 9)), image_size=(24, 32), resize="fit")
    record = {INFO_FILE: json.dumps(info.to_json()), "labels.txt": "wrong\n"}
    path = with_files(red_lite_files["logits"], tmp_path / "a.tflite", **record)
    runner = LiteRTRunner(path)
    assert runner.info == info
    # Our files normalise inside, also those that take floats.
    assert runner.pixels == (0.0, 255.0)
    # "fit": a tall picture is padded at the right, and the padding cut off again.
    tall = np.full((96, 24, 3), 200, np.uint8)
    assert runner.scores(tall).values.shape[:2] == (24, 6)


def test_a_broken_record_is_an_error_that_says_so(red_lite_files, tmp_path):
    path = with_files(red_lite_files["int8"], tmp_path / "a.tflite", **{INFO_FILE: "{"})
    with pytest.raises(InputError, match="its record deeplab_tf.json can't be read"):
        LiteRTRunner(path)


def metadata_with_normalization(mean: float, std: float) -> bytes:
    """ModelMetadata > subgraph > input tensor > process unit > NormalizationOptions."""
    b = flatbuffers.Builder(0)

    def table(slots: dict[int, int], kind: int | None = None) -> int:
        b.StartObject(10)
        for slot, offset in slots.items():
            b.PrependUOffsetTRelativeSlot(slot, offset, 0)
        if kind is not None:
            b.PrependUint8Slot(0, kind, 0)
        return b.EndObject()

    def vector(offset: int) -> int:
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    numbers = [b.CreateNumpyVector(np.array([value], np.float32)) for value in (mean, std)]
    unit = table({1: table(dict(enumerate(numbers)))}, kind=1)
    graph = table({2: vector(table({4: vector(unit)}))})
    b.Finish(table({3: vector(graph)}), b"M001")
    return bytes(b.Output())


def with_metadata(path, metadata: bytes) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.metadata = [*(model.metadata or []), entry]
    model.buffers.append(schema.BufferT(data=np.frombuffer(metadata, np.uint8)))
    b = flatbuffers.Builder(0)
    b.Finish(model.Pack(b), b"TFL3")
    return bytes(b.Output())


def test_normalisation_is_read_from_the_metadata_of_others(red_lite_files, tmp_path):
    content = with_metadata(red_lite_files["logits"], metadata_with_normalization(127.5, 127.5))
    path = tmp_path / "a.tflite"
    path.write_bytes(content)
    assert LiteRTRunner(path).pixels == (-1.0, 1.0)
    path.write_bytes(with_metadata(red_lite_files["logits"], metadata_with_normalization(0, 255)))
    assert LiteRTRunner(path).pixels == (0.0, 1.0)


@pytest.mark.parametrize("metadata", [b"", b"\xff" * 64, b"\0" * 64])
def test_metadata_that_cannot_be_read_say_nothing(red_lite_files, metadata):
    assert _normalization(with_metadata(red_lite_files["logits"], metadata)) is None
    assert _normalization(red_lite_files["logits"].read_bytes()) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "isn't a TFLite model"),
        (b"\x89PNG\r\n\x1a\n" * 10, "isn't a TFLite model"),
        (b"\x1c\0\0\0TFL3" + b"\7" * 999, "can't be run"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path, content, reason):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        LiteRTRunner(path)
    assert str(path) in str(caught.value)


def test_a_truncated_model_a_missing_one_and_a_folder_are_named(red_lite_files, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(red_lite_files["int8"].read_bytes()[:900])
    with pytest.raises(InputError, match="model.tflite can't be run .* export it again"):
        LiteRTRunner(path)
    with pytest.raises(InputError, match="no such file"):
        LiteRTRunner(tmp_path / "none.tflite")
    with pytest.raises(InputError, match="is a folder"):
        LiteRTRunner(tmp_path)


@pytest.mark.parametrize(
    ("shape", "answer", "reason"),
    [
        ((1, 8, 8, 1), lambda x: x, "not one RGB picture"),
        ((1, 8, 8, 3), lambda x: x[:, 0, 0, :] * 2, "isn't a segmenter"),
        ((1, None, None, 3), lambda x: x * 2, "no fixed size"),
    ],
)
def test_a_model_of_another_kind_is_refused(tmp_path, shape, answer, reason):
    import tensorflow as tf

    concrete = tf.function(answer).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    path = tmp_path / "other.tflite"
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    path.write_bytes(converter.convert())
    with pytest.raises(InputError, match=reason):
        LiteRTRunner(path)


def fresh(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_nothing_heavy_is_imported_and_nothing_printed(red_lite_files):
    result = fresh(
        "import sys, numpy as np\n"
        "from deeplab_tf import segment\n"
        f"found = segment({str(red_lite_files['int8'])!r}, np.zeros((40, 50, 3), np.uint8))\n"
        "assert found.labels.shape == (40, 50)\n"
        "print([m for m in ('tensorflow', 'keras', 'jax', 'torch') if m in sys.modules])"
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_without_litert_the_error_says_what_to_install(red_lite_files):
    result = fresh(
        "import sys\n"
        "sys.modules['ai_edge_litert'] = None\n"
        "from deeplab_tf.inference.litert import LiteRTRunner\n"
        "from deeplab_tf.errors import InputError\n"
        f"try: LiteRTRunner({str(red_lite_files['int8'])!r})\n"
        "except InputError as error: print(error)"
    )
    assert "pip install ai-edge-litert" in result.stdout, result.stderr


def test_pictures_with_other_classes_go_in_one_batch(red_lite_files, monkeypatch):
    runner = LiteRTRunner(red_lite_files["argmax"])
    maps = iter([np.zeros((24, 32), np.int32), np.full((24, 32), 4, np.int32)])
    one = runner._as_probabilities
    monkeypatch.setattr(runner, "_as_probabilities", lambda output: one(next(maps)))
    found = runner.forward(np.zeros((2, 24, 32, 3), np.uint8))
    assert found.shape == (2, 24, 32, 5) and (found.argmax(-1)[1] == 4).all()
