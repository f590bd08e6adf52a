"""A page of samples shows what labels hold, wrong values included."""

import numpy as np
import pytest

from deeplab_tf.datasets.sheet import draw_samples
from deeplab_tf.errors import InputError

MAGENTA = (255, 0, 255)


def has(page: np.ndarray, color) -> bool:
    return bool((page == np.array(color)).all(-1).any())


def test_a_page_shows_the_colours_of_the_classes(shapes_folder, shapes_records):
    for target in (shapes_folder, shapes_records):
        sheet = draw_samples(target, "train", count=4)
        assert sheet.page.dtype == np.uint8 and sheet.page.shape[2] == 3
        assert len(sheet.shown) == 4 and sheet.mistakes == ()
        assert has(sheet.page, (220, 60, 50)) and not has(sheet.page, MAGENTA)


def test_the_choice_follows_the_seed(shapes_records):
    one, again, other = (
        draw_samples(shapes_records, "train", count=3, seed=seed).shown for seed in (1, 1, 2)
    )
    assert one == again != other


def test_there_are_no_more_than_there_are(shapes_records):
    assert len(draw_samples(shapes_records, "val", count=99).shown) == 3


def test_values_of_no_class_are_magenta_and_ignored_ones_white(folder):
    folder.classes("ground", "plant")
    folder.add("p3", np.array([[0, 77], [255, 1]]))
    page = draw_samples(folder.root, "val").page
    assert has(page, MAGENTA) and has(page, (255, 255, 255))


def test_a_mask_of_another_size_is_shown_beside_its_picture(folder):
    folder.add("p3", np.zeros((6, 8)), np.zeros((4, 4, 3)))
    assert draw_samples(folder.root, "val").shown == ("p3.png",)


def test_what_cannot_be_read_is_left_out_and_said(folder):
    folder.mask("p1").write_bytes(b"no mask")
    sheet = draw_samples(folder.root, "train")
    assert sheet.shown == ("p0.png", "p2.png") and "p1.png isn't a picture" in sheet.mistakes[0]
    folder.mask("p3").write_bytes(b"no mask")
    with pytest.raises(InputError, match="p3.png isn't a picture"):
        draw_samples(folder.root, "val")


def test_an_unknown_split_is_named(folder, shapes_records):
    for target in (folder.root, shapes_records):
        with pytest.raises(InputError, match="has no split 'test'; it has train, val"):
            draw_samples(target, "test")
