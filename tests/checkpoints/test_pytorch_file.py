"""PyTorch's files give their tensors, and never run anything.

The files in `torch_files` were written by PyTorch 2.13.
"""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.checkpoints import PYTORCH, recognise
from deeplab_tf.checkpoints.pytorch_file import read_state_dict

FILES = Path(__file__).parent / "torch_files"
PICKLED = "archive/data.pkl"


@pytest.mark.parametrize("name", ["state_dict.pth", "state_dict_old.pth"])
def test_tensors_of_every_kind_come_out(name):
    assert recognise(FILES / name) == PYTORCH
    arrays = read_state_dict(FILES / name)
    assert {key: array.tolist() for key, array in arrays.items()} == {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "transposed": [[0, 3], [1, 4], [2, 5]],
        "shared": [[5, 6], [9, 10], [13, 14]],
        "parameter": [1.5, -2.5],
        "half": [0.5, -1.0],
        "bfloat": [0.5, -1.0, 3.0],
        "double": [0.1],
        "counter": 7,
        "empty": [],
    }
    assert arrays["bfloat"].dtype == np.float32 and arrays["empty"].shape == (0, 3)


@pytest.mark.parametrize("name", ["training.pth", "training_old.pth"])
def test_the_state_dict_is_found_beside_an_optimiser_and_a_score(name):
    arrays = read_state_dict(FILES / name)
    assert {key: array.shape for key, array in arrays.items()} == {
        "weight": (1, 1, 1, 1),
        "bias": (1,),
    }


def test_a_pickled_model_is_code_and_says_what_to_save_instead():
    path = FILES / "whole_model.pth"
    with pytest.raises(dl.InputError, match=r"holds Python code .*Conv2d.*nothing of it was run"):
        read_state_dict(path)


class _Attack:
    """Pickled, it writes a file when it is opened by Python's own reader."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def _archive(path, pickled: bytes, compression=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(PICKLED, pickled)
        for name, data in entries.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", data)
    return path


@pytest.mark.parametrize("kind", ["new", "old", "bare"])
def test_code_in_a_file_never_runs(kind, tmp_path):
    marker, path = tmp_path / "run", tmp_path / "model.pth"
    attack = pickle.dumps({"weight": _Attack(marker)}, protocol=2)
    pickle.loads(attack)["weight"].close()
    assert marker.exists(), "else this test says nothing"
    marker.unlink()
    if kind == "new":
        _archive(path, attack)
    elif kind == "old":
        whole = (FILES / "state_dict_old.pth").read_bytes()
        path.write_bytes(whole[: whole.index(b".") + 1] + attack)
    else:
        path.write_bytes(attack)
    with pytest.raises(dl.InputError, match="(nothing of it was run|not opened)") as error:
        recognise(path)
        read_state_dict(path)
    assert not marker.exists()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.getattr", "collections.namedtuple"]
)
def test_only_what_makes_tensors_can_be_named(name, tmp_path):
    module, function = name.rsplit(".", 1)
    pickled = f"c{module}\n{function}\n(S'1'\ntR.".encode()
    path = _archive(tmp_path / "model.pth", pickled)
    with pytest.raises(dl.InputError, match=rf"holds Python code \({name}\)"):
        read_state_dict(path)


def test_a_torchscript_program_is_named(tmp_path):
    path = _archive(tmp_path / "model.pt", pickle.dumps({}, 2), code__main="def forward(): 1")
    with pytest.raises(dl.InputError, match="TorchScript program"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["state_dict.pth", "state_dict_old.pth"])
def test_a_file_that_is_cut_off_anywhere_is_named(name, tmp_path):
    whole = (FILES / name).read_bytes()
    path = tmp_path / "model.pth"
    for size in range(80, len(whole) - 1, 61):
        path.write_bytes(whole[:size])
        with pytest.raises(dl.InputError, match="cut off"):
            recognise(path)
            read_state_dict(path)


def test_bytes_changed_at_random_give_arrays_or_a_named_error(tmp_path):
    random, path = np.random.RandomState(0), tmp_path / "model.pth"
    for name in ("state_dict.pth", "state_dict_old.pth"):
        whole = np.frombuffer((FILES / name).read_bytes(), np.uint8)
        for _ in range(200):
            changed = whole.copy()
            changed[random.randint(16, len(whole), 3)] = random.randint(0, 256, 3)
            path.write_bytes(changed.tobytes())
            try:
                read_state_dict(path)
            except dl.InputError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(1, (6,), (1,)), (0, (2, 3), (4, 1)), (0, (10**9,), (0,)), (-1, (2,), (1,)), (0, (2,), (-1,))],
)
def test_a_tensor_outside_its_storage_is_damage(offset, shape, strides):
    from deeplab_tf.checkpoints.pytorch_file import _cut, _Storage, _Tensor

    tensor = _Tensor(_Storage("<f4", "0", 6), offset, shape, strides)
    with pytest.raises(ValueError, match="w "):
        _cut(np.arange(6, dtype="<f4"), tensor, "w")


@pytest.mark.parametrize(
    ("content", "words"),
    [({}, "no state dict"), ([1, 2], "no state dict"), ({"epoch": 3}, "epoch is no tensor")],
)
def test_a_file_without_tensors_says_so(content, words, tmp_path):
    path = _archive(tmp_path / "model.pth", pickle.dumps(content, 2))
    with pytest.raises(dl.InputError, match=words):
        read_state_dict(path)


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    path = _archive(tmp_path / "a.pth", b"0" * 9999, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(dl.InputError, match="compressed"):
        read_state_dict(path)


def _safetensors(path, table: dict, data: bytes):
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_safetensors_come_out(tmp_path):
    table = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
    }
    data = np.array([1.5, -2], "<f4").tobytes() + b"\x80\x3f"
    # Recognised by its content, not by its name.
    path = _safetensors(tmp_path / "model.bin", table, data)
    assert recognise(path) == PYTORCH
    arrays = read_state_dict(path)
    assert arrays["a"].tolist() == [[1.5], [-2]] and arrays["b"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "F8_E4M3"}, "a has the type F8_E4M3"),
        ({"shape": [3]}, "damaged or cut off"),
        ({"data_offsets": [4, 12]}, "damaged or cut off"),
        ({"data_offsets": "no"}, "damaged or cut off"),
    ],
)
def test_a_wrong_table_of_safetensors_is_named(change, words, tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}
    path = _safetensors(tmp_path / "model.safetensors", {"a": entry}, bytes(8))
    with pytest.raises(dl.InputError, match=words):
        read_state_dict(path)
