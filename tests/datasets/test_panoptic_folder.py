"""Every layout of panoptic data is read as the same labels; what doesn't fit is said with a fix."""

import json

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets import build_folder, check, load
from deeplab_tf.datasets.classes import CITYSCAPES_PANOPTIC, COCO_PANOPTIC, COCO_STUFF
from deeplab_tf.datasets.named import open_source
from deeplab_tf.datasets.panoptic_folder import is_panoptic
from deeplab_tf.datasets.panoptic_source import PanopticSet
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import encode_ids

VOID = 255 * 256


def labels_of(source) -> dict[str, np.ndarray]:
    """Name of the picture -> panoptic label."""
    return {
        item.name: item.read_label()
        for split in source.counts
        for item in source.items(split, 0, 1)
    }


def translated(label: np.ndarray, values: dict[int, int], divisor: int, void: int) -> np.ndarray:
    """A scene's label (divisor 256) with other classes and another divisor."""
    kinds, instances = np.divmod(label, 256)
    mapped = np.vectorize({**values, 255: 0}.get)(kinds) * divisor + instances
    return np.where(kinds == 255, void, mapped)


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


def test_pairs_of_classes_and_instances(scenes, tmp_path):
    source = open_source(scenes.write_pairs(tmp_path / "set"))
    assert source.classes.names == scenes.NAMES and source.classes.things == (2, 3)
    assert source.classes.label_divisor == 256 and source.counts == {"train": 2, "val": 1}
    found = labels_of(source)
    for seed in range(3):
        np.testing.assert_array_equal(found[f"p{seed}.png"], scenes.panoptic(seed))


def test_numbers_of_sixteen_bits_get_a_divisor_that_they_fit_in(scenes, tmp_path):
    root = scenes.write_pairs(tmp_path / "set", dtype=np.uint16)
    assert open_source(root).classes.label_divisor == 256
    path = root / "instances" / "p1.png"
    _, instance = scenes.scene(1)
    for most, divisor in ((999, 1000), (1000, 4096), (60000, 65536)):
        scenes.save(path, np.where(instance == 2, most, instance), np.uint16)
        source = open_source(root)
        assert source.classes.label_divisor == divisor
        label = labels_of(source)["p1.png"]
        assert label.dtype == np.int32 and most in label % divisor and label.min() >= 0


def test_numbers_written_as_colours_are_read_as_coco_writes_ids(scenes, tmp_path):
    root = scenes.write_pairs(tmp_path / "set")
    _, instance = scenes.scene(1)
    ids = np.where(instance == 2, 700, instance)
    Image.fromarray(encode_ids(ids)).save(root / "instances" / "p1.png")
    source = open_source(root)
    assert source.classes.label_divisor == 1000
    assert (labels_of(source)["p1.png"] == 2700).any()


