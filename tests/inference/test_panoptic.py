"""What a panoptic model says becomes instances at a picture's own size, and files of them."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import FlippedRunner, Runner, ScoreMap
from deeplab_tf.inference.panoptic import HeadScoreMap, PanopticScoreMap, merge_settings
from deeplab_tf.inference.runner import KerasRunner, load_runner
from deeplab_tf.inference.segment import OUTPUTS, segment
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.panoptic_format import decode_ids
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.panoptic_numpy import merge

GROUND, DISC = 0, 1
DIVISOR, VOID = 100, 255
INFO = ModelInfo(
    classes=("ground", "disc"),
    colors=((0, 0, 0), (250, 120, 0)),
    ignore_label=VOID,
    thing_classes=(DISC,),
    label_divisor=DIVISOR,
    merge={"stuff_area_limit": 0, "nms_kernel": 3},
)
SETTINGS = MergeSettings((DISC,), DIVISOR, VOID, stuff_area_limit=0, nms_kernel=3)
# (y, x, radius) in shares of the height; as the rows of a picture meet them.
DISCS = ((0.3, 0.9, 0.24), (0.38, 0.3, 0.18), (0.75, 0.6, 0.15))


def discs(height=40, width=56) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A true panoptic map [H, W], and what a perfect model says of its picture."""
    y, x = np.indices((height, width))
    label = np.zeros((height, width), np.int32)
    offsets = np.zeros((height, width, 2), np.float32)
    heatmap = np.zeros((height, width), np.float32)
    for number, place in enumerate(DISCS, 1):
        top, left, radius = (share * height for share in place)
        inside = (y + 0.5 - top) ** 2 + (x + 0.5 - left) ** 2 < radius**2
        center = round(y[inside].mean()), round(x[inside].mean())
        label[inside] = DISC * DIVISOR + number
        offsets[inside] = np.stack([center[0] - y, center[1] - x], -1)[inside]
        spread = np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / 8)
        heatmap = np.maximum(heatmap, (1 - number / 10) * spread.astype(np.float32))
    classes = np.where(label > 0, 0.9, 0.1).astype(np.float32)
    maps = {
        keys.PROBABILITIES: np.stack([1 - classes, classes], -1),
        keys.CENTER_HEATMAP: heatmap[..., None],
        keys.OFFSET_MAP: offsets,
    }
    return label, maps


def scores(size, maps=None, settings=SETTINGS) -> HeadScoreMap:
    """Of the maps of `discs`, at a picture's size."""
    maps = maps or discs()[1]
    heatmap = maps[keys.CENTER_HEATMAP][..., 0]
    return HeadScoreMap(maps[keys.PROBABILITIES], size, settings, heatmap, maps[keys.OFFSET_MAP])


