"""Exported panoptic models find the instances that the model finds."""

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.export import VerificationError, export_model, read_metadata
from deeplab_tf.export.benchmark import LiteModel, measure_lite_file
from deeplab_tf.export.lite_file import read_lite_file
from deeplab_tf.export.panoptic import listed_segments, merged
from deeplab_tf.export.saved_model import ServedModel, write_saved_model
from deeplab_tf.export.tflite import SCHEMES
from deeplab_tf.inference.lite_maps import input_sized
from deeplab_tf.inference.litert import LiteRTRunner
from deeplab_tf.inference.panoptic import HeadScoreMap
from deeplab_tf.inference.runner import KerasRunner, load_runner
from deeplab_tf.inference.segment import Segmentation, segment
from deeplab_tf.layers.resize import ResizeLike, ResizeOffsetsLike
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.postprocess.merge_settings import MergeSettings
from deeplab_tf.postprocess.segments import segments

INFO = dl.ModelInfo(
    classes=("ground", "water", "ball"),
    colors=((0, 0, 0), (0, 0, 255), (255, 0, 0)),
    image_size=(65, 65),
    resize="stretch",
    thing_classes=(2,),
    label_divisor=100,
    merge={"stuff_area_limit": 100},
    training={"steps": 3},
)
VOID = 25500
MAPS = {"probabilities": 3, "center_heatmap": 1, "offset_map": 2}


class Painted(SegmentationModel):
    """Reads its answer off the picture, at every fourth pixel: see `scene`."""

    def __init__(self, image_shape=(None, None, 3)):
        image = keras.Input(image_shape, name=keys.IMAGE)
        outputs, endpoints = {}, {}
        for key, name, kernel, bias in (
            # About the square of the distance of red to 0, 100 and 200, but for what all have.
            (keys.SEMANTIC_LOGITS, "logits", [[0, 2, 4], [0] * 3, [0] * 3], [0, -90, -370]),
            (keys.CENTER_HEATMAP, "center_heatmap_raw", [[0], [0], [1 / 255]], [0]),
            # Green is (x offset in pixels) * 2 + 128.
            (keys.OFFSET_MAP, "offset_map_raw", [[0, 0], [0, 1 / 8], [0, 0]], [0, -16]),
        ):
            head = layers.Conv2D(len(bias), 1, strides=4, name=name)
            x = head(image)
            scale = 1 / 80 if key == keys.SEMANTIC_LOGITS else 1
            head.set_weights([np.array(kernel)[None, None] * scale, np.array(bias) * scale])
            resize = ResizeOffsetsLike if key == keys.OFFSET_MAP else ResizeLike
            outputs[key] = resize(name=key)([x, image])
            endpoints[name] = head.name
        super().__init__(image, outputs, name="painted")
        self._finish({}, endpoints)
        self.info = INFO


