"""Panoptic models: what a run starts from, and what an evaluation finds."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import keys
from deeplab_tf.backbones import BACKBONES
from deeplab_tf.datasets import DatasetDescriptor
from deeplab_tf.datasets.targets import panoptic_targets
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner
from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.models.presets import from_preset
from deeplab_tf.training.build import build_model
from deeplab_tf.training.config import LossConfig, ModelConfig, PanopticConfig, TrainConfig
from deeplab_tf.training.evaluate import evaluate
from deeplab_tf.training.objectives import build_losses
from deeplab_tf.training.report import write_report
from deeplab_tf.training.tallies import CenterTally
from deeplab_tf.training.train import train

CLASSES, DISC, DIVISOR, VOID = ("ground", "disc", "bar"), 1, 256, 255
INFO = ModelInfo(
    CLASSES,
    ((0, 0, 0), (255, 0, 0), (0, 0, 255)),
    ignore_label=VOID,
    thing_classes=(DISC,),
    label_divisor=DIVISOR,
    merge={"stuff_area_limit": 0, "nms_kernel": 3},
)
HEADS = ("aspp", "decoder", "head", "instance_aspp", "instance_decoder", "instance_head")
SMALL = {f"{head}_channels": 8 for head in HEADS} | {"atrous_rates": ()}
TINY = {
    **SMALL,
    "backbone": "resnet50",
    "backbone_layer_multiplier": 0.34,
    "backbone_width_multiplier": 0.125,
}


def config(data, **changes) -> TrainConfig:
    arguments = changes.pop("arguments", TINY)
    model = ModelConfig("PanopticDeepLab", arguments)
    return TrainConfig(str(data), model, image_size=(33, 33), batch_size=4, steps=2, **changes)


# --- What a run starts from ---


@pytest.fixture(scope="module")
def descriptor(disc_records):
    return DatasetDescriptor.load(disc_records)


def test_the_data_and_the_config_say_how_maps_are_merged(disc_records, descriptor):
    settings = PanopticConfig(nms_kernel=7, stuff_area_limit=16, rule="pytorch")
    model = build_model(config(disc_records, panoptic=settings), descriptor, [].append)
    assert model.output["semantic_logits"].shape[-1] == 3
    assert (model.info.thing_classes, model.info.label_divisor) == ((DISC,), DIVISOR)
    assert (model.info.merge["nms_kernel"], model.info.merge["rule"]) == (7, "pytorch")
    assert model.info.classes == CLASSES
    losses = build_losses(model, config(disc_records), descriptor, VOID, None)["loss"]
    kinds = {name: type(loss) for name, loss in losses.items()}
    assert kinds == {
        "semantic_logits": SemanticLoss,
        "center_heatmap": CenterLoss,
        "offset_map": OffsetLoss,
    }
    with pytest.raises(InputError, match="nms_kernel is at least 1; got 0"):
        wrong = PanopticConfig(nms_kernel=0)
        build_model(config(disc_records, panoptic=wrong), descriptor, [].append)


def test_a_semantic_preset_gives_its_backbone(disc_records, descriptor):
    arguments = {**SMALL, "backbone": "mobilenet_v2", "depth_multiplier": 0.4, "divisible_by": 8}
    lines: list[str] = []
    wanted = config(disc_records, init="portrait", arguments=arguments)
    model = build_model(wanted, descriptor, lines.append)
    assert lines[0] == "starting from the backbone of portrait; decoders and heads are new"
    theirs = {w.path: np.asarray(w) for w in from_preset("portrait").weights}
    scope = f"{BACKBONES['mobilenet_v2'].scope}."
    taken = [w for w in model.weights if w.path.startswith(scope)]
    assert len(taken) > 200
    for weight in taken:
        np.testing.assert_array_equal(np.asarray(weight), theirs[weight.path])


def test_a_backbone_that_does_not_fit_is_refused_with_the_settings_of_the_one_that_is_there(
    disc_records, tmp_path
):
    arguments = {**SMALL, "backbone": "mobilenet_v2", "depth_multiplier": 0.25}
    with pytest.raises(InputError) as error:
        train(config(disc_records, init="portrait", arguments=arguments), tmp_path / "run")
    message = str(error.value)
    assert "init=portrait has the backbone mobilenet_v2, which doesn't fit the config's" in message
    assert (
        "set model.arguments.backbone=mobilenet_v2 model.arguments.depth_multiplier=0.4" in message
    )
    assert not (tmp_path / "run").exists()


def test_records_without_instances_are_refused_before_a_run_folder_is_made(drawn_records, tmp_path):
    words = f"{drawn_records}: its labels tell no instances apart, .*instances/.*data build --help"
    with pytest.raises(InputError, match=words):
        train(config(drawn_records), tmp_path / "run", say=[].append)
    assert not (tmp_path / "run").exists()


def test_half_a_model_without_classes_is_refused(disc_records, tmp_path):
    arguments = {**TINY, "tasks": "instance"}
    with pytest.raises(InputError, match="tasks=instance learns no classes"):
        train(config(disc_records, arguments=arguments), tmp_path / "run", say=[].append)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [{"class_weights": "auto"}, {"hard_example_mining_step": 5}, {"label_stride": 4}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_other_losses_are_refused(disc_records, tmp_path, settings):
    (key,) = settings
    with pytest.raises(InputError, match=f"loss.{key} isn't for panoptic models; leave it out"):
        train(config(disc_records, loss=LossConfig(**settings)), tmp_path / "run", say=[].append)
    assert not (tmp_path / "run").exists()


# --- What an evaluation finds ---


class Knowing(Runner):
    """Knows the truth of the pictures in a folder, and says it as the maps of a model.

    Args:
        folder: of images/, semantic/ and instances/.
        change: what it gets wrong: a label [H, W] before it becomes maps.
    """

    def __init__(self, folder, info: ModelInfo = INFO, change=lambda label: label):
        self.name, self.info = "knowing", info
        self._labels = {}
        for path in sorted((folder / "images").iterdir()):
            kinds, numbers = (
                np.asarray(Image.open(folder / part / path.name)).astype(np.int32)
                for part in ("semantic", "instances")
            )
            label = change(kinds * DIVISOR + numbers)
            self._labels[np.asarray(Image.open(path)).tobytes()] = label

    def forward(self, batch):
        return self.maps(batch)[keys.PROBABILITIES]

    def maps(self, batch):
        found = [self._of(self._labels[image.tobytes()]) for image in batch]
        return {name: np.stack([maps[name] for maps in found]) for name in found[0]}

    def _of(self, label):
        options = dict(label_divisor=DIVISOR, thing_classes=(DISC,), ignore_label=VOID, sigma=1.5)
        targets, _ = panoptic_targets(label, **options)
        classes = np.where(label // DIVISOR == VOID, 0, label // DIVISOR)
        return {
            keys.PROBABILITIES: (0.05 + 0.85 * np.eye(3)[classes]).astype(np.float32),
            keys.CENTER_HEATMAP: np.asarray(targets["center_heatmap"]),
            keys.OFFSET_MAP: np.asarray(targets["offset_map"]),
        }


def without_second(label):
    """The second disc of each picture becomes ground."""
    return np.where(label == DISC * DIVISOR + 2, 0, label)


@pytest.mark.parametrize("source", ["records", "folder"])
def test_who_knows_the_truth_scores_one(disc_folder, disc_records, source):
    data = disc_records if source == "records" else disc_folder
    scores = evaluate(Knowing(disc_folder), data, boundary=False)
    assert scores.mean_iou == 1.0
    found = scores.panoptic
    for part in (found.pq, found.sq, found.rq):
        assert part == {"all": 1.0, "things": 1.0, "stuff": 1.0}
    assert found.instance_ap["AP"] == found.instance_ap["AP50"] == pytest.approx(1.0)
    assert [(c.name, c.is_thing, c.missed, c.invented) for c in found.classes] == [
        *(("ground", False, 0, 0), ("disc", True, 0, 0), ("bar", False, 0, 0))
    ]
    # One to three discs in each of four pictures, and each has ground and a bar.
    assert [c.found for c in found.classes] == [4, 7, 4]
    assert [score.pq for score in scores.pictures] == [1.0] * 4


def test_what_is_missed_and_invented_is_counted(disc_folder, disc_records):
    def invent(label):
        """A disc in the lower corner, all of the bar gone."""
        label = np.where(label // DIVISOR == 2, 0, label)
        label[-4:, :4] = DISC * DIVISOR + 9
        return label

    missing = evaluate(Knowing(disc_folder, change=without_second), disc_records, boundary=False)
    disc = missing.panoptic.classes[DISC]
    assert (disc.found, disc.missed, disc.invented) == (5, 2, 0)
    assert disc.sq == 1.0 and disc.pq == disc.rq == pytest.approx(5 / 6)
    assert missing.panoptic.instance_ap["AR_100"] == pytest.approx(5 / 7)
    more = evaluate(Knowing(disc_folder, change=invent), disc_records, boundary=False)
    counts = [(c.found, c.missed, c.invented) for c in more.panoptic.classes]
    assert counts == [(4, 0, 0), (7, 0, 4), (0, 4, 0)]
    assert more.panoptic.pq["stuff"] < more.panoptic.pq["things"] < 1


def test_the_models_divisor_may_be_another_than_the_datas(disc_folder, disc_records):
    info = dataclasses.replace(INFO, label_divisor=1000)
    found = evaluate(Knowing(disc_folder, info), disc_records, boundary=False).panoptic
    assert found.pq == {"all": 1.0, "things": 1.0, "stuff": 1.0}
    # Void too: all stuff is too small to stay.
    info = dataclasses.replace(info, merge={**INFO.merge, "stuff_area_limit": 10**6})
    found = evaluate(Knowing(disc_folder, info), disc_records, boundary=False).panoptic
    assert found.pq == {"all": pytest.approx(1 / 3), "things": 1.0, "stuff": 0.0}
    assert [c.invented for c in found.classes] == [0, 0, 0]


def test_other_things_are_refused_with_both_lists(disc_folder, disc_records):
    info = dataclasses.replace(INFO, thing_classes=(1, 2))
    words = (
        "knowing tells instances of other classes apart than .*records: "
        "disc, bar of 3 and disc of 3"
    )
    with pytest.raises(InputError, match=words):
        evaluate(Knowing(disc_folder, info), disc_records)


def test_records_without_instances_cannot_score_a_panoptic_model(disc_folder, drawn_records):
    with pytest.raises(InputError, match="its labels tell no instances apart, which the model"):
        evaluate(Knowing(disc_folder), drawn_records)


def test_a_model_of_classes_alone_is_scored_by_them(disc_folder, disc_records):
    class Semantic(Knowing):
        def maps(self, batch):
            return {keys.PROBABILITIES: super().maps(batch)[keys.PROBABILITIES]}

    scores = evaluate(Semantic(disc_folder, ModelInfo(CLASSES, INFO.colors)), disc_records)
    assert scores.panoptic is None and scores.mean_iou == 1.0
    assert all(score.pq is None for score in scores.pictures)


def test_a_report_has_the_numbers_the_table_and_a_column(disc_folder, disc_records, tmp_path):
    scores = evaluate(Knowing(disc_folder, change=without_second), disc_records)
    write_report(scores, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())["panoptic"]
    assert report["pq"] == scores.panoptic.pq and report["crowd"] == "segment"
    assert report["instance_ap"]["AP50"] == scores.panoptic.instance_ap["AP50"]
    assert [c["name"] for c in report["classes"]] == [*CLASSES]
    assert report["classes"][DISC]["missed"] == 2
    rows = [*csv.DictReader((tmp_path / "out" / "pictures.csv").open())]
    assert [row["pq"] for row in rows] == [f"{score.pq:.5f}" for score in scores.pictures]
    assert {"1.00000"} < {row["pq"] for row in rows}
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"PQ {scores.panoptic.pq['all']:.4f}" in page
    assert "<th>segments of<th>PQ<th>SQ<th>RQ<th>found<th>missed<th>invented" in page
    assert "ground (stuff)" in page and "disc (stuff)" not in page
    # The worst first, by panoptic quality.
    ranks = [shown.score.pq for shown in scores.worst]
    assert ranks == sorted(ranks) and ranks[0] == min(score.pq for score in scores.pictures)
    assert f"PQ {ranks[0]:.3f}" in page


def test_validation_pictures_leave_void_clear(disc_records):
    descriptor = DatasetDescriptor.load(disc_records)
    tally = CenterTally(INFO, descriptor, VOID)
    image = np.full((9, 8, 3), 100, np.uint8)
    label = np.full((9, 8), VOID * DIVISOR, np.int32)
    label[6:] = DISC * DIVISOR + 1
    drawn = tally.draw(image, label)
    assert (drawn[:5] == 100).all()
    assert (drawn[7:, :, 0] > 100).all() and (drawn[7:, :, 1] < 100).all()