class Discs(Runner):
    """Sees the discs in any picture; of half its size, as models of a fixed size do."""

    def __init__(self, info: ModelInfo = INFO, step: int = 1):
        self.name, self.info, self.step = "discs", info, step

    def forward(self, batch):
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch):
        height, width = (side // self.step for side in batch.shape[1:3])
        _, maps = discs(height, width)
        return {name: np.stack([x] * len(batch)) for name, x in maps.items()}


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def areas(label: np.ndarray) -> list[int]:
    """Of the instances, by their number."""
    return np.bincount(label.ravel())[DISC * DIVISOR + 1 :].tolist()


def test_at_its_own_size_it_is_the_merge():
    truth, maps = discs()
    found = scores((40, 56)).merged
    wanted = merge(truth // DIVISOR, maps[keys.CENTER_HEATMAP], maps[keys.OFFSET_MAP], SETTINGS)
    assert [*found] == [*wanted]
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    np.testing.assert_array_equal(found["panoptic_label"], truth)


@pytest.mark.parametrize("size", [(160, 224), (120, 112), (20, 28), (41, 55)])
def test_another_size_keeps_the_instances_and_scales_their_areas(size):
    truth, _ = discs()
    found = scores(size)
    label = found.panoptic_label
    assert label.shape == size and label.dtype == np.int32
    scale = size[0] * size[1] / truth.size
    assert len(areas(label)) == len(DISCS)
    np.testing.assert_allclose(areas(label), np.multiply(areas(truth), scale), rtol=0.15)
    # Every instance lies where it lay: no pixel of a disc belongs to its neighbour.
    rows = (np.arange(size[0]) + 0.5) * 40 / size[0]
    columns = (np.arange(size[1]) + 0.5) * 56 / size[1]
    nearest = truth[np.ix_(rows.astype(int), columns.astype(int))]
    both = (nearest > 0) & (label > 0)
    np.testing.assert_array_equal(label[both], nearest[both])
    np.testing.assert_array_equal(label // DIVISOR, found.labels())
    # An instance's score is its centre's, whatever the size.
    score = found.merged["instance_score"]
    for number, value in ((1, 0.9), (2, 0.8), (3, 0.7)):
        np.testing.assert_allclose(score[label == DISC * DIVISOR + number], value, atol=1e-5)
    assert score[label == 0].max() == 0


def test_a_picture_far_smaller_than_the_map_keeps_the_highest_of_two_peaks():
    found = scores((3, 4)).merged
    assert np.isfinite(found["instance_score"]).all()
    assert set(np.unique(found["panoptic_label"] // DIVISOR)) <= {GROUND, DISC}


def test_the_least_area_of_stuff_is_in_pixels_of_the_map():
    _, maps = discs()
    ground = int((maps[keys.PROBABILITIES][..., 0] > 0.5).sum())
    for limit, kept in ((ground - 60, True), (ground + 60, False)):
        settings = dataclasses.replace(SETTINGS, stuff_area_limit=limit)
        for size in ((40, 56), (80, 112), (20, 28)):
            label = scores(size, settings=settings).panoptic_label
            assert (label == 0).any() == kept
            assert (label == VOID * DIVISOR).any() != kept


def test_the_probability_of_a_map_of_classes_is_that_of_its_pixels():
    found = scores((80, 112))
    labels = np.zeros((80, 112), int)
    labels[:, 56:] = DISC
    probability = found.probability_of(labels)
    whole = found.probabilities()
    np.testing.assert_allclose(probability[:, :56], whole[:, :56, GROUND], atol=1e-6)
    np.testing.assert_allclose(probability[:, 56:], whole[:, 56:, DISC], atol=1e-6)


def test_a_record_says_how_maps_are_merged():
    assert merge_settings(INFO) == SETTINGS
    other = dataclasses.replace(INFO, merge={"rule": "pytorch", "center_threshold": 0.3})
    settings = merge_settings(other)
    assert (settings.rule, settings.center_threshold, settings.void_label) == ("pytorch", 0.3, 255)


@pytest.mark.parametrize(
    "changes", [{"label_divisor": None}, {"thing_classes": ()}, {"ignore_label": None}], ids=str
)
def test_a_record_that_says_nothing_of_instances_is_refused(changes):
    words = "thing_classes, label_divisor and ignore_label of its ModelInfo"
    with pytest.raises(InputError, match=words):
        merge_settings(dataclasses.replace(INFO, **changes))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="nms_kernel is at least 1; got 0"):
        merge_settings(dataclasses.replace(INFO, merge={"nms_kernel": 0}))


class LeftRight(Runner):
    """What it says differs between left and right, and so does the mirrored picture."""

    name, info = "left right", INFO

    def forward(self, batch):
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch):
        right = np.broadcast_to(np.linspace(0, 1, batch.shape[2]), batch.shape[:3])
        right = right.astype(np.float32)
        bright = batch[..., 0].astype(np.float32)
        return {
            keys.PROBABILITIES: np.stack([1 - right, right], -1),
            keys.CENTER_HEATMAP: bright[..., None],
            keys.OFFSET_MAP: np.stack([bright, bright + right], -1),
        }


def test_a_mirror_image_changes_the_sign_of_offsets_along_the_width_alone():
    runner, batch = LeftRight(), PICTURE[None]
    found = FlippedRunner(runner).maps(batch)
    plain = runner.maps(batch)
    back = {name: x[:, :, ::-1] for name, x in runner.maps(batch[:, :, ::-1]).items()}
    np.testing.assert_allclose(found[keys.PROBABILITIES], 0.5, atol=1e-6)
    np.testing.assert_allclose(found[keys.CENTER_HEATMAP], plain[keys.CENTER_HEATMAP])
    offsets = found[keys.OFFSET_MAP]
    np.testing.assert_allclose(offsets[..., 0], plain[keys.OFFSET_MAP][..., 0])
    one, other = plain[keys.OFFSET_MAP][..., 1], back[keys.OFFSET_MAP][..., 1]
    np.testing.assert_allclose(offsets[..., 1], (one - other) / 2, atol=1e-4)
    assert np.abs(offsets[..., 1]).max() <= 0.5 + 1e-4
    assert load_runner(runner, flip=True).name == "left right, flipped too"


def test_segmenting_gives_labels_segments_and_an_overlay():
    result = segment(Discs(), PICTURE)
    truth, _ = discs()
    assert result.is_panoptic and isinstance(result.scores, PanopticScoreMap)
    np.testing.assert_array_equal(result.panoptic_label, truth)
    np.testing.assert_array_equal(result.labels, truth // DIVISOR)
    found = result.segments
    assert [(s.class_id, s.instance) for s in found] == [(0, None), (1, 1), (1, 2), (1, 3)]
    assert [s.area for s in found[1:]] == areas(truth)
    assert [s.id for s in found] == [0, 101, 102, 103]
    assert found[0].score is None
    assert [s.score for s in found[1:]] == pytest.approx([0.9, 0.8, 0.7], abs=1e-5)
    for s in found[1:]:
        ys, xs = np.nonzero(truth == s.id)
        assert s.box == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
    overlay = result.overlay()
    assert overlay.shape == PICTURE.shape and overlay.dtype == np.uint8
    # The ground is black in the list of colours, so it stays clear but for outlines.
    clear = (truth == 0) & ~(overlay == 255).all(-1)
    assert clear.mean() > 0.5
    assert len({tuple(overlay[truth == s.id].mean(0).round()) for s in found[1:]}) == 3


def test_pictures_of_other_sizes_and_batches_of_them_are_merged_each():
    runner = Discs(step=2)
    images = [PICTURE, PICTURE[:36, :50], np.tile(PICTURE, (3, 3, 1))]
    for image, found in zip(images, runner.batch_scores(images), strict=True):
        assert isinstance(found, HeadScoreMap) and found.size == image.shape[:2]
        assert len(areas(found.panoptic_label)) == 3
    assert found.panoptic_label.shape == (120, 168)


def test_padding_is_cut_off_all_maps():
    info = dataclasses.replace(INFO, image_size=(64, 64), resize="fit")
    found = Discs(info).scores(np.zeros((32, 64, 3), np.uint8))
    assert found.values.shape == (32, 64, 2)
    assert found.center_heatmap.shape == (32, 64) and found.offset_map.shape == (32, 64, 2)


def test_a_folder_gets_ids_that_say_what_their_list_says(tmp_path):
    result = segment(Discs(), PICTURE)
    paths = result.save(tmp_path / "out")
    ends = [OUTPUTS[kind] for kind in ("mask", "overlay", "panoptic")]
    assert [path.name for path in paths] == [f"picture{end}" for end in ends]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("picture_mask.png", "picture_overlay.jpg", "picture_panoptic.json"),
        "picture_panoptic.png",
    ]
    ids = decode_ids(np.asarray(Image.open(tmp_path / "out" / "picture_panoptic.png")))
    listed = json.loads((tmp_path / "out" / "picture_panoptic.json").read_text())["segments"]
    assert {s["id"]: s["area"] for s in listed} == dict(
        zip(*(x.tolist() for x in np.unique(ids, return_counts=True)), strict=True)
    )
    assert [(s["class"], s["instance"]) for s in listed] == [
        *(("ground", None), ("disc", 1), ("disc", 2), ("disc", 3))
    ]
    for s in listed:
        x, y, width, height = s["box"]
        assert (ids == s["id"])[y : y + height, x : x + width].sum() == s["area"]
    mask = np.asarray(Image.open(paths[0]))
    np.testing.assert_array_equal(mask, result.labels)


def test_void_has_the_id_0_and_is_in_no_list(tmp_path):
    info = dataclasses.replace(INFO, merge={**INFO.merge, "stuff_area_limit": 10**6})
    result = segment(Discs(info), PICTURE)
    (path,) = result.save(tmp_path / "map.png", "panoptic")
    ids = decode_ids(np.asarray(Image.open(path)))
    truth, _ = discs()
    np.testing.assert_array_equal(ids == 0, truth == 0)
    listed = json.loads((tmp_path / "map.json").read_text())["segments"]
    assert [s["class"] for s in listed] == ["disc"] * 3
    with pytest.raises(InputError, match="panoptic ids need a .png; JPEG would change them"):
        result.save(tmp_path / "map.jpg", "panoptic")
    assert not (tmp_path / "map.jpg").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"window": (33, 33)},
            "discs tells instances apart, which windows would cut; leave window",
        ),
        ({"crf": "deeplab_v2_resnet_101"}, "tells instances apart, which the CRF would cut; leave"),
        ({"scales": (0.5, 1.0)}, "discs takes pictures at one size, so scales are impossible"),
    ],
)
def test_what_would_cut_instances_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        segment(Discs(), PICTURE, **options)


