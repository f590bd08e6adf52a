"""Class files say what masks mean, or exactly what is wrong with them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf import class_lists
from deeplab_tf.datasets.classes import CAMVID, KNOWN, PORTRAIT, VOC, find_classes, read_classes
from deeplab_tf.errors import InputError
from deeplab_tf.models import label_sets
from deeplab_tf.pictures import voc_colors

NAMES = st.lists(
    st.text("abcxyzÄßé漢 -_()/1", min_size=1, max_size=12).filter(
        lambda name: name == name.strip()
    ),
    min_size=2,
    max_size=30,
    unique=True,
)
COLORS = st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=30, max_size=30, unique=True)


def read(tmp_path, text: str, name: str = "classes.csv"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return read_classes(path)


@settings(deadline=None, max_examples=40)
@given(names=NAMES, colors=COLORS, order=st.randoms(), delimiter=st.sampled_from(",;\t"))
def test_a_table_comes_back_as_written(tmp_path_factory, names, colors, order, delimiter):
    rows = [(i, name, *color) for i, (name, color) in enumerate(zip(names, colors, strict=False))]
    order.shuffle(rows)
    header = ("index", "name", "red", "green", "blue")
    text = "\n".join(delimiter.join(map(str, row)) for row in (header, *rows))
    found = read(tmp_path_factory.mktemp("c"), text)
    assert found.names == tuple(names)
    assert found.colors == tuple(colors[: len(names)])
    assert found.colored and not found.binary and found.ignored == 255


@settings(deadline=None, max_examples=40)
@given(names=NAMES)
def test_a_list_of_names_comes_back_as_written(tmp_path_factory, names):
    found = read(tmp_path_factory.mktemp("c"), "\n".join(names), "classes.txt")
    assert found.names == tuple(names) and found.colors == voc_colors(len(names))
    assert not found.colored


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=80))
def test_any_text_is_read_or_refused_with_its_name(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("c")
    try:
        found = read(folder, text)
    except InputError as error:
        assert str(error).startswith(str(folder / "classes.csv"))
        assert len(str(error).splitlines()) <= 2 or "\n" in repr(text)
    else:
        assert len(found.names) == len(found.colors) >= 2


def test_a_void_class_is_the_value_to_ignore(tmp_path):
    found = read(tmp_path, "index,name,red,green,blue\n0,a,1,1,1\n1,b,2,2,2\n7,Void,9,9,9\n")
    assert found.names == ("a", "b")
    assert (found.ignore_label, found.ignore_color, found.ignored) == (7, (9, 9, 9), 7)


def test_void_as_value_zero_keeps_its_place(tmp_path):
    found = read(tmp_path, "index,name\n0,unlabeled\n1,wall\n2,sky\n")
    assert found.names == ("unlabeled", "wall", "sky") and found.ignored == 0


def test_indices_zero_and_255_mean_black_and_white_masks(tmp_path):
    found = read(tmp_path, "index,name\n0,ground\n255,plant\n")
    assert found.binary and found.names == ("ground", "plant") and found.ignored is None


def test_many_classes_leave_255_to_a_class(tmp_path):
    found = read(tmp_path, "\n".join(f"class {i}" for i in range(300)))
    assert len(found.names) == 300 and found.ignored == 65535


def test_marks_and_spaces_of_spreadsheets_are_no_matter(tmp_path):
    text = "\ufeffIndex; Name; Red; Green; Blue\r\n0; a; 1; 2; 3\r\n1; b; 4; 5; 6\r\n\r\n"
    found = read(tmp_path, text)
    assert found.names == ("a", "b") and found.colors[1] == (4, 5, 6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "needs two or more classes"),
        ("index,name\n0,alone\n", "needs two or more classes"),
        ("index,name\n0,a\n2,b\n", "without gaps; got 0, 2"),
        ("index,name\n1,a\n2,b\n", "without gaps; got 1, 2"),
        ("index,name\n0,a\n0,b\n", "without gaps; got 0, 0"),
        ("index,name\n0,a\n1,a\n", "the name a is there twice"),
        ("index,name\n0,a\n1,b\n1,void\n", "1 is both b and void"),
        ("index,name\n0,a\n1,b\n8,void\n9,ignore\n", "got 2 and 2"),
        ("index,name\n0,a\nx,b\n", "line 3: wanted index,name"),
        ("index,name\n0,a\n1,\n", "line 3: wanted index,name"),
        ("index,name\n0,a\n-1,b\n", "line 3: wanted index,name"),
        ("0,a\n1,b\n", "the first line must be index,name"),
        ("index,name,red,green,blue\n0,a,1,2,3\n1,b,1,2,300\n", "a colour outside 0..255"),
        ("index,name,red,green,blue\n0,a,1,2,3\n1,b,1,2,3\n", "colour (1, 2, 3) is there twice"),
        ("index,name,red,green,blue\n0,a,1,2,3\n1,b,,,\n", "b has no colour"),
        ("index,name,red\n0,a,1\n1,b,2\n", "line 2: wanted index,name"),
    ],
)
def test_a_mistake_is_named_with_the_file(tmp_path, text, reason):
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert reason in str(error.value) and str(tmp_path / "classes.csv") in str(error.value)


def test_a_class_file_of_other_bytes_is_refused(tmp_path):
    (tmp_path / "classes.csv").write_bytes(b"\xff\xfe\x00index")
    with pytest.raises(InputError, match="isn't UTF-8 text"):
        read_classes(tmp_path / "classes.csv")


def test_known_lists_are_found_by_name_and_files_by_path(tmp_path):
    assert find_classes("camvid") is CAMVID and CAMVID.ignored == 11 and len(CAMVID.names) == 11
    assert find_classes("voc") is VOC and VOC.names[15] == "person" and VOC.ignored == 255
    assert find_classes("portrait") is PORTRAIT and PORTRAIT.binary
    (tmp_path / "mine.csv").write_text("a\nb\n")
    assert find_classes(tmp_path / "mine.csv").names == ("a", "b")
    with pytest.raises(InputError, match="nowhere.csv: no such class file; .*camvid"):
        find_classes("nowhere.csv")


@pytest.mark.parametrize(
    ("column", "things"),
    [
        (("0", "1", "0", "1"), (1, 3)),
        (("", "yes", "no", "Thing"), (1, 3)),
        (("stuff", "stuff", "true", "false"), (2,)),
        # The value to ignore is no class, so it has no instances either.
        (("1", "0", "0", "1"), (0, 3)),
    ],
)
@pytest.mark.parametrize("void", ["", "255,void,1\n", "4,void,1\n"])
def test_a_column_says_which_classes_are_things(tmp_path, column, things, void):
    rows = "".join(
        f"{i},{name},{mark}\n" for i, (name, mark) in enumerate(zip("abcd", column, strict=True))
    )
    found = read(tmp_path, f"index,name,thing\n{rows}{void}")
    assert found.things == things and found.label_divisor is None
    assert found.panoptic(1000).void == {"4": 4000}.get(void[:1], 255_000)
    assert found.panoptic(1000).semantic().things == ()
    assert read(tmp_path, "index,name\n0,a\n1,b\n").things == ()


def test_things_may_have_colours_and_zero_may_be_ignored(tmp_path):
    text = "index,name,red,green,blue,thing\n0,void,0,0,0,1\n1,a,9,9,9,1\n2,b,8,8,8,0\n"
    found = read(tmp_path, text)
    assert found.things == (1,) and found.panoptic(256).void == 0 and found.colored


@pytest.mark.parametrize(
    ("text", "divisor", "reason"),
    [
        ("0,a,0\n1,b,0", 256, "no class is a thing"),
        ("0,a,0\n1,b,1", 1, r"label_divisor lies in 2\.\.8388608 for labels up to 255; got 1"),
        ("0,a,0\n1,b,1", 2**23 + 1, "got 8388609"),
        ("0,a,0\n255,b,1", 256, "classes of black and white have no instances"),
    ],
)
def test_labels_of_instances_must_fit_into_32_bits(tmp_path, text, divisor, reason):
    with pytest.raises(InputError, match=reason):
        read(tmp_path, f"index,name,thing\n{text}").panoptic(divisor)


def test_known_lists_of_panoptic_sets_are_the_published_ones():
    cityscapes, coco = KNOWN["cityscapes_panoptic"], KNOWN["coco_panoptic"]
    assert [cityscapes.names[v] for v in (0, 10, 11, 18)] == ["road", "sky", "person", "bicycle"]
    assert cityscapes.things == (*range(11, 19),) and cityscapes.void == 255_000
    assert len(coco.names) == 134 and coco.things == (*range(1, 81),) and coco.void == 0
    for label, (category, name) in {
        1: (1, "person"),
        12: (13, "stop sign"),
        80: (90, "toothbrush"),
        81: (92, "banner"),
        133: (200, "rug-merged"),
    }.items():
        assert (coco.category_ids[label], coco.names[label]) == (category, name)
    ade20k = KNOWN["ade20k_panoptic"]
    assert len(ade20k.names) == 151 and len(ade20k.things) == 100 and ade20k.void == 0
    assert ade20k.label_divisor == 1000 and ade20k.names == class_lists.ADE20K_NAMES
    assert [ade20k.names[v] for v in (0, 1, 8, 13, 55, 150)] == [
        *("other", "wall", "bed", "person", "runway", "flag")
    ]
    assert {8, 13, 150} < {*ade20k.things} and not {0, 1, 55} & {*ade20k.things}
    # As its panoptic JSON files count.
    assert [ade20k.category_ids[v] for v in (1, 8, 150)] == [0, 7, 149]
    stuff = KNOWN["coco_stuff"]
    assert len(stuff.names) == 182 and stuff.things == (*range(91),)
    assert [stuff.names[v] for v in (0, 12, 89, 91, 156, 181)] == [
        *("person", "stop sign", "toothbrush", "banner", "sky-other", "wood")
    ]


@pytest.mark.parametrize("name", ["cityscapes_panoptic", "coco_panoptic", "ade20k_panoptic"])
def test_records_have_the_classes_of_the_published_models(name):
    records, models = KNOWN[name], getattr(label_sets, name.upper())
    assert (records.names, records.colors) == (models.classes, models.colors)
    assert (records.things, records.ignored) == (models.thing_classes, models.ignore_label)
    assert records.label_divisor == models.label_divisor


@pytest.mark.parametrize("name", KNOWN)
def test_known_lists_have_a_colour_of_its_own_for_each_class(name):
    found = KNOWN[name]
    assert len(found.names) == len(found.colors) == len({*found.colors})
