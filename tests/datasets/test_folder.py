"""A folder is taken for what it is, and what doesn't fit together is named."""

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets.folder import scan_folder
from deeplab_tf.errors import InputError


def test_index_files_say_which_picture_is_for_what(folder):
    found = scan_folder(folder.root)
    assert found.splits == {"train": ("p0", "p1", "p2"), "val": ("p3",)}
    assert found.counts == {"train": 3, "val": 1}
    assert found.classes.names == ("background", "foreground") and found.binary
    assert [item.name for item in found.items("train", 1, 2)] == ["p1.png"]


def test_without_index_files_a_tenth_is_kept_the_same_each_time(folder):
    for split in ("train", "val"):
        (folder.root / f"{split}.txt").unlink()
    one, again = scan_folder(folder.root), scan_folder(folder.root)
    assert one.splits == again.splits and one.counts == {"train": 3, "val": 1}
    assert sorted(sum(one.splits.values(), ())) == ["p0", "p1", "p2", "p3"]
    assert len({scan_folder(folder.root, seed=seed).splits["val"] for seed in range(9)}) > 1


def test_index_files_may_have_suffixes_folders_and_spaces(folder):
    folder.add("a b.c", np.zeros((4, 4)))
    folder.write("train.txt", "\ufeffp0.png\r\nimages/p1.png\r\n\r\na b.c\r\n")
    assert scan_folder(folder.root).splits["train"] == ("p0", "p1", "a b.c")


@pytest.mark.parametrize("name", ["masks", "labels", "annotations"])
def test_masks_may_lie_in_folders_of_three_names(folder, name):
    (folder.root / "masks").rename(folder.root / name)
    assert scan_folder(folder.root).masks["p0"].parent.name == name


def test_the_portrait_set_is_known_by_its_list_of_sources(folder):
    folder.write("sources.csv", "id,source,original_name,split\np0,sup,-,train\n")
    found = scan_folder(folder.root)
    assert found.name == "portrait" and found.classes.names == ("background", "person")
    folder.write("sources.csv", "another,list\n")
    assert scan_folder(folder.root).name == "mine"


def test_camvid_is_known_by_its_classes_and_its_void_is_ignored(folder):
    names = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist Void"
    rows = [f"{i},{name},{i},{i},{i},0.1" for i, name in enumerate(names.split())]
    folder.write("classes.csv", "\n".join(("index,name,red,green,blue,pixel_share", *rows)))
    found = scan_folder(folder.root)
    assert found.name == "camvid" and len(found.classes.names) == 11
    assert found.classes.ignored == 11 and not found.binary


def test_classes_may_come_from_elsewhere(folder, tmp_path):
    folder.classes("a", "b")
    assert scan_folder(folder.root, classes="voc").classes.ignored == 255
    (tmp_path / "other.txt").write_text("x\ny\nz\n")
    assert scan_folder(folder.root, classes=tmp_path / "other.txt").classes.names[2] == "z"


def spoil(folder, what: str):
    if what == "no folder":
        return scan_folder(folder.root / "nowhere")
    if what == "empty":
        for path in (folder.root / "images").iterdir():
            path.unlink()
    if what == "no pictures":
        (folder.root / "images").rename(folder.root / "pictures")
    if what == "no masks":
        (folder.root / "masks").rename(folder.root / "mask")
    if what == "empty masks":
        for path in (folder.root / "masks").iterdir():
            path.unlink()
    if what == "mask missing":
        folder.mask("p1").unlink()
    if what == "mask missing without index files":
        folder.mask("p1").unlink()
        (folder.root / "train.txt").unlink()
        (folder.root / "val.txt").unlink()
    if what == "empty index":
        folder.write("val.txt", "\n")
    if what == "binary index":
        (folder.root / "val.txt").write_bytes(b"\xff\xff")
    if what == "two of one name":
        Image.open(folder.image("p1")).convert("RGB").save(folder.root / "images" / "p1.jpg")
    if what == "class file":
        folder.classes("alone")
    return scan_folder(folder.root)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no folder", "nowhere: no such folder"),
        ("empty", "images: no pictures in there; put the pictures there"),
        ("no pictures", "images: no such folder; put the pictures there"),
        ("no masks", "no folder of masks; name it one of masks, labels, annotations"),
        ("empty masks", "masks: no masks in there"),
        ("mask missing", "train.txt: 1 names have no picture or no mask, the first: p1"),
        ("mask missing without index files", "1 of 4 pictures have no mask, the first: p1.png"),
        ("empty index", "val.txt is empty"),
        ("binary index", "val.txt: can't be read as text"),
        ("two of one name", "p1.png: another file has the same name but for its suffix"),
        ("class file", "classes.csv: needs two or more classes"),
    ],
)
def test_what_does_not_fit_is_named(folder, what, reason):
    with pytest.raises(InputError) as error:
        spoil(folder, what)
    assert reason in str(error.value) and str(folder.root) in str(error.value)
