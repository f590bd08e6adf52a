"""Mask transformers through training and evaluation, by one that is small enough for a test."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.checkpoints.backbone import beside_the_backbone
from deeplab_tf.datasets import DatasetDescriptor, pipeline
from deeplab_tf.errors import InputError
from deeplab_tf.layers.dual_path_transformer import LearnedMemory
from deeplab_tf.layers.slot_masks import SlotMasks
from deeplab_tf.models import presets
from deeplab_tf.models.mask_classes import class_channels
from deeplab_tf.models.mask_transformer import MaskTransformer
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.training import build
from deeplab_tf.training.build import build_model
from deeplab_tf.training.config import (
    LossConfig,
    MaskConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    config_from_json,
)
from deeplab_tf.training.evaluate import evaluate
from deeplab_tf.training.objectives import build_losses
from deeplab_tf.training.optimizers import learning_rate_multipliers
from deeplab_tf.training.train import train

VOID = 255


@keras.saving.register_keras_serializable(package="tests")
class SmallSlots(MaskTransformer):
    """Two answers of eight slots each, from two convolutions."""

    def __init__(
        self, num_classes, ignore_label=255, image_shape=(None, None, 3), name="small_slots"
    ):
        image = keras.Input(tuple(image_shape), name=keys.IMAGE)
        x = layers.Rescaling(1 / 127.5, -1.0, name="pixels")(image)
        x = layers.Conv2D(16, 3, 4, "same", activation="relu", name="encoder")(x)
        x = layers.UnitNormalization(name="feature")(layers.Conv2D(8, 1, name="pixel_head")(x))
        outputs = {keys.SEMANTIC_LOGITS: layers.Conv2D(num_classes, 1, name="semantic")(x)}
        for form in ("{}", keys.AUXILIARY.format(0, "{}")):
            memory = LearnedMemory(8, 8, name=f"{form.format('memory')}.slots")(x)
            outputs[form.format(keys.PIXEL_FEATURE)] = x
            outputs[form.format(keys.MASK_LOGITS)] = SlotMasks(name=form.format("masks"))(
                [x, memory]
            )
            outputs[form.format(keys.MASK_CLASS_LOGITS)] = layers.Conv1D(
                class_channels(num_classes, ignore_label), 1, name=form.format("class_head")
            )(memory)
        super().__init__(image, outputs, name=name)
        arguments = dict(num_classes=num_classes, ignore_label=ignore_label)
        self._finish({**arguments, "image_shape": list(image_shape)}, {})


@pytest.fixture(autouse=True)
def known_by_name(monkeypatch):
    classes = {**presets.MODEL_CLASSES, "SmallSlots": SmallSlots}
    for module in (presets, build):
        monkeypatch.setattr(module, "MODEL_CLASSES", classes)


def config(data, **changes) -> TrainConfig:
    made = TrainConfig(
        str(data),
        ModelConfig("SmallSlots"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.01),
        masks=MaskConfig(rule="maskwise", instance_sample_k=64, thing_area_limit=4),
        image_size=(33, 33),
        batch_size=4,
        steps=4,
        evaluate_every=2,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def descriptor(disc_records):
    return DatasetDescriptor.load(disc_records)


def test_a_run_learns_scores_and_leaves_a_model_that_merges_as_it_was_told(disc_records, tmp_path):
    lines: list[str] = []
    model = train(config(disc_records), tmp_path / "run", say=lines.append)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert [entry["step"] for entry in log] == [2, 4]
    for entry in log:
        assert np.isfinite(entry["loss"]) and 0 <= entry["pq"] <= 1 and 0 <= entry["mean_iou"] <= 1
    assert model.info.merge["rule"] == "maskwise" and model.info.merge["thing_area_limit"] == 4
    read = presets.from_preset(tmp_path / "run" / "last")
    assert isinstance(read, SmallSlots) and read.info.merge == model.info.merge
    scores = evaluate(str(tmp_path / "run" / "last"), disc_records, "val", boundary=False)
    assert scores.panoptic is not None and {*scores.panoptic.pq} >= {"all", "things", "stuff"}


def test_a_resumed_run_ends_as_one_that_nobody_stopped(disc_records, tmp_path):
    """The draws of pixels in the loss go on where they were, too."""
    wanted = config(disc_records, checkpoint_every=2)
    whole = train(wanted, tmp_path / "run", say=[].append)
    for path in (tmp_path / "run" / "checkpoints").glob("*4.npz"):
        path.unlink()
    resumed = train(config(""), tmp_path / "run", resume=True, say=[].append)
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=ours.path)


def test_slots_have_no_channel_for_what_is_not_labelled(disc_records, descriptor):
    model = build_model(config(disc_records), descriptor, [].append)
    assert model.output[keys.MASK_CLASS_LOGITS].shape[-1] == descriptor.num_classes + 1
    zero = dataclasses.replace(descriptor, ignore_label=0, thing_classes=(1,))
    model = build_model(config(disc_records), zero, [].append)
    assert model.output[keys.MASK_CLASS_LOGITS].shape[-1] == descriptor.num_classes


def test_the_config_says_what_the_loss_weighs(disc_records, descriptor):
    masks = MaskConfig(
        pq_loss_weight=2.0, semantic_loss_weight=0.0, instance_sample_k=7, semantic_sample_k=9
    )
    wanted = config(disc_records, masks=masks, loss=LossConfig(top_k_percent_pixels=0.2))
    model = build_model(wanted, descriptor, [].append)
    settings = build_losses(model, wanted, descriptor, VOID, None)["loss"].get_config()
    assert settings["pq_weight"] == 2.0 and settings["semantic_weight"] == 0.0
    assert settings["semantic_sample_k"] == 9
    assert settings["instance_sample_k"] == 7 and settings["top_k_percent_pixels"] == 0.2
    with pytest.raises(InputError, match="loss.label_stride isn't for mask-transformer models"):
        wrong = config(disc_records, loss=LossConfig(label_stride=2))
        build_losses(model, wrong, descriptor, VOID, None)


@pytest.mark.parametrize("make", [dl.MaXDeepLab, dl.KMaXDeepLab])
def test_all_that_imagenet_did_not_train_may_learn_faster(make):
    model = make(3)
    trained = {weight.path for weight in model.trainable_weights}
    faster = learning_rate_multipliers(model, 10.0, bias_multiplier=1.0)
    assert {*faster} == trained & {*beside_the_backbone(model)}
    assert 0 < len(faster) < len(trained) and {*faster.values()} == {10.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "pasted"}, "rule is one of"),
        ({"overlap_threshold": 1.5}, "overlap_threshold is"),
    ],
)
def test_settings_of_the_merge_are_refused_before_a_run_begins(
    disc_records, tmp_path, changes, words
):
    wrong = config(disc_records, masks=MaskConfig(**changes))
    with pytest.raises(InputError, match=words):
        train(wrong, tmp_path / "run", say=[].append)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "key", ["pq_loss_weight", "instance_sample_k", "semantic_sample_k", "max_thing_id"]
)
def test_values_without_sense_are_refused(key):
    with pytest.raises(InputError, match=f"masks.{key} is at least"):
        MaskConfig(**{key: -1})


def test_a_picture_with_too_many_instances_is_named_with_the_fix(disc_records, tmp_path):
    wrong = config(disc_records, masks=MaskConfig(max_thing_id=1))
    with pytest.raises(InputError, match=r"max_thing_id \(1\) in 'train'; set a larger masks\.max"):
        train(wrong, tmp_path / "run", say=[].append)


def test_records_whose_divisor_is_too_small_for_the_slots_are_refused(disc_records, descriptor):
    small = dataclasses.replace(descriptor, label_divisor=8)
    with pytest.raises(InputError, match=r"divisor 8 doesn't tell 8 masks .* --label-divisor 1000"):
        build_model(config(disc_records), small, [].append)


def test_settings_come_back_from_a_run_folder_also_of_an_earlier_version():
    wanted = config("data")
    stored = json.loads(json.dumps(wanted.to_json()))
    assert config_from_json(stored) == wanted
    del stored["masks"]
    assert config_from_json(stored).masks == MaskConfig()
    assert set(wanted.masks.merge) < {field.name for field in dataclasses.fields(MaskSettings)}


def test_batches_have_what_the_loss_wants(disc_records):
    stream = pipeline(
        disc_records, "train", image_size=(33, 33), batch_size=2, training=True, targets="masks"
    )
    image, targets = next(iter(stream))
    assert image.shape == (2, 33, 33, 3)
    shapes = {name: tuple(x.shape) for name, x in targets.items()}
    assert shapes == {
        keys.SEMANTIC_LABEL: (2, 33, 33),
        keys.THING_ID_MASK: (2, 33, 33),
        keys.THING_ID_CLASS: (2, 128),
        keys.SEMANTIC_WEIGHT: (2, 33, 33),
    }
    things = int(np.max(targets[keys.THING_ID_MASK])) + 1
    assert 1 <= things == (targets[keys.THING_ID_CLASS].numpy() >= 0).sum(1).max()