def test_a_model_of_classes_alone_has_no_instances_and_stays_as_it_is(tmp_path):
    class Semantic(Discs):
        def maps(self, batch):
            return {keys.PROBABILITIES: super().maps(batch)[keys.PROBABILITIES]}

    info = ModelInfo(INFO.classes, INFO.colors)
    result = segment(Semantic(info), PICTURE)
    assert type(result.scores) is ScoreMap and not result.is_panoptic
    for ask in (lambda: result.panoptic_label, lambda: result.segments):
        with pytest.raises(InputError, match="this model tells no instances apart; a panoptic"):
            ask()
    with pytest.raises(InputError, match="tells no instances apart"):
        result.save(tmp_path, "panoptic")
    names = [path.name for path in result.save(tmp_path / "out")]
    assert "picture_panoptic.png" not in names and len(names) == 2
    windows = segment(Semantic(info), PICTURE, window=(40, 56)).labels
    np.testing.assert_array_equal(windows, result.labels)


@pytest.fixture(scope="module")
def model():
    """A real network, tiny, with random weights."""
    heads = ("aspp", "decoder", "head", "instance_aspp", "instance_decoder", "instance_head")
    narrow = dict(backbone_layer_multiplier=0.34, backbone_width_multiplier=0.125)
    channels = {f"{head}_channels": 8 for head in heads}
    return dl.PanopticDeepLab(2, atrous_rates=(), **narrow, **channels)


def test_a_keras_model_with_a_record_gives_instances_and_without_it_classes(model):
    model.info = INFO
    found = load_runner(model).scores(PICTURE)
    assert isinstance(found, HeadScoreMap)
    raw = {name: np.asarray(x)[0] for name, x in model(PICTURE[None].astype("float32")).items()}
    np.testing.assert_allclose(found.center_heatmap, raw["center_heatmap"][..., 0], atol=1e-4)
    np.testing.assert_allclose(found.offset_map, raw["offset_map"], atol=1e-4)
    fused = load_runner(model, scales=(0.5, 1.0), flip=True)
    assert isinstance(fused, KerasRunner) and isinstance(fused.scores(PICTURE), HeadScoreMap)
    np.testing.assert_allclose(fused.probabilities(PICTURE).sum(-1), 1.0, atol=1e-5)
    model.info = ModelInfo(INFO.classes)
    assert type(load_runner(model).scores(PICTURE)) is ScoreMap


def test_the_instance_half_alone_cannot_segment(model):
    half = dl.PanopticDeepLab.from_config({**model.get_config(), "tasks": "instance"})
    with pytest.raises(InputError, match=r"tells no classes apart \(tasks='instance'\)"):
        segment(half, PICTURE)