def test_categories_with_gaps_become_labels_without(scenes, tmp_path):
    root = scenes.write_numbered(tmp_path / "set")
    classes = open_source(root).classes
    assert classes.names == ("background", "person", "car") and classes.things == (1, 2)
    assert classes.category_ids == (0, 5, 9) and classes.ignored == 255
    for seed in range(3):
        wanted = scenes.panoptic(seed)
        wanted[10:, :4] = VOID
        wanted[wanted // 256 <= 1] = 0
        wanted = np.where(wanted == 3 * 256 + 1, 2 * 256 + 3, wanted)
        wanted = np.where(wanted // 256 == 2, wanted - 256 * (wanted % 256 < 3), wanted)
        np.testing.assert_array_equal(labels_of(open_source(root))[f"p{seed}.png"], wanted)
    report = check(root)
    assert kinds(report) == [] and any("9 instances in 3 of 3" in note for note in report.notes)


def test_stuff_that_holds_its_class_where_instances_are_counted_from_zero(scenes, tmp_path):
    root = scenes.write_filled(tmp_path / "set")
    source = open_source(root, classes="coco_stuff")
    assert source.classes.label_divisor == 256 and source.classes.names == COCO_STUFF.names
    values = {scenes.ROAD: 148, scenes.SKY: 156, scenes.PERSON: 0, scenes.CAR: 2}
    for seed in range(3):
        wanted = translated(scenes.panoptic(seed), values, 256, VOID)
        # A crowd of class 0 can't be told from the instance numbered 0: it joins it.
        wanted[10:, :4] = 1
        wanted = np.where(wanted == 2 * 256 + 1, 2 * 256 + 3, wanted)
        np.testing.assert_array_equal(labels_of(source)[f"p{seed}.png"], wanted)
    assert any("numbers start at 0" in note for note in check(root, classes="coco_stuff").notes)


def test_borders_of_two_sources_that_differ_make_crowds_and_no_instances(scenes, tmp_path):
    root = scenes.write_filled(tmp_path / "set")
    numbers = np.asarray(Image.open(root / "instances" / "p0.png")).copy()
    label = np.asarray(Image.open(root / "labels" / "p0.png"))
    y, x = np.argwhere(label == 2)[0]
    numbers[y, x] = 1  # a person's number on a pixel of the car
    y2, x2 = np.argwhere(label == 148)[0]
    numbers[y2, x2] = 2  # the car's on the road
    scenes.save(root / "instances" / "p0.png", numbers)
    found = labels_of(open_source(root, classes="coco_stuff"))["p0.png"]
    assert found[y, x] == 2 * 256 and found[y2, x2] == 148 * 256
    assert {*np.unique(found[label == 2]).tolist()} == {2 * 256, 2 * 256 + 3}


@pytest.mark.parametrize("write", ["write_coco", "write_published"])
def test_coco_json_and_pngs(scenes, tmp_path, write):
    root = getattr(scenes, write)(tmp_path / "set")
    source = open_source(root)
    # By category id: person 1, car 44, road 149, sky 187.
    assert source.classes.names == ("person", "car", "road", "sky")
    assert source.classes.category_ids == (1, 44, 149, 187) and source.classes.things == (0, 1)
    assert source.counts == {"train": 2, "val": 1}
    values = {scenes.ROAD: 2, scenes.SKY: 3, scenes.PERSON: 0, scenes.CAR: 1}
    found = labels_of(source)
    for seed in range(3):
        wanted = translated(scenes.panoptic(seed), values, 256, VOID)
        np.testing.assert_array_equal(found[f"p{seed}.jpg"], wanted)
    report = check(root)
    assert kinds(report) == []
    assert "crowds (things without an instance) teach their class alone: person in 3 pictures" in (
        report.notes
    )


def test_the_published_list_of_coco_keeps_zero_for_void(scenes, tmp_path):
    root = scenes.write_coco(tmp_path / "set", 1)
    known = COCO_PANOPTIC
    categories = [
        {"id": id, "name": name, "isthing": int(label in known.things)}
        for label, (id, name) in enumerate(zip(known.category_ids, known.names, strict=True))
        if label
    ]
    edit_json(root / "panoptic.json", lambda v: v.update(categories=categories))
    source = open_source(root)
    assert source.classes == known
    label = labels_of(source)["p0.jpg"]
    # Ids 1, 44, 149 and 187 are at these places of the list.
    assert {*np.unique(label // 256).tolist()} == {
        0,
        *map(known.category_ids.index, (1, 44, 149, 187)),
    }
    assert (label[0, -3:] == 0).all()


def test_a_json_file_may_lie_elsewhere_and_classes_may_be_put_in_another_order(scenes, tmp_path):
    root = scenes.write_coco(tmp_path / "set")
    (root / "panoptic.json").rename(tmp_path / "there.json")
    with pytest.raises(InputError, match="there is no panoptic.json beside it"):
        open_source(root)
    scenes.write_classes(tmp_path)
    source = open_source(
        root, annotations=tmp_path / "there.json", classes=tmp_path / "classes.csv"
    )
    for seed in range(3):
        np.testing.assert_array_equal(labels_of(source)[f"p{seed}.jpg"], scenes.panoptic(seed))


@pytest.mark.parametrize("write", ["write_cityscapes", "write_cityscapes_json"])
def test_cityscapes(scenes, tmp_path, write):
    root = getattr(scenes, write)(tmp_path / "set")
    source = open_source(root)
    assert source.counts == {"train": 2, "val": 1}
    assert source.classes.names == CITYSCAPES_PANOPTIC.names
    assert source.classes.label_divisor == 1000 and source.classes.things == (*range(11, 19),)
    values = {k: v for k, v in scenes.CITYSCAPES.items() if k != 255}
    found = labels_of(source)
    for seed in range(3):
        wanted = translated(scenes.panoptic(seed), values, 1000, 255000)
        name = f"town_{seed:06d}_000019_leftImg8bit.png"
        np.testing.assert_array_equal(found[name], wanted)
    assert kinds(check(root)) == ["empty class"]


def test_index_files_choose_pictures_of_any_layout(scenes, tmp_path):
    for write in ("write_pairs", "write_coco", "write_published"):
        root = getattr(scenes, write)(tmp_path / write)
        (root / "train.txt").write_text("p2\np0\n")
        assert open_source(root).splits == {"train": ("p2", "p0")}
    (root / "train.txt").write_text("p7\n")
    with pytest.raises(InputError, match=r"train\.txt: 1 names have no picture or no mask.*p7"):
        open_source(root)


def test_folders_of_plain_masks_stay_what_they_are(scenes, folder, tmp_path):
    assert not is_panoptic(folder.root)
    root = scenes.write_pairs(tmp_path / "set")
    (root / "classes.csv").write_text("index,name\n0,road\n1,sky\n2,person\n3,car\n")
    assert not is_panoptic(root)
    source = open_source(root)
    assert not isinstance(source, PanopticSet) and source.classes.label_divisor is None
    assert any("marks no thing" in note for note in check(root).notes)
    (root / "instances").rename(root / "other")
    scenes.write_classes(root)  # things, but nothing that tells their instances apart
    source = open_source(root)
    assert source.classes.things == () and source.classes.label_divisor is None
    with pytest.raises(InputError, match="--label-divisor means nothing"):
        open_source(root, label_divisor=256)


# What is spoiled -> layout, how, what the report calls it, and what a build says of it; None where
# there is no doubt what the labels are, so that records are built.
def _pixel(place, value, part="instances", dtype=np.uint8):
    def spoil(root, scenes):
        path = root / part / "p1.png"
        array = np.asarray(Image.open(path)).copy()
        array[place] = value
        scenes.save(path, array, dtype)

    return spoil


def _entry(change):
    return lambda root, scenes: edit_json(
        root / "panoptic.json", lambda v: change(v["annotations"][1])
    )


def _category(name, **changes):
    def change(value):
        next(c for c in value["categories"] if c["name"] == name).update(changes)

    return lambda root, scenes: edit_json(root / "panoptic.json", change)


def _lose(part):
    return lambda root, scenes: next((root / part).glob("p1.*")).unlink()


def _resize(part):
    return lambda root, scenes: scenes.save(root / part / "p1.png", np.zeros((4, 4)))


SPOILED = {
    "stuff with several instances": (
        "write_pairs",
        _pixel((slice(8, 10), slice(12, 14)), [[7, 8], [7, 8]]),
        "stuff",
        "p1.png: road has 2: classes that are no things have several instances. Mark them",
    ),
    "a class that no class file has": (
        "write_pairs",
        _pixel((11, 11), 77, "masks"),
        "values",
        "p1.png: 77: masks hold values that no class has",
    ),
    "instances of another size": (
        "write_pairs",
        _resize("instances"),
        "sizes",
        "instances/p1.png is 4 x 4 but",
    ),
    "masks of another size": ("write_pairs", _resize("masks"), "sizes", "p1.png is 16 x 12 but"),
    "a mask without instances": (
        "write_pairs",
        _lose("instances"),
        "no instances",
        "p1.png: masks have no PNG of instance numbers. Add them",
    ),
    "instances without a mask": (
        "write_pairs",
        _lose("masks"),
        "no mask",
        "p1.png: pictures have no mask. Add masks",
    ),
    "a broken PNG of instances": (
        "write_pairs",
        lambda root, scenes: (root / "instances" / "p1.png").write_bytes(b"no picture"),
        "mask",
        "p1.png isn't a picture",
    ),
    "an instance that segments.json doesn't list": (
        "write_numbered",
        _pixel((8, 10), 9),
        "unlisted segments",
        "p1.png: 9: PNGs hold segments that the JSON file doesn't list",
    ),
    "an instance that segments.json alone lists": (
        "write_numbered",
        lambda root, scenes: edit_json(
            root / "segments.json",
            lambda v: v["images"][1]["segments"].append({"id": 8, "category_id": 5}),
        ),
        "missing segments",
        None,
    ),
    "a segment of another class": (
        "write_numbered",
        lambda root, scenes: edit_json(
            root / "segments.json", lambda v: v["images"][1]["segments"][2].update(category_id=5)
        ),
        "segment class",
        None,
    ),
    "a picture that segments.json lacks": (
        "write_numbered",
        lambda root, scenes: edit_json(root / "segments.json", lambda v: v["images"].pop()),
        "no segments",
        None,
    ),
    "a PNG without its entry": (
        "write_coco",
        lambda root, scenes: edit_json(root / "panoptic.json", lambda v: v["annotations"].pop()),
        "no entry",
        "p2.png: panoptic PNGs have no entry in the JSON file. Add their entries",
    ),
    "an entry without its PNG": (
        "write_coco",
        _lose("panoptic"),
        "no png",
        "p1.png: entries of the JSON file have no PNG. Add the PNGs",
    ),
    "a segment that its entry lacks": (
        "write_coco",
        _entry(lambda entry: entry["segments_info"].pop(0)),
        "unlisted segments",
        "p1.png: 70000: PNGs hold segments that",
    ),
    "a segment of a category that there isn't": (
        "write_coco",
        _entry(lambda entry: entry["segments_info"][0].update(category_id=5)),
        "unlisted segments",
        "p1.png: 70000: PNGs hold segments that",
    ),
    "a segment that its PNG lacks": (
        "write_coco",
        _entry(lambda e: e["segments_info"].append({"id": 99, "category_id": 1})),
        "missing segments",
        None,
    ),
    "things listed as stuff": (
        "write_coco",
        _category("person", isthing=0),
        "stuff segments",
        None,
    ),
    "an entry of another size": (
        "write_coco",
        lambda root, scenes: edit_json(
            root / "panoptic.json", lambda v: v["images"][1].update(width=99)
        ),
        "entry size",
        None,
    ),
    "a panoptic PNG of another size": (
        "write_coco",
        lambda root, scenes: scenes.save(
            root / "panoptic" / "p1.png", encode_ids(np.full((4, 4), 9, np.int32))
        ),
        "sizes",
        "panoptic/p1.png is 4 x 4 but p1.jpg is 16 x 12",
    ),
    "a grey panoptic PNG": ("write_coco", _resize("panoptic"), "mask", "this one is L"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_does_not_fit_is_found_and_built_only_where_it_leaves_no_doubt(scenes, tmp_path, what):
    write, spoil, kind, reason = SPOILED[what]
    root = getattr(scenes, write)(tmp_path / "set")
    before = labels_of(open_source(root))
    spoil(root, scenes)
    report = check(root)
    assert kind in kinds(report)
    problem = next(p for p in report.problems if p.kind == kind)
    assert problem.fix and all(
        "p1" in p or "p2" in p or "road" in p or "person" in p for p in problem.places
    )
    if reason is not None:
        with pytest.raises(InputError) as error:
            build_folder(root, tmp_path / "out", quiet=True)
        assert reason in str(error.value)
        return
    build_folder(root, tmp_path / "out", quiet=True)
    if what == "things listed as stuff":
        return
    found = {
        e["name"].decode(): e["panoptic_label"]
        for e in load(tmp_path / "out", "train").as_numpy_iterator()
    }
    for name, label in found.items():
        np.testing.assert_array_equal(label, before[name])


def test_stuff_of_one_number_is_stuff(scenes, tmp_path):
    root = scenes.write_pairs(tmp_path / "set")
    label, instance = scenes.scene(1)
    scenes.save(root / "instances" / "p1.png", np.where(label == scenes.SKY, 5, instance))
    np.testing.assert_array_equal(labels_of(open_source(root))["p1.png"], scenes.panoptic(1))
    assert kinds(check(root)) == []


def test_stuff_listed_as_things_is_found(scenes, tmp_path):
    root = scenes.write_pairs(tmp_path / "set")
    (root / "classes.csv").write_text("index,name,thing\n0,road,1\n1,sky,0\n2,person,1\n3,car,1")
    report = check(root)
    problem = next(p for p in report.problems if p.kind == "no instance")
    assert problem.places == ["0 road, in 3 pictures"] and "don't mark them" in problem.fix


def test_pictures_without_an_instance_are_allowed_and_counted(scenes, tmp_path):
    root = scenes.write_pairs(tmp_path / "set")
    scenes.save(root / "masks" / "p1.png", np.zeros(scenes.SIZE))
    scenes.save(root / "instances" / "p1.png", np.zeros(scenes.SIZE))
    report = check(root)
    assert kinds(report) == []
    assert "1 pictures have no instance, which is allowed" in report.notes
    assert "6 instances in 2 of 3 pictures, at most 3 in one; label_divisor 256" in report.notes


def test_instances_that_reach_a_given_divisor_are_refused(scenes, tmp_path):
    for write, count in (("write_pairs", "2"), ("write_coco", "person")):
        root = getattr(scenes, write)(tmp_path / write)
        report = check(root, label_divisor=2)
        problem = next(p for p in report.problems if p.kind == "instances")
        assert len(problem.places) == 3 and "larger --label-divisor" in problem.fix
        assert f"{count}; the divisor is 2" in problem.places[0]
        with pytest.raises(InputError, match="instance numbers reach the divisor"):
            build_folder(root, tmp_path / "out", label_divisor=2, quiet=True)
    with pytest.raises(InputError, match=r"label_divisor lies in 2\.\.8388608"):
        open_source(root, label_divisor=2**24)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("index,name,thing\n0,a,0\n1,b,0", "says of no class that it is a thing"),
        ("index,name\n0,a\n1,b", "says of no class that it is a thing"),
        ("index,name,thing\n0,a,0\n1,b,maybe", "the column thing holds 1 or 0, got 'maybe'"),
    ],
)
def test_a_class_file_must_say_what_things_are(scenes, tmp_path, text, reason):
    root = scenes.write_pairs(tmp_path / "set")
    path = tmp_path / "mine.csv"
    path.write_text(text)
    (root / "classes.csv").unlink()
    with pytest.raises(InputError) as error:
        open_source(root, classes=path)
    assert reason in str(error.value)
    with pytest.raises(InputError, match="nothing says what the values of its masks mean"):
        open_source(root)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.pop("categories"), "`categories` need an id and a name each"),
        (lambda v: v["categories"].append({"id": 255, "name": "x"}), "lie in 0..254"),
        (lambda v: v["categories"].append({"id": 5, "name": "x"}), "are there once; got 5, 5, 9"),
        (lambda v: v["images"][0].pop("name"), "`images` need a name and `segments`"),
    ],
)
def test_a_segments_file_that_can_not_be_used_says_why(scenes, tmp_path, change, reason):
    root = scenes.write_numbered(tmp_path / "set")
    edit_json(root / "segments.json", change)
    with pytest.raises(InputError) as error:
        open_source(root)
    assert reason in str(error.value)


