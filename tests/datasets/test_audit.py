"""A check lists all that is wrong at once, each with its fix."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets import check
from deeplab_tf.datasets.findings import KINDS
from deeplab_tf.errors import InputError
from deeplab_tf.pictures import save_image


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


def problem(report, kind: str):
    return next(found for found in report.problems if found.kind == kind)


def test_a_good_folder_has_no_problems_and_a_row_per_class(folder):
    report = check(folder.root)
    assert report.problems == [] and report.form == "folder"
    assert dict(report.splits) == {"train": 3, "val": 1}
    assert [dataclasses.astuple(row) for row in report.values] == [
        (0, "background", 96, 0.5, 4),
        (1, "foreground", 96, 0.5, 4),
    ]


def test_drawn_shapes_have_no_problems(shapes_folder):
    report = check(shapes_folder)
    assert report.problems == []
    assert [row.meaning for row in report.values] == ["background", "disc", "box", "triangle"]


def test_all_problems_come_in_one_report(folder):
    folder.classes("ground", "plant", "stone", "void")
    for index in range(4):
        folder.add(f"p{index}", np.array([[0, 1], [index % 2, 3]]))
    folder.image("p0").write_bytes(b"hello")
    folder.mask("p1").write_bytes(b"hello")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(folder.mask("p2"))
    folder.add("strange", np.array([[0, 1], [9, 3]]))
    folder.add("coloured", np.dstack([np.eye(3), np.zeros((3, 3)), np.ones((3, 3))]) * 200)
    folder.write("train.txt", "p0\np1\np2\nstrange\ncoloured\nlost\np3\n")
    report = check(folder.root)
    assert kinds(report) == [
        "index",
        "listed twice",
        "picture",
        "mask",
        "sizes",
        "values",
        "colors",
        "empty class",
    ]
    places = {found.kind: found.places for found in report.problems}
    assert places["index"] == [f"{folder.root / 'train.txt'}: lost has no picture"]
    assert places["listed twice"] == ["p3 is in train and in val"]
    assert "p0.png isn't a picture" in places["picture"][0]
    assert "p1.png" in places["mask"][0] and "2 x 2" in places["sizes"][0]
    assert places["values"] == [f"{folder.root / 'masks' / 'strange.png'}: 9"]
    assert "coloured.png is painted in colours" in places["colors"][0]
    assert places["empty class"] == ["2 stone"]
    assert all(found.fix for found in report.problems)
    shown = {row.value: row.meaning for row in report.values}
    assert shown == {0: "ground", 1: "plant", 2: "stone", 3: "(ignored)", 9: "(no class)"}


def test_a_report_goes_through_json(folder):
    folder.add("p1", np.full((6, 8), 9))
    value = json.loads(json.dumps(check(folder.root).to_json()))
    assert value["pictures"] == 4 and value["splits"] == {"train": 3, "val": 1}
    assert value["problems"][0]["kind"] == "values"
    assert value["values"][-1]["meaning"] == "(no class)"


def test_a_class_file_that_cannot_be_read_does_not_hide_the_rest(folder):
    folder.classes("alone")
    folder.image("p0").write_bytes(b"hello")
    report = check(folder.root)
    assert kinds(report) == ["class file", "picture"]
    assert [row.value for row in report.values] == [0, 255]


@pytest.mark.parametrize(
    ("names", "value", "fix"),
    [
        (("a", "b", "c"), 3, "subtract 1"),
        (("a", "b", "c"), 40, "Add them to the class file"),
        ((), 128, "0 and 1, or 0 and 255"),
    ],
)
def test_the_fix_for_values_goes_by_all_masks_together(folder, names, value, fix):
    if names:
        folder.classes(*names)
    for index in range(4):
        folder.add(f"p{index}", np.array([[0, 1, 2], [value, 1, 0]] if names else [[0, value]]))
    assert fix in problem(check(folder.root), "values").fix


def test_white_that_would_be_ignored_is_the_one_class_problem(folder):
    folder.classes("ground", "plant")
    report = check(folder.root)
    assert kinds(report) == ["one class"]
    assert "write 255 as its index" in report.problems[0].fix


def test_a_palette_against_the_classes_is_found(folder):
    folder.write("classes.csv", "index,name,red,green,blue\n0,a,0,0,0\n1,b,9,0,0\n2,c,0,9,0\n")
    for index in range(4):
        mask = np.array([[0, 1, 2]], np.uint8)
        folder.add(f"p{index}", mask)
        order = [(0, 0, 0), (9, 0, 0), (0, 9, 0)] if index else [(0, 0, 0), (0, 9, 0), (9, 0, 0)]
        save_image(folder.mask(f"p{index}"), mask, palette=order)
    found = problem(check(folder.root), "palette")
    assert len(found.places) == 1 and "p0.png" in found.places[0]


def test_a_picture_in_two_splits_is_found_under_another_name(folder):
    shutil.copy(folder.image("p0"), folder.root / "images" / "p3.png")
    found = problem(check(folder.root), "same picture")
    assert found.places == ["p3 (val) is p0 (train)"]


def test_names_that_do_not_pair_are_found_without_index_files(folder):
    for split in ("train", "val"):
        (folder.root / f"{split}.txt").unlink()
    folder.mask("p0").unlink()
    folder.image("p1").unlink()
    Image.open(folder.image("p2")).convert("RGB").save(folder.root / "images" / "p2.jpg")
    report = check(folder.root)
    assert kinds(report) == ["doubles", "no mask", "no picture"]
    assert "every tenth picture" in report.notes[0]


def test_pictures_of_no_split_are_a_note(folder):
    folder.write("train.txt", "p0\np1\n")
    report = check(folder.root)
    assert report.problems == [] and report.notes == ["1 pictures are in no split: p2"]


def test_a_lying_picture_with_an_unturned_mask_says_so(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(folder.image("p0"))
    (folder.root / "images" / "p0.png").unlink()
    image.save(folder.root / "images" / "p0.jpg", exif=exif)
    found = problem(check(folder.root), "sizes")
    assert "stored lying and shown upright (EXIF): turn the mask" in found.places[0]


def test_there_must_be_something_to_check(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="no pictures in there"):
        check(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "nowhere")


def test_every_kind_says_what_it_is():
    assert all(what and not what.endswith(".") for what, _ in KINDS.values())
