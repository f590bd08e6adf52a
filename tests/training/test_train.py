"""Runs can be stopped and resumed without a trace, and say what they do."""

import dataclasses
import json
import re
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image
from source_files import write_checkpoint

from deeplab_tf.datasets import DatasetDescriptor
from deeplab_tf.errors import InputError
from deeplab_tf.models.classifier import ImageClassifier
from deeplab_tf.models.presets import from_preset
from deeplab_tf.training import state
from deeplab_tf.training.build import build_model
from deeplab_tf.training.callbacks import Stopped
from deeplab_tf.training.config import LossConfig, ModelConfig, OptimizerConfig
from deeplab_tf.training.train import train

SCALES = ("1.00", "0.75", "0.50")
CONV = {"op": "conv", "input": -1, "kernel": 3, "rate": [1, 6]}


def same_arrays(one, other) -> None:
    with np.load(one) as a, np.load(other) as b:
        # Names carry numbers that Keras counts up in a process; the order is that of the model.
        assert len(a.files) == len(b.files) > 100
        for x, y in zip(a.files, b.files, strict=True):
            np.testing.assert_array_equal(a[x], b[y], err_msg=f"{x} {y}")


def log_of(run) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def copy_until(whole_run, step: int, folder):
    """What a run killed after so many steps leaves behind."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(whole_run.folder / "config.json", folder)
    shutil.copy(whole_run.checkpoint(step), folder / "checkpoints")
    lines = [e for e in log_of(whole_run.folder) if e["step"] <= step]
    (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    return folder


# Within a stretch between evaluations, and at the end of one.
@pytest.mark.parametrize(
    ("whole_run", "step"),
    [("momentum", 3), ("momentum", 5), ("adamw with averages", 2)],
    indirect=["whole_run"],
)
def test_a_run_resumed_after_any_step_ends_as_one_that_was_not_stopped(whole_run, step, tmp_path):
    run = copy_until(whole_run, step, tmp_path / "run")
    lines: list[str] = []
    model = train(whole_run.config, run, resume=True, say=lines.append)
    assert lines[0] == f"resuming {run} at step {step} of 6"
    same_arrays(run / "checkpoints" / "step-00000006.npz", whole_run.checkpoint(6))
    for ours, theirs in zip(model.weights, whole_run.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [entry["step"] for entry in log_of(run)] == [3, 6]
    assert log_of(run)[-1]["class_iou"] == log_of(whole_run.folder)[-1]["class_iou"]


def test_a_run_leaves_config_log_curves_and_presets(whole_run):
    folder = whole_run.folder
    log = log_of(folder)
    assert [entry["step"] for entry in log] == [3, 6]
    for entry in log:
        assert entry["loss"] > 0 and entry["learning_rate"] >= 0
        assert len(entry["class_iou"]) == 3 and 0 <= entry["mean_iou"] <= 1
    assert Image.open(folder / "curves.png").size > (800, 300)
    last, best = from_preset(folder / "last"), from_preset(folder / "best")
    assert last.info.classes == best.info.classes == ("ground", "disc", "bar")
    # Names, not places.
    assert last.info.training["data"] == "records"
    for stored, final in zip(last.weights, whole_run.model.weights, strict=True):
        if "seed" not in final.path:
            np.testing.assert_array_equal(stored, final)
    assert any(line.startswith("step 6: loss ") for line in whole_run.lines)


def test_a_run_with_averages_keeps_them_and_statistics_of_their_own(whole_run):
    with np.load(whole_run.checkpoint(6)) as arrays:
        running = {
            name.removeprefix("model/"): arrays[name]
            for name in arrays.files
            if name.startswith("model/")
        }
        averages = [arrays[n] for n in arrays.files if n.endswith("_average")]
    final = {v.path: np.array(v) for v in whole_run.model.variables if "seed" not in v.path}
    kernel, mean = "logits.semantic/kernel", "Conv.BatchNorm/moving_mean"
    kernel, mean = (next(p for p in final if p.endswith(end)) for end in (kernel, mean))
    if not whole_run.config.optimizer.ema:
        assert not averages
        np.testing.assert_array_equal(running[kernel], final[kernel])
        np.testing.assert_array_equal(running[mean], final[mean])
        return
    assert any(a.shape == final[kernel].shape and (a == final[kernel]).all() for a in averages)
    assert (running[kernel] != final[kernel]).any()
    assert (running[mean] != final[mean]).any()


@pytest.mark.parametrize("whole_run", ["adamw with averages"], indirect=True)
def test_a_finished_run_says_so_and_stays_as_it_is(whole_run, tmp_path):
    run = shutil.copytree(whole_run.folder, tmp_path / "run")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and "events" not in p.name}
    lines: list[str] = []
    train(whole_run.config, run, resume=True, say=lines.append)
    assert lines == [f"{run} is finished: all 6 steps are done"]
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and "events" not in p.name}
    assert after == before


@pytest.mark.parametrize("whole_run", ["adamw with averages"], indirect=True)
def test_a_run_killed_between_a_checkpoint_and_its_evaluation_makes_up_for_it(whole_run, tmp_path):
    run = copy_until(whole_run, 6, tmp_path / "run")
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text().splitlines()[0] + "\n")
    train(whole_run.config, run, resume=True, say=[].append)
    expected, found = log_of(whole_run.folder)[-1], log_of(run)[-1]
    assert found["step"] == 6 and found["loss"] is None
    assert found["class_iou"] == expected["class_iou"]
    assert (run / "last" / "weights.npz").is_file() and (run / "curves.png").is_file()


def test_interrupting_writes_a_checkpoint_and_stops_between_steps(tiny, tmp_path):
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("step 3"):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    config = dataclasses.replace(tiny, checkpoint_every=100)
    with pytest.raises(Stopped) as stopped:
        train(config, tmp_path / "run", say=say)
    assert stopped.value.step == 3
    assert [p.name for p in state.checkpoints(tmp_path / "run")] == ["step-00000003.npz"]
    assert lines[-1] == "stopping after this step; Ctrl-C again stops at once"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_do(tiny, tmp_path):
    config = dataclasses.replace(
        tiny, optimizer=OptimizerConfig(learning_rate=1e30), checkpoint_every=4
    )
    with pytest.raises(InputError, match=r"run: the loss is (nan|inf) at step \d") as error:
        train(config, tmp_path / "run", say=[].append)
    assert "lower optimizer.learning_rate" in str(error.value)
    # No state of the time after is kept.
    assert not state.checkpoints(tmp_path / "run")


def test_mixed_precision_trains_and_ends_with_the_run(tiny, tmp_path):
    config = dataclasses.replace(
        tiny,
        steps=1,
        mixed_precision="mixed_bfloat16",
        loss=LossConfig("auto", top_k_percent_pixels=0.5, hard_example_mining_step=2),
    )
    model = train(config, tmp_path / "run", say=[].append)
    assert model.layers[5].compute_dtype == "bfloat16" and model.output.dtype == "float32"
    assert keras.mixed_precision.dtype_policy().name == "float32"
    assert np.isfinite(log_of(tmp_path / "run")[0]["loss"])


@pytest.mark.parametrize("whole_run", ["adamw with averages"], indirect=True)
def test_starting_from_a_run_says_what_becomes_of_the_last_layer(whole_run, tmp_path):
    config = dataclasses.replace(
        whole_run.config, init=str(whole_run.folder / "last"), steps=1, model=ModelConfig()
    )
    lines: list[str] = []
    model = train(config, tmp_path / "run", say=lines.append)
    assert lines[0] == f"starting from {whole_run.folder / 'last'}, last layer included"
    assert lines[1].startswith("batch norm keeps its statistics: 4 pictures a step are too few")
    path = next(v.path for v in model.variables if v.path.endswith("moving_mean"))
    start = {v.path: v for v in from_preset(whole_run.folder / "last").variables}
    now = {v.path: v for v in model.variables}
    np.testing.assert_array_equal(now[path], start[path])


def test_a_classifier_gives_its_backbone_to_the_configs_network(tiny, tmp_path):
    classifier = ImageClassifier(5, "mobilenet_v2", depth_multiplier=0.25)
    classifier.save_to_preset(tmp_path / "classifier")
    descriptor = DatasetDescriptor("drawn", ("a", "b"), ((0, 0, 0), (1, 1, 1)), splits={"train": 4})
    lines: list[str] = []
    config = dataclasses.replace(tiny, init=str(tmp_path / "classifier"))
    model = build_model(config, descriptor, lines.append)
    assert model.output_shape[-1] == 2
    taken = sum(weight.path.startswith("MobilenetV2.") for weight in model.weights)
    assert f", an image classifier: the {taken} variables of its backbone are set" in lines[0]
    values = {w.path: np.asarray(w) for w in classifier.weights}
    for weight in model.weights:
        if weight.path.startswith("MobilenetV2."):
            np.testing.assert_array_equal(np.asarray(weight), values[weight.path])


@pytest.mark.parametrize(
    ("arguments", "size", "words"),
    [
        ({}, (33, 65), "a map of 2x3 at output stride 32: .* an atrous rate of 3 or more"),
        ({"output_stride": 16}, (193, 97), "a map of 13x7 at output stride 16: .* of 12 or more"),
        ({"output_stride": 16}, (305, 305), None),
        (
            {"output_stride": 8, "dense_prediction_cell_config": [CONV, {**CONV, "rate": [6, 3]}]},
            (65, 65),
            "a map of 9x9 at output stride 8: .* of 12 or more",
        ),
    ],
)
def test_rates_that_reach_past_the_pictures_are_told(arguments, size, words, tiny):
    descriptor = DatasetDescriptor("drawn", ("a", "b"), ((0, 0, 0), (1, 1, 1)), splits={"train": 4})
    model = ModelConfig(arguments={**tiny.model.arguments, "atrous_rates": None, **arguments})
    lines: list[str] = []
    build_model(dataclasses.replace(tiny, model=model, image_size=size), descriptor, lines.append)
    told = [line for line in lines if "atrous rate" in line]
    assert len(told) == bool(words) and all(re.search(words, line) for line in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_split": "trian"}, "has no split 'trian' to train on; it has train, val"),
        ({"data": "nowhere"}, "no dataset.json in there"),
        ({"mixed_precision": "half"}, "mixed_precision is a Keras policy such as mixed_bfloat16"),
        ({"init": "portrat"}, "no preset or preset folder 'portrat'. Did you mean 'portrait'?"),
        (
            {"model": ModelConfig("DeepLabV4")},
            "class_name is one of DeepLabV1, DeepLabV2, DeepLabV3, ",
        ),
        (
            {"model": ModelConfig(arguments={"backbone": "mobilenet_v4"})},
            "model.arguments: unknown backbone 'mobilenet_v4'. Did you mean",
        ),
        (
            {"model": ModelConfig(arguments={"output_stride": 12})},
            "output_stride of mobilenet_v2 is one of [8, 16, 32]; got 12",
        ),
        (
            {"model": ModelConfig(arguments={"output_strid": 8})},
            "Did you mean 'output_stride'?",
        ),
        ({"model": ModelConfig(arguments={"depth_multiplier": "wide"})}, "model.arguments: "),
        (
            {"loss": LossConfig((1.0, 2.0))},
            "loss.class_weights has 2 numbers; {data} has 3 classes: ground, disc, bar",
        ),
        ({"loss": LossConfig(top_k_percent_pixels=2.0)}, "top_k_percent_pixels is in (0, 1]"),
        ({"optimizer": OptimizerConfig(policy="polly")}, "policy is one of poly, "),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_settings_that_do_not_fit_are_refused_before_a_run_folder_is_made(
    tiny, changes, message, tmp_path
):
    with pytest.raises(InputError) as error:
        train(dataclasses.replace(tiny, **changes), tmp_path / "run", say=[].append)
    assert message.replace("{data}", tiny.data) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half", "half: half a checkpoint, model.ckpt-5.index is missing."),
        ("half/model.ckpt-5", "half a checkpoint, model.ckpt-5.index is missing."),
        ("empty", "empty: no checkpoint (NAME.index) in this folder."),
        ("other/model.ckpt-5", "doesn't fit deeplab_v3_plus: "),
    ],
)
def test_a_start_that_is_no_checkpoint_of_the_model_is_named(tiny, name, words, tmp_path):
    (tmp_path / "empty").mkdir()
    write_checkpoint(
        tmp_path / "other" / "model.ckpt-5", {"resnet_v1_50/conv1/weights": np.ones(3)}
    )
    shutil.copytree(tmp_path / "other", tmp_path / "half")
    (tmp_path / "half" / "model.ckpt-5.index").unlink()
    with pytest.raises(InputError) as error:
        config = dataclasses.replace(tiny, init=str(tmp_path / name))
        train(config, tmp_path / "run", say=[].append)
    assert words in str(error.value) and str(tmp_path / name) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_each_output_has_its_loss_and_the_first_is_scored(tiny, tmp_path):
    """A second head, or the scales of v2: their losses are weighted and summed."""
    arguments = {"backbone": "mobilenet_v3_small", "output_stride": 16, "atrous_rates": (1,)}
    model = ModelConfig(class_name="DeepLabV2", arguments={**arguments, "scale_logits": True})
    loss = LossConfig(label_stride=4, auxiliary_weight=0.5)
    config = dataclasses.replace(
        tiny, model=model, loss=loss, steps=1, evaluate_every=1, image_size=(33, 33)
    )
    trained = train(config, tmp_path / "run", say=lambda line: None)
    assert list(trained.output) == ["semantic_logits", *(f"semantic_logits_{s}" for s in SCALES)]
    weights = trained._compile_loss._user_loss_weights
    assert list(weights.values()) == [1.0, 0.5, 0.5, 0.5]
    (entry,) = log_of(tmp_path / "run")
    parts = [entry[f"{name}_loss"] * weight for name, weight in weights.items()]
    assert entry["loss"] == pytest.approx(sum(parts), rel=1e-4)
    assert 0 < entry["mean_iou"] < 1
    assert type(from_preset(tmp_path / "run" / "last")) is type(trained)
