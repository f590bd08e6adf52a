"""ADE20K, as published and as converted, is read as the labels that deeplab2 trains on."""

import json

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets import DatasetDescriptor, build_folder, check, load
from deeplab_tf.datasets.classes import ADE20K_PANOPTIC
from deeplab_tf.datasets.named import open_source
from deeplab_tf.datasets.panoptic_folder import is_panoptic, list_panoptic
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import Coding, PanopticWriter

LAYOUTS = ("write_ade20k", "write_ade20k_json")
NAMES = ("ADE_train_00000000.jpg", "ADE_train_00000001.jpg", "ADE_val_00000002.jpg")
TRAIN = "training/ADE_train_00000001.png"


def labels_of(source) -> dict[str, np.ndarray]:
    """Name of the picture -> panoptic label."""
    return {
        item.name: item.read_label()
        for split in source.counts
        for item in source.items(split, 0, 1)
    }


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


@pytest.mark.parametrize("write", LAYOUTS)
@pytest.mark.parametrize("classes", [None, "ade20k_panoptic"])
def test_both_layouts_are_read_as_the_same_labels(scenes, tmp_path, write, classes):
    source = open_source(getattr(scenes, write)(tmp_path / "set"), classes=classes)
    assert source.classes == ADE20K_PANOPTIC
    assert source.splits == {
        "train": ("ADE_train_00000000", "ADE_train_00000001"),
        "val": ("ADE_val_00000002",),
    }
    found = labels_of(source)
    assert {*found} == {*NAMES}
    for seed, name in enumerate(NAMES):
        assert found[name].dtype == np.int32
        np.testing.assert_array_equal(found[name], scenes.ade20k(seed))


@pytest.mark.parametrize("write", LAYOUTS)
def test_labels_come_back_from_records(scenes, tmp_path, write):
    root, out = getattr(scenes, write)(tmp_path / "set"), tmp_path / "out"
    # Four of the classes occur in the scene, and nothing else is wrong.
    assert kinds(check(root)) == ["empty class"]
    build_folder(root, out, quiet=True)
    descriptor = DatasetDescriptor.load(out)
    assert descriptor.num_classes == 151 and len(descriptor.thing_classes) == 100
    assert descriptor.ignore_label == 0 and descriptor.label_divisor == 1000
    assert descriptor.category_ids[1:] == (*range(150),)
    assert descriptor.splits == {"train": 2, "val": 1} and descriptor.pixel_share[0] == 0
    found = {}
    for split in descriptor.splits:
        for example in load(out, split).as_numpy_iterator():
            found[example["name"].decode()] = example["panoptic_label"]
    assert {*found} == {*NAMES}
    for seed, name in enumerate(NAMES):
        np.testing.assert_array_equal(found[name], scenes.ade20k(seed))
    assert kinds(check(out)) == ["empty class"]


# Wall 1, sky 3, table 16, chair 20 and nothing 0; as instances table 6, chair 8 and painting 10.
LABEL = [
    [1, 1, 20, 20, 0],
    [1, 20, 20, 16, 3],
    [16, 16, 1, 20, 3],
]
CATEGORY = [
    [0, 8, 8, 0, 8],
    [10, 8, 6, 6, 0],
    [6, 0, 8, 0, 8],
]
NUMBER = [
    [0, 9, 9, 0, 9],
    [2, 9, 4, 4, 0],
    [1, 0, 0, 0, 3],
]
# Instances lie over stuff, over other things and over nothing; things without one are void.
WANTED = [
    [1000, 20002, 20002, 0, 20002],
    [23001, 20002, 16002, 16002, 3000],
    [16001, 0, 1000, 0, 20001],
]
# The same after conversion: segment ids, and the category of each.
IDS = [
    [300, 39, 39, 0, 39],
    [32, 39, 34, 34, 301],
    [31, 0, 300, 0, 33],
]
SEGMENTS = {300: 0, 301: 2, 31: 15, 32: 22, 33: 19, 34: 15, 39: 19}