def scene(seed: int, size=(65, 65), balls: int = 4) -> np.ndarray:
    """Balls on ground and water: uint8 [H, W, 3]. Red: the class; green: offset; blue: heat."""
    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.zeros((*size, 3), np.float32)
    image[..., 1] = 128
    image[height // 2 :, :, 0] = 100
    unit = min(size) / 65
    corners = [(row, column) for row in range(2) for column in range(2)]
    for row, column in corners[:balls]:
        center = random.uniform(0.22, 0.28, 2) + 0.5 * np.array([row, column])
        center = center * (height - 1, width - 1)
        dy, dx = center[0] - y, center[1] - x
        squared = (dy**2 + dx**2) / unit**2
        inside = squared < random.uniform(9, 13) ** 2
        image[inside, 0] = 200
        image[inside, 1] = 128 + 2 * dx[inside]
        image[..., 2] = np.maximum(image[..., 2], 240 * np.exp(-squared / 100))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def painted():
    return Painted()


@pytest.fixture(scope="module")
def scenes():
    """Sixteen pictures of the model's size."""
    return [scene(seed, balls=1 + seed % 4) for seed in range(16)]


@pytest.fixture(scope="module")
def served(painted, scenes, tmp_path_factory):
    """(folder, report)."""
    folder = tmp_path_factory.mktemp("served") / "1"
    others = [scene(20, (97, 75)), scene(21, (51, 120)), scene(22, (40, 40), balls=3)]
    report = export_model(painted, folder, to="saved_model", calibration=scenes[:3] + others)
    return folder, report


@pytest.fixture(scope="module")
def files(painted, scenes, tmp_path_factory):
    """Scheme -> (path, report)."""
    folder = tmp_path_factory.mktemp("lite")
    found = {}
    for name in SCHEMES:
        path = folder / f"{name}.tflite"
        report = folder / f"{name}.json"
        found[name] = (
            path,
            export_model(painted, path, quantize=name, calibration=scenes, report=report),
        )
    return found


# --- SavedModel ---


def test_at_the_models_size_a_saved_model_merges_as_predict_does(served, painted, scenes):
    runner, reference = load_runner(served[0]), load_runner(painted)
    for picture in scenes[:6]:
        found, wanted = segment(runner, picture), segment(reference, picture)
        np.testing.assert_array_equal(found.panoptic_label, wanted.panoptic_label)
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
        assert_same_segments(found, wanted)


def assert_same_segments(found: Segmentation, wanted: Segmentation) -> None:
    mine, theirs = (
        [dataclasses.replace(s, score=None) for s in x.segments] for x in (found, wanted)
    )
    assert mine == theirs
    for one, other in zip(found.segments, wanted.segments, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_one_call_gives_the_map_and_the_segments(served, scenes):
    model = ServedModel(served[0])
    found = model.outputs(scenes[3])
    listed = segments(
        found["panoptic_label"],
        found["instance_score"],
        label_divisor=100,
        thing_classes=(2,),
        void_label=255,
    )
    assert found["segment_ids"].tolist() == [s.id for s in listed] == [0, 100, 201, 202, 203, 204]
    assert found["segment_classes"].tolist() == [s.class_id for s in listed]
    assert found["segment_areas"].tolist() == [s.area for s in listed]
    assert found["segment_boxes"].tolist() == [list(s.box) for s in listed]
    np.testing.assert_allclose(found["segment_scores"], [s.score or 0 for s in listed], atol=1e-6)
    types = {name: x.dtype.name for name, x in found.items()}
    assert types.pop("probabilities") == types.pop("instance_score") == "float32"
    assert types.pop("segment_scores") == "float32" and {*types.values()} == {"int32"}


def test_a_batch_is_padded_to_the_most_segments(served, scenes):
    outputs = tf.saved_model.load(str(served[0])).signatures["serving_default"](
        image=tf.constant(np.stack([scenes[0], scenes[3]]))
    )
    assert outputs["panoptic_label"].shape == (2, 65, 65)
    assert outputs["segment_ids"].numpy().tolist() == [
        [0, 100, 201, -1, -1, -1],
        [0, 100, 201, 202, 203, 204],
    ]
    assert outputs["segment_classes"].numpy()[0].tolist() == [0, 1, 2, -1, -1, -1]
    for name in ("segment_areas", "segment_boxes", "segment_scores"):
        assert not outputs[name].numpy()[0, 3:].any()


def test_files_of_several_sizes_go_in_one_batch(served):
    pictures = [scene(30, (97, 75), balls=2), scene(31, (51, 120))]
    loaded = tf.saved_model.load(str(served[0]))
    outputs = loaded.signatures["encoded"](encoded_image=tf.constant([png(p) for p in pictures]))
    found = {name: x.numpy() for name, x in outputs.items()}
    assert found["sizes"].tolist() == [[97, 75], [51, 120]]
    assert found["panoptic_label"].shape == (2, 97, 120)
    model = ServedModel(served[0])
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        alone = model.outputs(picture)
        np.testing.assert_array_equal(
            found["panoptic_label"][i, :height, :width], alone["panoptic_label"]
        )
        outside = found["panoptic_label"][i].copy()
        outside[:height, :width] = VOID
        assert (outside == VOID).all()
        count = len(alone["segment_ids"])
        for name in ("segment_ids", "segment_boxes", "segment_scores"):
            np.testing.assert_array_equal(found[name][i, :count], alone[name])
    assert found["segment_ids"][0].tolist()[-2:] == [-1, -1]


def test_the_report_has_the_segments(served):
    folder, report = served
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["agreement"] > 0.999 and report["encoded_agreement"] == 1.0
    assert 0.99 < report["panoptic_quality"] <= 1 and report["panoptic_threshold"] == 0.97
    assert report["segments"] == {"found": 29, "missed": 0, "invented": 0}
    assert "segment_ids" in report["signatures"]["encoded"]["outputs"]


@pytest.mark.parametrize(
    ("rule", "merge", "labels"),
    [("fit", "compiled", "probabilities"), ("none", "tensorflow", "argmax")],
)
def test_every_rule_is_kept(rule, merge, labels, tmp_path):
    """Of resizing, and of merging: water of fewer pixels than the limit is void."""
    size = (49, 81) if rule == "fit" else None
    merging = {"rule": merge, "stuff_area_limit": 1500, "nms_kernel": 9}
    model = Painted()
    model.info = dataclasses.replace(INFO, resize=rule, image_size=size, merge=merging)
    folder = tmp_path / "served"
    write_saved_model(model, folder, info=model.info, labels=labels)
    (folder / "deeplab_tf.json").write_text(json.dumps(model.info.to_json()))
    outputs = ServedModel(folder).signatures["serving_default"]["outputs"]
    assert (labels == "argmax") == ("labels" in outputs) != ("probabilities" in outputs)
    found, wanted = load_runner(folder), load_runner(model)
    for picture in (scene(40, (97, 75)), scene(41, (65, 65)), scene(42, (98, 162), balls=2)):
        mine, theirs = segment(found, picture), segment(wanted, picture)
        assert (mine.panoptic_label == theirs.panoptic_label).mean() > 0.995
        assert [s.id for s in mine.segments] == [s.id for s in theirs.segments]
        assert (mine.labels == theirs.labels).mean() > 0.995
    assert VOID in wanted.scores(scene(41)).panoptic_label


@pytest.fixture(scope="module", params=["tensorflow", "compiled"])
def graph(request):
    """(settings, the merge as a function of maps and size), for maps and pictures of any size."""
    settings = MergeSettings((1, 3), 50, 7, nms_kernel=3, stuff_area_limit=170, rule=request.param)
    shapes = {keys.PROBABILITIES: 4, keys.CENTER_HEATMAP: 1, keys.OFFSET_MAP: 2}
    spec = {name: tf.TensorSpec([None, 27, None, count]) for name, count in shapes.items()}
    function = tf.function(
        lambda maps, size: merged(maps, size, settings),
        input_signature=[spec, tf.TensorSpec([2], tf.int32)],
    )
    return settings, function


@pytest.mark.parametrize("size", [(27, 33), (33, 41), (70, 90), (20, 150), (81, 99)])
def test_the_merge_in_the_graph_is_the_merge_outside(graph, size):
    """Random maps have what pictures seldom have: classes of few pixels, hundreds of centres."""
    random = np.random.default_rng(0)
    classes = random.random((2, 9, 11, 4)).astype(np.float32) ** 4
    maps = {
        keys.PROBABILITIES: classes.repeat(3, axis=1).repeat(3, axis=2),
        keys.CENTER_HEATMAP: random.random((2, 27, 33, 1)).astype(np.float32),
        keys.OFFSET_MAP: random.normal(0, 4, (2, 27, 33, 2)).astype(np.float32),
    }
    settings, merge = graph
    found = {name: x.numpy() for name, x in merge(maps, tf.constant(size)).items()}
    label, score = found[keys.PANOPTIC_LABEL], found[keys.INSTANCE_SCORE]
    listed = listed_segments(label, score, settings)["segment_ids"].numpy()
    for i in range(2):
        heatmap, offsets = maps[keys.CENTER_HEATMAP][i, ..., 0], maps[keys.OFFSET_MAP][i]
        wanted = HeadScoreMap(maps[keys.PROBABILITIES][i], size, settings, heatmap, offsets)
        assert (label[i] == wanted.panoptic_label).mean() > (0.99 if min(size) < 27 else 0.999)
        options = dict(label_divisor=50, thing_classes=settings.thing_classes, void_label=7)
        ids = [s.id for s in segments(label[i], **options)]
        assert listed[i].tolist() == ids + [-1] * (listed.shape[1] - len(ids))


# --- TFLite ---


@pytest.mark.parametrize("name", SCHEMES)
def test_a_file_gives_three_maps_at_the_heads_stride(name, files):
    path, report = files[name]
    facts = read_lite_file(path)
    assert facts.custom == () and facts.inputs[0].dtype == "uint8"
    assert {o["name"]: (o["shape"], o["dtype"]) for o in report["outputs"]} == {
        key: ([1, 17, 17, count], "float32") for key, count in MAPS.items()
    }
    assert report["merge_ms"] > 0
    assert {*LiteModel(path).output_names} == {*MAPS}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_finds_the_models_instances(name, files, painted, scenes):
    path, report = files[name]
    assert report["agreement"] >= report["threshold"]
    assert report["panoptic_quality"] >= SCHEMES[name].panoptic_threshold
    assert report["segments"]["missed"] == report["segments"]["invented"] == 0
    for picture in (scenes[3], scene(50, (130, 97))):
        found, wanted = segment(path, picture), segment(painted, picture)
        assert [s.id for s in found.segments] == [s.id for s in wanted.segments]
        assert (found.panoptic_label == wanted.panoptic_label).mean() > 0.97


def test_a_float_file_gives_the_models_own_maps(files, painted, scenes):
    found, wanted = LiteRTRunner(files["float32"][0]), KerasRunner(painted)
    mine, theirs = (runner.maps(np.stack(scenes[:2])) for runner in (found, wanted))
    np.testing.assert_allclose(mine["probabilities"], theirs["probabilities"], atol=2e-3)
    np.testing.assert_allclose(mine["offset_map"], theirs["offset_map"], atol=2e-3)
    # The picture's own 8 bits make ties here, which cost up to half a step.
    np.testing.assert_allclose(mine["center_heatmap"], theirs["center_heatmap"], atol=0.51 / 255)


def test_the_file_says_what_it_is(files):
    content = files["int8"][0].read_bytes()
    found = read_metadata(content)
    assert found.info == dataclasses.replace(INFO, training={})
    assert found.labels == INFO.classes
    # Nothing that MediaPipe's segmenter would take for its own.
    assert found.activation is None


def test_a_file_is_measured_with_its_merge(files):
    measured = measure_lite_file(files["int8"][0], threads=(1,), seconds=0.01)
    assert measured["merge_ms"] > 0 and measured["latency_ms"]["1"] > 0


def test_segments_that_differ_too_much_keep_the_old_file(painted, scenes, tmp_path, monkeypatch):
    def without_centers(maps, size):
        found = input_sized(maps, size)
        return {**found, keys.CENTER_HEATMAP: 0 * found[keys.CENTER_HEATMAP]}

    monkeypatch.setattr("deeplab_tf.inference.litert.input_sized", without_centers)
    path = tmp_path / "balls.tflite"
    path.write_bytes(b"old")
    with pytest.raises(VerificationError, match="panoptic quality is only") as caught:
        export_model(painted, path, calibration=scenes)
    assert caught.value.report["agreement"] == 1 and caught.value.report["panoptic_quality"] < 0.7
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == [path.name]
    # Who wants it all the same may say so.
    assert export_model(painted, path, calibration=scenes, panoptic_threshold=0.5)


# --- Mistakes ---


def test_a_model_that_knows_no_classes_is_refused(painted, tmp_path):
    outputs = {name: painted.output[name] for name in (keys.CENTER_HEATMAP, keys.OFFSET_MAP)}
    half = keras.Model(painted.input, outputs, name="half")
    with pytest.raises(InputError, match="half finds centres .* no classes .tasks='instance'"):
        export_model(half, tmp_path / "a.tflite", size=33)


def test_a_record_that_does_not_say_what_things_are_is_refused(tmp_path):
    model = Painted()
    model.info = dl.ModelInfo(classes=INFO.classes, image_size=(65, 65), resize="stretch")
    for to, name in (("tflite", "a.tflite"), ("saved_model", "a")):
        with pytest.raises(InputError, match="painted can't be exported: .* thing_classes"):
            export_model(model, tmp_path / name, to=to)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_labels_could_not_be_merged(painted, tmp_path):
    with pytest.raises(InputError, match="leave labels='argmax' out"):
        export_model(painted, tmp_path / "a.tflite", labels="argmax", check_pictures=1)


def test_a_threshold_beyond_all_is_refused(painted, tmp_path):
    with pytest.raises(InputError, match="panoptic_threshold is a quality, 0 to 1; got 2"):
        export_model(painted, tmp_path / "a.tflite", panoptic_threshold=2)
