"""Records of panoptic labels: written, checked, described, read, and made into batches."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.datasets import (
    Augment,
    DatasetDescriptor,
    build_folder,
    check,
    load,
    pipeline,
    transforms,
)
from deeplab_tf.datasets.audit_records import classes_of, describe_records
from deeplab_tf.datasets.classes import find_classes, read_classes
from deeplab_tf.datasets.panoptic_checks import see
from deeplab_tf.datasets.sheet import draw_samples
from deeplab_tf.datasets.targets import panoptic_targets
from deeplab_tf.datasets.tfrecord import (
    decode_example,
    encode_example,
    encode_label_map,
    encode_raw_map,
    find_shards,
    shard_path,
    write_records,
)
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_pictures import panoptic_colors

VOID = 255 * 256


def record(label, *, raw=True, name="a.png") -> bytes:
    height, width = label.shape
    image = tf.io.encode_png(np.full((height, width, 3), 90, np.uint8)).numpy()
    return encode_example(
        image=image,
        image_format="png",
        label=encode_raw_map(label) if raw else encode_label_map(label.astype(np.uint8)),
        label_format="raw" if raw else "png",
        height=height,
        width=width,
        name=name,
    )


def write_split(folder, labels, split="train", **options):
    """Records as other code writes them: without a description."""
    folder.mkdir(exist_ok=True)
    records = [record(label, name=f"{i}.png", **options) for i, label in enumerate(labels)]
    write_records(shard_path(folder, split, 0, 1), records)
    return folder


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(2, 70000),
    st.integers(0, 10**6),
)
def test_any_panoptic_label_comes_back_from_its_record(height, width, divisor, seed):
    random = np.random.default_rng(seed)
    label = random.integers(0, 2**31, (height, width)).astype(np.int32)
    example = decode_example(record(label), divisor)
    np.testing.assert_array_equal(example["panoptic_label"], label)
    np.testing.assert_array_equal(example["semantic_label"], label // divisor)
    assert "panoptic_label" not in decode_example(record(label))
    np.testing.assert_array_equal(decode_example(record(label))["semantic_label"], label)


def test_records_hold_what_the_folder_holds(scenes, scene_records):
    descriptor = DatasetDescriptor.load(scene_records)
    assert descriptor.thing_classes == (2, 3) and descriptor.label_divisor == 256
    assert descriptor.classes == scenes.NAMES and descriptor.ignore_label == 255
    assert descriptor.splits == {"train": 11, "val": 1}
    # Shares are of classes; 3 of 192 pixels are void in each.
    label, _ = scenes.scene()
    assert descriptor.pixel_share[3] == pytest.approx((label == 3).sum() / 189, abs=1e-5)
    assert sum(descriptor.pixel_share) == pytest.approx(1, abs=1e-5)
    names = set()
    for split in ("train", "val"):
        for example in load(scene_records, split).as_numpy_iterator():
            wanted = scenes.panoptic(int(example["name"][1:-4]))
            assert example["panoptic_label"].dtype == np.int32
            np.testing.assert_array_equal(example["panoptic_label"], wanted)
            np.testing.assert_array_equal(example["semantic_label"], wanted // 256)
            names.add(example["name"])
    assert len(names) == 12
    features = tf.train.Example.FromString(
        next(iter(tf.data.TFRecordDataset(str(find_shards(scene_records, "val")[0])))).numpy()
    ).features.feature
    assert features["image/segmentation/class/format"].bytes_list.value == [b"raw"]
    assert len(features["image/segmentation/class/encoded"].bytes_list.value[0]) == 4 * 12 * 16


def test_a_build_that_stopped_goes_on_and_changes_nothing_else(scenes, tmp_path):
    root, out = scenes.write_pairs(tmp_path / "set", 6), tmp_path / "out"
    build_folder(root, out, records_per_shard=2, quiet=True)
    first = find_shards(out, "train")[0]
    content, times = first.read_bytes(), {p: p.stat().st_mtime_ns for p in out.glob("*.tfrecord")}
    first.unlink()
    build_folder(root, out, records_per_shard=2, quiet=True)
    assert first.read_bytes() == content
    assert {p for p, time in times.items() if p.stat().st_mtime_ns == time} == times.keys() - {
        first
    }
    # Another divisor makes other records.
    build_folder(root, out, label_divisor=1000, records_per_shard=2, quiet=True)
    assert DatasetDescriptor.load(out).label_divisor == 1000
    example = next(load(out, "val").as_numpy_iterator())
    assert example["panoptic_label"].max() == 255000
    # So does another instance.
    scenes.save(root / "instances" / "p1.png", np.full(scenes.SIZE, 3))
    build_folder(root, out, label_divisor=1000, records_per_shard=2, quiet=True)
    found = [e["panoptic_label"] for e in load(out, "train").as_numpy_iterator()]
    assert any((label == 2003).any() for label in found)


def test_a_folder_is_read_as_its_records_are(scenes, tmp_path, scene_records):
    root = scenes.write_pairs(tmp_path / "set", 12)
    direct = [*load(root, "train").as_numpy_iterator()]
    built = {e["name"]: e for e in load(scene_records, "train").as_numpy_iterator()}
    for example in direct:
        for key in ("image", "semantic_label", "panoptic_label"):
            np.testing.assert_array_equal(example[key], built[example["name"]][key])
            assert example[key].dtype == built[example["name"]][key].dtype


def test_good_records_are_found_good_and_counted(scene_records):
    report = check(scene_records)
    assert report.problems == []
    assert report.notes == [
        "36 instances in 12 of 12 pictures, at most 3 in one; label_divisor 256",
        "crowds (things without an instance) teach their class alone: person in 12 pictures",
    ]
    meanings = {row.value: row.meaning for row in report.values}
    assert meanings == {0: "road", 1: "sky", 2: "person", 3: "car", 255: "(ignored)"}


def test_a_wrong_divisor_is_found_and_the_right_one_named(scene_records, tmp_path):
    out = shutil.copytree(scene_records, tmp_path / "out")
    for divisor, kind in ((1000, "stuff"), (16, "divisor")):
        report = check(out, label_divisor=divisor)
        problem = next(p for p in report.problems if p.kind == kind)
        assert len(problem.places) == 12 and "--label-divisor 256" in problem.fix
    value = json.loads((out / "dataset.json").read_text())
    value["label_divisor"] = 1000
    (out / "dataset.json").write_text(json.dumps(value))
    assert "stuff" in kinds(check(out))


def test_values_that_no_divisor_explains_say_so(tmp_path):
    out = write_split(tmp_path / "out", [np.array([[2**30, -7]], np.int32)])
    report = check(out, classes="cityscapes_panoptic")
    problem = next(p for p in report.problems if p.kind == "divisor")
    assert "from -7 to 1073741824, which is no class * 1000 + instance" in problem.places[0]
    assert "Give the divisor and the classes" in problem.fix


def test_a_label_that_is_no_raw_one_is_found_among_panoptic_records(
    scenes, scene_records, tmp_path
):
    out = shutil.copytree(scene_records, tmp_path / "out")
    label, _ = scenes.scene()
    write_records(find_shards(out, "val")[0], [record(label, raw=False)])
    report = check(out)
    assert "its label isn't raw, so it tells no instances apart" in report.problems[0].places[0]
    # It is read all the same, its things as crowds.
    example = next(load(out, "val").as_numpy_iterator())
    np.testing.assert_array_equal(example["panoptic_label"], label * 256)


@pytest.mark.parametrize("known", ["cityscapes_panoptic", "coco_panoptic", "ade20k_panoptic"])
def test_records_of_the_official_code_are_taken_over_by_a_known_list(tmp_path, known):
    classes = find_classes(known)
    divisor, thing = classes.label_divisor, classes.things[0]
    stuff = next(
        v for v in range(len(classes.names)) if v not in classes.things and v != classes.ignored
    )
    label = np.array([[thing, thing], [stuff, classes.ignored]], np.int32) * divisor
    label[0] += (1, 2)
    out = write_split(tmp_path / "out", [label])
    with pytest.raises(InputError, match="data describe"):
        DatasetDescriptor.load(out)
    descriptor = describe_records(out, known)
    assert descriptor == DatasetDescriptor.load(out)
    assert descriptor.thing_classes == classes.things and descriptor.label_divisor == divisor
    assert descriptor.ignore_label == classes.ignored
    assert descriptor.pixel_share[thing] == pytest.approx(2 / 3, abs=1e-5)
    assert classes_of(descriptor).void == classes.void == label[1, 1]
    example = next(load(out, "train").as_numpy_iterator())
    np.testing.assert_array_equal(example["panoptic_label"], label)
    counts = {"cityscapes_panoptic": 19, "coco_panoptic": 134, "ade20k_panoptic": 151}
    assert len(classes.names) == counts[known]


def test_records_of_own_classes_need_the_divisor(scenes, tmp_path):
    out = write_split(tmp_path / "out", [scenes.panoptic(seed, 1000) for seed in range(2)])
    scenes.write_classes(tmp_path)
    path = tmp_path / "classes.csv"
    with pytest.raises(InputError, match="give the divisor they were made with"):
        describe_records(out, path)
    with pytest.raises(InputError, match=r"fit the divisor 1000: use --label-divisor 1000\."):
        describe_records(out, path, label_divisor=256)
    assert describe_records(out, path, label_divisor=1000).label_divisor == 1000
    path.write_text("index,name\n0,road\n1,sky\n2,person\n3,car")
    with pytest.raises(InputError, match="no class is a thing"):
        check(out, classes=path, label_divisor=1000)
    report = check(out, classes=path)
    fix = next(p.fix for p in report.problems if p.kind == "values")
    assert "mostly class * divisor + instance" in fix


def test_a_known_panoptic_list_also_serves_plain_label_maps(tmp_path):
    out = write_split(tmp_path / "out", [np.array([[0, 11], [13, 255]])], raw=False)
    descriptor = describe_records(out, "cityscapes_panoptic")
    assert descriptor.label_divisor is None and descriptor.thing_classes == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"thing_classes": [4]}, "thing_classes [4] aren't all of 0..3"),
        ({"label_divisor": 1}, "a label_divisor is 2 or more, got 1"),
        ({"thing_classes": []}, "panoptic labels need thing_classes"),
        ({"ignore_label": None}, "panoptic labels need an ignore_label"),
        ({"category_ids": [1]}, "1 category_ids for 4 classes"),
        ({"label_divisor": "x"}, "not a data set description"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(scene_records, tmp_path, change, reason):
    value = json.loads((scene_records / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(InputError) as error:
        DatasetDescriptor.load(tmp_path)
    assert reason in str(error.value)


def test_descriptions_of_earlier_versions_are_read(scene_records, tmp_path):
    value = json.loads((scene_records / "dataset.json").read_text())
    for name in ("thing_classes", "label_divisor", "category_ids"):
        del value[name]
    (tmp_path / "dataset.json").write_text(json.dumps(value))
    descriptor = DatasetDescriptor.load(tmp_path)
    assert descriptor.label_divisor is None and descriptor.thing_classes == ()


def test_instances_are_seen_by_class(scenes, tmp_path):
    scenes.write_classes(tmp_path)
    classes = read_classes(tmp_path / "classes.csv").panoptic(256)
    seen = see(scenes.panoptic(), classes, "a")
    assert seen.instances == {2: 2, 3: 1} and seen.crowds == (2,) and seen.problems == ()
    assert seen.counts.sum() == 12 * 16 and seen.counts[255] == 3


def test_a_page_of_samples_shows_instances_apart(scenes, scene_records, tmp_path):
    root = scenes.write_pairs(tmp_path / "set")
    for target in (scene_records, root):
        sheet = draw_samples(target, "train", count=2)
        assert len(sheet.shown) == 2 and sheet.mistakes == ()
    descriptor = DatasetDescriptor.load(scene_records)
    persons = np.array([[2 * 256 + 1, 2 * 256 + 2]])
    shades = panoptic_colors(persons, descriptor.colors, (2, 3), 256)[0].astype(int)
    assert (shades[0] != shades[1]).any()
    for shade in shades:  # as exactly as the page shows small pictures
        assert abs(sheet.page.astype(int) - shade).max(-1).min() <= 8


# --- Transforms and batches -----------------------------------------------------------------------


def test_large_labels_are_sampled_exactly_though_pictures_are_float32():
    """2^24 + 1 is the first whole number that float32 lacks."""
    label = np.random.default_rng(0).integers(2**24, 2**31 - 1, (40, 50)).astype(np.int32)
    label[0, 0] = 2**24 + 1
    example = {"image": tf.zeros([40, 50, 3]), "panoptic_label": tf.constant(label)}
    same = transforms.sample(
        example, [0.0, 0.0], [39.0, 49.0], size=(40, 50), ignore_label=255, label_divisor=65536
    )
    np.testing.assert_array_equal(same["panoptic_label"], label)
    beyond = transforms.sample(
        example, [-2.0, 0.0], [39.0, 51.0], size=(42, 52), ignore_label=255, label_divisor=65536
    )["panoptic_label"].numpy()
    np.testing.assert_array_equal(beyond[2:, :50], label)
    assert (beyond[:2] == 255 * 65536).all() and (beyond[:, 50:] == 255 * 65536).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), mirror=st.booleans(), style=st.sampled_from(["crop", "stretch"]))
def test_both_labels_go_the_same_way(seed, mirror, style):
    panoptic = np.random.default_rng(seed).integers(0, 9000, (30, 36)).astype(np.int32)
    example = {
        "image": tf.zeros([30, 36, 3]),
        "semantic_label": tf.constant(panoptic // 300),
        "panoptic_label": tf.constant(panoptic),
    }
    pair = tf.constant([seed, 5])
    if style == "crop":
        result = transforms.random_scaled_crop(
            example,
            pair,
            size=(33, 17),
            scales=np.float32([0.5, 1.0, 1.6]),
            mirror=mirror,
            label_divisor=300,
        )
    else:
        result = transforms.random_resized_crop(example, pair, size=(33, 17), mirror=mirror)
    np.testing.assert_array_equal(result["panoptic_label"] // 300, result["semantic_label"])
    for step in (
        lambda e: transforms.resize(e, [11, 60]),
        lambda e: transforms.stretch(e, (11, 60)),
        lambda e: transforms.flip(e),
        lambda e: transforms.crop_at(e, [3, 4], (9, 9)),
        lambda e: transforms.pad_to(e, (41, 60), pixel=0.0, ignore_label=255, label_divisor=300),
    ):
        result = step(example)
        np.testing.assert_array_equal(result["panoptic_label"] // 300, result["semantic_label"])


def test_padding_panoptic_labels_needs_the_divisor():
    example = {"image": tf.zeros([2, 2, 3]), "panoptic_label": tf.zeros([2, 2], tf.int32)}
    with pytest.raises(ValueError, match="label_divisor"):
        transforms.pad_to(example, (3, 3), pixel=0.0, ignore_label=255)


OPTIONS = dict(image_size=(24, 24), batch_size=2, training=False)


def test_semantic_batches_of_panoptic_records_are_those_of_plain_ones(
    scenes, scene_records, tmp_path
):
    plain = shutil.copytree(scene_records, tmp_path / "plain")
    for shard in plain.glob("*.tfrecord"):
        kept = [e for e in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()]
        changed = []
        for value in kept:
            example = tf.train.Example.FromString(value)
            features = example.features.feature
            label = decode_example(value, 256)["semantic_label"].numpy()
            features["image/segmentation/class/encoded"].bytes_list.value[0] = encode_label_map(
                label.astype(np.uint8)
            )
            features["image/segmentation/class/format"].bytes_list.value[0] = b"png"
            changed.append(example.SerializeToString())
        write_records(shard, changed)
    value = json.loads((plain / "dataset.json").read_text())
    (plain / "dataset.json").write_text(json.dumps({**value, "label_divisor": None}))
    for options in (
        OPTIONS,
        {**OPTIONS, "resize": "stretch"},
        {**OPTIONS, "training": True, "augment": Augment(), "seed": 3},
        {**OPTIONS, "training": True, "augment": Augment(style="resized_crop")},
    ):
        one = pipeline(scene_records, "train", **options).take(5)
        other = pipeline(plain, "train", **options).take(5)
        for (x, y), (u, v) in zip(one.as_numpy_iterator(), other.as_numpy_iterator(), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
            assert y.dtype == np.int32


@pytest.mark.parametrize("training", [False, True])
def test_panoptic_batches_hold_the_targets_of_the_cropped_labels(scenes, scene_records, training):
    options = {**OPTIONS, "training": training}
    options["augment"] = Augment(scale=(0.75, 1.5)) if training else None
    made = dict(sigma=2.0, small_instance_area=16, small_instance_weight=5.0)
    batches = pipeline(scene_records, "train", targets="panoptic", **made, **options)
    semantic = pipeline(scene_records, "train", **options)
    shapes = {"semantic_logits": (), "center_heatmap": (1,), "offset_map": (2,)}
    spec = batches.element_spec
    assert {k: tuple(v.shape[1:]) for k, v in spec[1].items()} == {
        k: (24, 24, *v) for k, v in shapes.items()
    }
    assert {k: tuple(v.shape[1:]) for k, v in spec[2].items()} == {k: (24, 24) for k in shapes}
    heavy = 0
    for (x, targets, weights), (u, label) in zip(
        batches.take(4).as_numpy_iterator(), semantic.take(4).as_numpy_iterator(), strict=True
    ):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(targets["semantic_logits"], label)
        assert targets["semantic_logits"].dtype == np.int32
        assert targets["offset_map"].dtype == weights["offset_map"].dtype == np.float32
        inside = weights["offset_map"] > 0
        assert not inside[label != 2][label[label != 2] != 3].any()
        assert (weights["center_heatmap"] > 0).sum() == (label != 255).sum() - (
            np.isin(label, (2, 3)) & ~inside
        ).sum()
        # Every pixel of an instance points to a place where the heatmap peaks, if it is in view.
        for b, y, x_ in np.argwhere(inside):
            cy, cx = (np.array([y, x_]) + targets["offset_map"][b, y, x_]).astype(int)
            assert targets["center_heatmap"][b, cy, cx, 0] == 1
        heavy += (weights["semantic_logits"] == 5).sum()
    assert heavy > 0


def test_one_ordered_pass_has_the_targets_of_each_record(scene_records):
    batches = pipeline(scene_records, "val", targets="panoptic", **OPTIONS)
    (_, targets, weights), example = next(iter(batches)), next(iter(load(scene_records, "val")))
    label = np.full((24, 24), VOID, np.int32)
    # 12 x 16 is smaller than the batch, so nothing is scaled.
    label[:12, :16] = example["panoptic_label"]
    wanted = panoptic_targets(label, label_divisor=256, thing_classes=(2, 3), ignore_label=255)
    for found, made in zip((targets, weights), wanted, strict=True):
        for name, value in made.items():
            np.testing.assert_array_equal(found[name][0], value)


def test_targets_that_records_can_not_give_are_refused(shapes_records, scene_records):
    with pytest.raises(InputError, match="tell no instances apart"):
        pipeline(shapes_records, "train", targets="panoptic", **OPTIONS)
    with pytest.raises(InputError, match="semantic, panoptic, masks, instances; got 'centers'"):
        pipeline(scene_records, "train", targets="centers", **OPTIONS)


def test_instances_are_the_panoptic_labels_themselves(scene_records):
    image, label = next(iter(pipeline(scene_records, "val", targets="instances", **OPTIONS)))
    example = next(iter(load(scene_records, "val")))
    assert label.dtype == np.int32 and image.shape[:3] == label.shape
    np.testing.assert_array_equal(label[0, :12, :16], example["panoptic_label"])
    assert np.all(label[0, 12:] == VOID)
