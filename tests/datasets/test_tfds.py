"""Sets of TensorFlow Datasets become records; here its module is played, so nothing is fetched."""

import io
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets import build_folder, load
from deeplab_tf.datasets.tfds import ADAPTERS, open_tfds
from deeplab_tf.errors import InputError

COUNTS = {"train": 7, "test": 3}


def pet(index: int) -> dict:
    """One example as the data set has it: a JPEG's bytes and a mask of 1, 2 and 3."""
    random, data = np.random.default_rng(index), io.BytesIO()
    image = Image.fromarray(random.integers(0, 256, (9, 12, 3)).astype(np.uint8))
    # Some pictures of the set are no JPEGs, whatever their names say.
    image.save(data, "PNG" if index == 1 else "JPEG")
    mask = random.integers(1, 4, (9, 12, 1)).astype(np.uint8)
    return {
        "image": data.getvalue(),
        "segmentation_mask": mask,
        "file_name": f"cat_{index}.jpg".encode(),
    }


class Builder:
    """Answers as a builder of TensorFlow Datasets does."""

    def __init__(self, name: str, error: Exception | None):
        splits = {k: types.SimpleNamespace(num_examples=n) for k, n in COUNTS.items()}
        self.info = types.SimpleNamespace(version="4.0.0", splits=splits)
        self.name, self.error, self.asked = name, error, []

    def download_and_prepare(self):
        if self.error:
            raise self.error

    def as_dataset(self, split, decoders, shuffle_files):
        self.asked.append(split)
        assert decoders == {"image": "as bytes"} and not shuffle_files
        name, first, last = re.fullmatch(r"(\w+)\[(\d+):(\d+)\]", split).groups()
        offset = 100 if name == "test" else 0
        examples = [pet(offset + index) for index in range(int(first), int(last))]
        return types.SimpleNamespace(as_numpy_iterator=lambda: iter(examples))


@pytest.fixture
def played(monkeypatch):
    """Puts a played module in place; returns what decides whether its download works."""
    state = types.SimpleNamespace(error=None, builders=[])

    def builder(name):
        state.builders.append(Builder(name, state.error))
        return state.builders[-1]

    module = types.ModuleType("tensorflow_datasets")
    module.builder = builder
    module.decode = types.SimpleNamespace(SkipDecoding=lambda: "as bytes")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return state


def test_pets_become_records_with_labels_from_zero(played, tmp_path):
    descriptor = build_folder(
        "tfds:oxford_iiit_pet", tmp_path / "out", records_per_shard=3, quiet=True
    )
    assert descriptor.name == "oxford_iiit_pet"
    assert descriptor.classes == ("pet", "background", "border")
    assert descriptor.splits == {"train": 7, "val": 3}
    assert played.builders[0].asked == ["train[0:3]", "train[3:5]", "train[5:7]", "test[0:3]"]
    found = {e["name"].decode(): e for e in load(tmp_path / "out", "train").as_numpy_iterator()}
    assert sorted(found) == [f"cat_{i}.jpg" for i in range(7)]
    for index in range(7):
        label = found[f"cat_{index}.jpg"]["semantic_label"]
        np.testing.assert_array_equal(label, pet(index)["segmentation_mask"][..., 0] - 1)


def test_a_second_build_reads_nothing_again(played, tmp_path):
    for _ in range(2):
        build_folder("tfds:oxford_iiit_pet", tmp_path / "out", records_per_shard=3, quiet=True)
    assert len(played.builders[0].asked) == 4 and played.builders[1].asked == []


def test_a_set_can_be_loaded_without_records(played):
    examples = [*load("tfds:oxford_iiit_pet", "val").as_numpy_iterator()]
    assert [e["name"] for e in examples] == [f"cat_{100 + i}.jpg".encode() for i in range(3)]
    assert {*np.unique(examples[0]["semantic_label"])} == {0, 1, 2}


def test_cityscapes_keeps_its_nineteen_classes():
    adapter = ADAPTERS["cityscapes/semantic_segmentation"]
    ids = np.array([[0, 7, 8, 11, 24, 33, 255, 34]], np.uint8)
    assert adapter.label(ids).tolist() == [[255, 0, 1, 2, 11, 18, 255, 255]]
    assert len(adapter.classes.names) == len({*adapter.classes.colors}) == 19


def test_without_the_extra_the_command_to_install_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError) as error:
        open_tfds("oxford_iiit_pet")
    assert 'pip install "deeplab-tf[tfds]"' in str(error.value)


def test_a_failed_download_says_why_and_what_to_do(played):
    played.error = ConnectionError("\nno route to host\nlots more")
    with pytest.raises(InputError) as error:
        open_tfds("oxford_iiit_pet")
    assert "can't be prepared (no route to host). Go online once" in str(error.value)


def test_an_unknown_set_is_answered_with_those_there_are(played):
    with pytest.raises(InputError, match="tfds:mnist: unknown here; there are oxford_iiit_pet"):
        open_tfds("mnist")
    with pytest.raises(InputError, match="has its own classes"):
        build_folder("tfds:oxford_iiit_pet", "out", classes="voc")