def test_where_the_maps_disagree_instances_win_and_things_without_are_void(scenes, tmp_path):
    published, converted = tmp_path / "published", tmp_path / "converted"
    for root in (published, converted):
        scenes.save(root / "images" / "training" / "a.png", np.zeros((3, 5, 3)))
    pairs = np.stack([CATEGORY, NUMBER], -1)
    scenes.write_ade20k_maps(published, "training", "a", LABEL, pairs)
    scenes.write_ade20k_entries(converted, "train", {"a": (np.array(IDS), SEGMENTS)})
    for root in (published, converted):
        assert open_source(root).splits == {"train": ("a",)}
        np.testing.assert_array_equal(labels_of(open_source(root))["a.png"], WANTED)
        assert kinds(check(root)) == ["empty class"]


def test_the_n_th_category_of_instances_is_the_n_th_thing(scenes, tmp_path):
    root = tmp_path / "set"
    scenes.save(root / "images" / "training" / "a.png", np.zeros((1, 100, 3)))
    numbers = np.arange(1, 101)[None]
    pairs = np.stack([numbers, numbers[:, ::-1]], -1)
    scenes.write_ade20k_maps(root, "training", "a", np.zeros((1, 100)), pairs)
    label = labels_of(open_source(root))["a.png"]
    assert (label % 1000 == 1).all()
    assert tuple(label[0] // 1000) == ADE20K_PANOPTIC.things
    # As its list of categories has them: bed, windowpane, cabinet, person, and last the flag.
    assert [*(label[0, [0, 1, 2, 3, 99]] // 1000)] == [8, 9, 11, 13, 150]
    names = [ADE20K_PANOPTIC.names[value] for value in (8, 9, 11, 13, 150)]
    assert names == ["bed", "windowpane", "cabinet", "person", "flag"]


def test_as_many_instances_as_eight_bits_count_have_numbers_of_their_own(scenes, tmp_path):
    root = tmp_path / "set"
    scenes.save(root / "images" / "training" / "a.png", np.zeros((1, 255, 3)))
    pairs = np.stack([np.full((1, 255), 4), np.arange(1, 256)[None]], -1)
    scenes.write_ade20k_maps(root, "training", "a", np.zeros((1, 255)), pairs)
    for divisor in (None, 256):
        source = open_source(root, label_divisor=divisor)
        first = 13 * source.classes.label_divisor + 1
        np.testing.assert_array_equal(labels_of(source)["a.png"][0], np.arange(first, first + 255))
    with pytest.raises(InputError, match="up to 255 instances: label_divisor 255 is less"):
        open_source(root, label_divisor=255)


def test_predictions_are_written_under_the_ids_of_the_converted_files(scenes, tmp_path):
    """What is written with the classes of the published layout is read as converted."""
    root = scenes.write_ade20k(tmp_path / "set")
    classes = open_source(root).classes
    coding = Coding(classes.category_ids, classes.things, 1000, 0)
    place = root / "ade20k_panoptic_val"
    with PanopticWriter(place, coding, names=classes.names) as writer:
        writer.add("ADE_val_00000002", scenes.ade20k(2))
    categories = json.loads(place.with_suffix(".json").read_text())["categories"]
    assert [c["id"] for c in categories] == [*range(150)]
    # Of one file, its name says no split; the folder of the picture does.
    source = open_source(root)
    assert source.splits == {"val": ("ADE_val_00000002",)} and source.classes == classes
    np.testing.assert_array_equal(labels_of(source)[NAMES[2]], scenes.ade20k(2))


def _pixel(part, value, place=(8, 10), name=TRAIN):
    """Changes a pixel, by default one of the car."""

    def spoil(root, scenes):
        path = root / part / name
        array = np.asarray(Image.open(path)).copy()
        array[place] = value
        scenes.save(path, array)

    return spoil


def _resize(*parts):
    def spoil(root, scenes):
        for part in parts:
            depth = () if part == "annotations" else (3,)
            scenes.save(root / part / TRAIN, np.zeros((4, 6, *depth)))

    return spoil


# What is spoiled -> how, what the report calls it, and what a build says of it.
SPOILED = {
    "a category beyond the things": (
        _pixel("annotations_instance", (101, 5, 0), slice(None)),
        "category",
        "ADE_train_00000001.png: instance 5 has category 101; each has one of 1..100: PNGs",
    ),
    "an instance without a category": (
        _pixel("annotations_instance", (0, 77, 0)),
        "category",
        "ADE_train_00000001.png: instance 77 has category 0; each has one of 1..100: PNGs",
    ),
    "an instance of two categories": (
        _pixel("annotations_instance", (8, 5, 0)),
        "category",
        "ADE_train_00000001.png: instance 5 has category 8 and 9; each has one of 1..100: PNGs",
    ),
    "a class beyond the list": (
        _pixel("annotations", 151),
        "category",
        "ADE_train_00000001.png: values 151; there are 0..150: PNGs contradict",
    ),
    "instances of another size": (
        _resize("annotations_instance"),
        "sizes",
        "annotations_instance/training/ADE_train_00000001.png is 6 x 4 but",
    ),
    "maps of another size than the picture": (
        _resize("annotations", "annotations_instance"),
        "sizes",
        "ADE_train_00000001.png is 6 x 4 but ADE_train_00000001.jpg is 16 x 12",
    ),
    "grey instances": (
        lambda root, scenes: scenes.save(root / "annotations_instance" / TRAIN, np.zeros((12, 16))),
        "mask",
        "a PNG of instances is RGB (red: category, green: number); this one is L",
    ),
    "painted classes": (
        lambda root, scenes: scenes.write_image(root / "annotations" / TRAIN, 0),
        "colors",
        "ADE_train_00000001.png is painted in colours",
    ),
    "a broken PNG of instances": (
        lambda root, scenes: (root / "annotations_instance" / TRAIN).write_bytes(b"no picture"),
        "mask",
        "ADE_train_00000001.png isn't a picture",
    ),
    "two pictures of one name": (
        lambda root, scenes: scenes.write_image(root / "images/validation" / NAMES[1], 5),
        "doubles",
        "ADE_train_00000001.jpg: another file has the same name",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_does_not_fit_is_found_and_refused(scenes, tmp_path, what):
    spoil, kind, reason = SPOILED[what]
    root = scenes.write_ade20k(tmp_path / "set")
    spoil(root, scenes)
    report = check(root)
    problem = next(p for p in report.problems if p.kind == kind)
    assert problem.fix and [NAMES[1][:-4] in place for place in problem.places] == [True]
    with pytest.raises(InputError) as error:
        build_folder(root, tmp_path / "out", quiet=True)
    assert reason in str(error.value)


def test_only_what_is_wrong_with_a_label_becomes_void(scenes, tmp_path):
    root = scenes.write_ade20k(tmp_path / "set")
    _pixel("annotations_instance", (8, 5, 0))(root, scenes)
    _pixel("annotations", 200, (0, 0))(root, scenes)
    label, problems = list_panoptic(root).read("ADE_train_00000001")
    wanted = scenes.ade20k(1)
    wanted[wanted // 1000 == 21], wanted[0, 0] = 0, 0
    np.testing.assert_array_equal(label, wanted)
    assert [kind for kind, _ in problems] == ["category", "category"]


@pytest.mark.parametrize(
    ("lost", "kind", "place"),
    [
        (["annotations", "annotations_instance"], "no mask", NAMES[1]),
        (["annotations"], "no mask", NAMES[1]),
        (["annotations_instance"], "no instances", f"annotations/{TRAIN}"),
        (["images"], "no picture", f"annotations/{TRAIN}"),
        (["images", "annotations"], "no picture", f"annotations_instance/{TRAIN}"),
    ],
)
def test_pictures_and_maps_without_one_another_are_found_and_left_out(
    scenes, tmp_path, lost, kind, place
):
    root = scenes.write_ade20k(tmp_path / "set")
    for part in lost:
        next((root / part).glob("training/ADE_train_00000001.*")).unlink()
    report = check(root)
    assert {*kinds(report)} == {kind, "empty class"}
    problem = next(p for p in report.problems if p.kind == kind)
    assert [text.endswith(place) for text in problem.places] == [True]
    assert open_source(root).counts == {"train": 1, "val": 1}


def test_pictures_without_folders_of_splits_are_split_and_must_be_whole(scenes, tmp_path):
    root = scenes.write_ade20k(tmp_path / "set")
    (root / "images" / "testing" / "ADE_test_00000001.jpg").unlink()
    for part in ("images", "annotations", "annotations_instance"):
        for path in (root / part).glob("*/*"):
            path.rename(root / part / path.name)
    assert open_source(root).counts == {"train": 2, "val": 1}
    lost = root / "annotations" / "ADE_train_00000000.png"
    lost.rename(tmp_path / "kept.png")
    problem = next(p for p in check(root).problems if p.kind == "no mask")
    assert problem.places == [str(root / "images" / NAMES[0])]
    with pytest.raises(InputError, match="1 of 3 pictures have no mask"):
        open_source(root)
    (tmp_path / "kept.png").rename(lost)
    (root / "annotations_instance" / "ADE_val_00000002.png").unlink()
    assert "no instances" in kinds(check(root))
    with pytest.raises(InputError, match="masks have no PNG of instance numbers. Add them, or"):
        open_source(root)
    # An index file says which to use.
    (root / "train.txt").write_text("ADE_train_00000001\n")
    assert open_source(root).splits == {"train": ("ADE_train_00000001",)}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("annotations_instance", "Unpack annotations_instance.tar in"),
        ("annotations", "Unpack ADEChallengeData2016.zip in"),
        ("images", "no pictures in there"),
    ],
)
def test_a_part_that_is_missing_altogether_is_named(scenes, tmp_path, part, reason):
    root = scenes.write_ade20k(tmp_path / "set")
    (root / part).rename(root / "elsewhere")
    assert is_panoptic(root)
    for look in (check, open_source):
        with pytest.raises(InputError) as error:
            look(root)
        assert str(root / part) in str(error.value) and reason in str(error.value)


def test_other_classes_are_refused(scenes, tmp_path):
    published = scenes.write_ade20k(tmp_path / "published")
    with pytest.raises(InputError, match="classes of ADE20K are known; leave --classes out"):
        open_source(published, classes="voc")
    converted = scenes.write_ade20k_json(tmp_path / "converted")
    with pytest.raises(InputError, match="150 categories of the JSON file are no class there"):
        open_source(converted, classes="coco_panoptic")


def test_a_json_file_is_ade20k_by_which_of_its_classes_are_things(scenes, tmp_path):
    root = scenes.write_ade20k_json(tmp_path / "set")
    for split in ("train", "val"):
        path = root / f"ade20k_panoptic_{split}.json"
        value = json.loads(path.read_text())
        value["categories"][0]["isthing"] = 1
        path.write_text(json.dumps(value))
    classes = open_source(root).classes
    assert len(classes.names) == 150 and classes.names[6] == "road, or so"
    assert classes.ignored == 255 and len(classes.things) == 101


def test_sub_folders_of_pictures_may_be_named_as_coco_names_them(scenes, tmp_path):
    root = scenes.write_coco(tmp_path / "set")
    for name, seeds in (("train2017", (2, 0)), ("val2017", (1,))):
        for seed in seeds:
            path = root / "images" / f"p{seed}.jpg"
            (root / "images" / name).mkdir(exist_ok=True)
            path.rename(root / "images" / name / path.name)
    source = open_source(root)
    assert source.splits == {"train": ("p0", "p2"), "val": ("p1",)}
    assert len(labels_of(source)) == 3


def test_of_coco_as_published_one_json_file_may_be_all_there_is_to_train_on(scenes, tmp_path):
    root = scenes.write_published(tmp_path / "set")
    (root / "annotations" / "panoptic_train2017.json").unlink()
    for path in (root / "train2017").iterdir():
        path.unlink()
    assert open_source(root).splits == {"train": ("p2",)}
