"""Small drawn data sets, and ways to make a folder by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets import build_folder
from deeplab_tf.datasets.synthetic import Shapes, write_shapes

SHAPES = Shapes({"train": 11, "val": 3}, size=(24, 20))


class Folder:
    """A folder of pictures and masks that a test fills and spoils.

    Args:
        root: of it; made when the first picture is added.
    """

    def __init__(self, root: Path):
        self.root = root

    def add(self, name: str, mask, image=None, *, suffix: str = ".png") -> None:
        """A picture of random pixels, if none is given, and its mask."""
        mask = np.asarray(mask)
        if image is None:
            image = np.random.default_rng(len(name)).integers(0, 256, (*mask.shape[:2], 3))
        for part, array, ending in (("images", image, suffix), ("masks", mask, ".png")):
            (self.root / part).mkdir(parents=True, exist_ok=True)
            array = np.asarray(array)
            if array.dtype != np.uint16:
                array = array.astype(np.uint8)
            Image.fromarray(array).save(self.root / part / f"{name}{ending}")

    def classes(self, *names: str) -> None:
        """A class file of names without colours."""
        rows = [f"{index},{name}" for index, name in enumerate(names)]
        self.write("classes.csv", "\n".join(("index,name", *rows)))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def image(self, name: str) -> Path:
        return next((self.root / "images").glob(f"{name}.*"))

    def mask(self, name: str) -> Path:
        return next((self.root / "masks").glob(f"{name}.*"))


def half(value: int = 1, other: int = 0, size=(6, 8)) -> np.ndarray:
    """A mask whose upper half is one value and the lower another."""
    mask = np.full(size, other, np.uint8)
    mask[: size[0] // 2] = value
    return mask


@pytest.fixture
def folder(tmp_path) -> Folder:
    """Four pictures of two classes, black and white, in an index file; all is well."""
    made = Folder(tmp_path / "mine")
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 256, (6, 8, 3))
        made.add(f"p{index}", half(255), image)
    made.write("train.txt", "p0\np1\np2\n")
    made.write("val.txt", "p3\n")
    return made


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory) -> Path:
    """Drawn shapes as files; don't change them."""
    return write_shapes(tmp_path_factory.mktemp("shapes") / "shapes", SHAPES)


@pytest.fixture(scope="session")
def shapes_records(shapes_folder) -> Path:
    """Their records, four to a shard; don't change them."""
    out = shapes_folder.parent / "records"
    build_folder(shapes_folder, out, records_per_shard=4, quiet=True)
    return out


@pytest.fixture(scope="session")
def scenes():
    """The module beside this one; test folders aren't on the path."""
    path = Path(__file__).with_name("scenes.py")
    spec = importlib.util.spec_from_file_location("scenes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scene_records(scenes, tmp_path_factory) -> Path:
    """Records of twelve scenes, two shards to the training split; don't change them."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.write_pairs(root / "scenes", 12)
    build_folder(root / "scenes", root / "records", records_per_shard=6, quiet=True)
    return root / "records"