def no_categories(root):
    edit_json(root / "annotations" / "panoptic_val2017.json", lambda v: v.pop("categories"))


def other_categories(root):
    edit_json(root / "annotations" / "panoptic_val2017.json", lambda v: v["categories"].pop())


def no_split(root):
    for name, new in (("train", "one"), ("val", "two")):
        for suffix in ("", ".json"):
            path = root / "annotations" / f"panoptic_{name}2017{suffix}"
            path.rename(root / "annotations" / f"panoptic_{new}{suffix}")


def no_pictures(root):
    (root / "train2017").rename(root / "a")
    (root / "val2017").rename(root / "b")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_categories, "no `categories`, which say"),
        (other_categories, "its categories aren't those of"),
        (no_split, "their names say no split"),
        (no_pictures, "no pictures in there"),
    ],
)
def test_published_files_that_do_not_fit_say_why(scenes, tmp_path, spoil, reason):
    root = scenes.write_published(tmp_path / "set")
    spoil(root)
    with pytest.raises(InputError) as error:
        open_source(root)
    assert reason in str(error.value)


def test_cityscapes_ids_that_there_are_none_of_are_refused(scenes, tmp_path):
    root = scenes.write_cityscapes(tmp_path / "set")
    path = next((root / "gtFine" / "train" / "town").glob("*.png"))
    scenes.save(path, np.full(scenes.SIZE, 60000), np.uint16)
    assert "unlisted segments" in kinds(check(root))
    with pytest.raises(InputError, match="60000"):
        build_folder(root, tmp_path / "out", quiet=True)
    with pytest.raises(InputError, match="leave --classes out"):
        open_source(root, classes="voc")
    with pytest.raises(InputError, match="label_divisor 256 is less"):
        open_source(root, label_divisor=256)


def test_entries_of_a_whole_set_may_be_more_than_the_pictures_here(scenes, tmp_path):
    root = scenes.write_coco(tmp_path / "set")
    for part in ("images", "panoptic"):
        next((root / part).glob("p2.*")).unlink()
    report = check(root)
    assert kinds(report) == [] and sum(report.splits.values()) == 2
    assert "1 entries have neither picture nor PNG here" in report.notes
    assert len(labels_of(open_source(root))) == 2
