"""What is no checkpoint at all says what it is."""

import gzip

import pytest

import deeplab_tf as dl

pytestmark = pytest.mark.usefixtures("unchanged")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.tflite", b"not a flatbuffer at all", "isn't a TFLite file"),
        ("model.tflite", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 40, "damaged or cut-off TFLite"),
        ("graph.pb", b"\xff\xd8\xff\xe0 a JPEG", "isn't a frozen TensorFlow graph"),
        ("graph.pb", b"model_checkpoint_path: text", "isn't a frozen TensorFlow graph"),
        ("graph.pb", b"", "is empty"),
        ("graph.pb", b"<!DOCTYPE html><html>404", "is a web page"),
        ("graph.pb", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("model.tar.gz", gzip.compress(b"files", mtime=0), "unpack it"),
        ("model.zip", b"PK\x03\x04 archive", "is a zip archive"),
        ("model.pth", b"PK\x03\x04 archive", "is damaged or cut off"),
        ("model.safetensors", b"\xff\xff\x00\x00\x00\x00\x00\x00{", "is damaged or cut off"),
        ("model.pth", b"\x80\x02}q\x00.", "bare Python pickle"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("notes.txt", b"\x93 nothing of the kind", "none of what can be read"),
    ],
)
def test_a_file_that_is_something_else_is_named(model, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(dl.InputError, match=message) as error:
        dl.checkpoints.load(model, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_path_with_nothing_there_is_named(model, tmp_path):
    for path in (tmp_path / "model.ckpt-1", tmp_path / "no" / "such.index"):
        with pytest.raises(dl.InputError, match="no such file, folder or checkpoint"):
            dl.checkpoints.load(model, path)


def test_a_folder_without_checkpoint_names_the_files_that_could_be_meant(model, tmp_path):
    with pytest.raises(dl.InputError, match=r"no checkpoint \(NAME.index\) in this folder\.$"):
        dl.checkpoints.load(model, tmp_path)
    (tmp_path / "frozen.pb").write_bytes(b"x")
    with pytest.raises(dl.InputError, match="name a file in it: frozen.pb"):
        dl.checkpoints.load(model, tmp_path)


def test_a_bare_read_of_a_missing_checkpoint_is_named(tmp_path):
    from deeplab_tf.checkpoints.tf1 import read_checkpoint

    with pytest.raises(dl.InputError, match="no TensorFlow checkpoint there"):
        read_checkpoint(tmp_path / "model.ckpt")
