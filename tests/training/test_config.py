"""Configs are read, overridden and checked; every config of the package builds."""

import dataclasses
import json
import re

import pytest

from deeplab_tf import keys
from deeplab_tf.datasets import DatasetDescriptor
from deeplab_tf.errors import InputError
from deeplab_tf.training.build import build_model, build_optimizer
from deeplab_tf.training.config import (
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    config_from_json,
    config_names,
    load_config,
    summary,
)
from deeplab_tf.training.objectives import class_weights


def test_overrides_reach_every_level_in_the_declared_type(tiny_config):
    config = load_config(
        str(tiny_config),
        [
            "data=2024",
            "steps=1e3",
            "optimizer.learning_rate=1",
            "optimizer.clip_norm=2",
            "augment.flip=false",
            "loss.class_weights=[1, 2.5, 3]",
            "image_size=65, 97",
            "eval_size=none",
            "freeze_batch_norm=true",
            "model.arguments.depth_multiplier=0.5",
            "model.arguments.image_pooling_crop_size=(65,97)",
        ],
    )
    assert config.data == "2024" and config.steps == 1000 and type(config.steps) is int
    assert config.optimizer.learning_rate == 1.0 and config.optimizer.clip_norm == 2.0
    assert type(config.optimizer.learning_rate) is float
    assert config.augment.flip is False and config.freeze_batch_norm is True
    assert config.loss.class_weights == (1.0, 2.5, 3.0)
    assert config.image_size == (65, 97) and config.eval_size is None
    assert config.model.arguments["depth_multiplier"] == 0.5
    # What isn't named stays.
    assert config.model.arguments["output_stride"] == 32 and config.batch_size == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batchsize=4", "config key 'batchsize' doesn't exist. Did you mean 'batch_size'?"),
        (
            "optimizer.learning_rat=1",
            "config key 'optimizer.learning_rat' doesn't exist. Did you mean 'learning_rate'?",
        ),
        ("xyz=1", "config key 'xyz' doesn't exist. Known: data, model, "),
        ("optimizer=sgd", "config key 'optimizer' is a group; set one of its keys."),
        ("steps.x=1", "config key 'steps.x': steps has no parts."),
        ("model.arguments.backbone.x=1", "backbone has no parts."),
        ("steps", "'steps': write overrides as key=value."),
        ("steps=many", "steps is a whole number; got 'many'."),
        ("steps=1.5", "steps is a whole number; got 1.5."),
        ("steps=0", "steps is at least 1; got 0."),
        ("batch_size=true", "batch_size is a whole number; got True."),
        ("deterministic=1", "deterministic is true or false; got 1."),
        ("optimizer.clip_norm=x", "optimizer.clip_norm is a number, or none; got 'x'."),
        ("optimizer.learning_rate=0", "optimizer.learning_rate is above 0; got 0.0."),
        ("optimizer.name=sgd", "optimizer.name is momentum or adamw; got 'sgd'."),
        ("optimizer.ema=1", "optimizer.ema is at least 0 and below 1; got 1.0."),
        ("image_size=256", "image_size is [whole number, whole number]; got 256."),
        ("image_size=[0,5]", "image_size is [height, width]; got [0, 5]."),
        ("loss.class_weights=2.0", "loss.class_weights is a list of numbers, or text; got 2.0."),
        ("loss.class_weights=even", 'loss.class_weights is "auto" or a list'),
        ("resize=squeeze", "resize is stretch or fit; got 'squeeze'."),
        ("freeze_batch_norm=yes", "freeze_batch_norm is true, false or auto; got 'yes'."),
        ("augment.style=mosaic", "style is crop or resized_crop; got 'mosaic'."),
    ],
)
def test_a_wrong_override_is_named_with_what_would_be_right(tiny_config, override, message):
    with pytest.raises(InputError) as error:
        load_config(str(tiny_config), [override])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_config_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="no config 'portrat'. Did you mean 'portrait'?"):
        load_config("portrat")
    with pytest.raises(InputError, match="or name a .py file"):
        load_config("missing.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "mine.py defines no CONFIG = TrainConfig(...)."),
        ("CONFIG = {'steps': 3}", "mine.py defines no CONFIG = TrainConfig(...)."),
        ("x = (", "mine.py, line 1: SyntaxError: "),
        ("\n\nx = y", "mine.py, line 3: NameError: name 'y' is not defined"),
        (
            "from deeplab_tf.training.config import *\nCONFIG = TrainConfig(steps='a')",
            "mine.py: steps is a whole number; got 'a'.",
        ),
        (
            "from deeplab_tf.training.config import *\nCONFIG = TrainConfig(step=1)",
            "mine.py, line 2: TypeError: ",
        ),
    ],
    ids=["nothing", "a dict", "syntax", "name", "type", "key"],
)
def test_a_config_file_that_does_not_work_is_named_with_the_line(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_config(str(path))
    assert message in str(error.value)


def test_settings_survive_their_json():
    config = TrainConfig(
        data="x",
        optimizer=OptimizerConfig(name="adamw", clip_norm=1.0),
        loss=LossConfig((1.0, 2.0)),
        eval_size=(33, 65),
    )
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config


def test_settings_of_an_older_version_are_read_and_others_refused():
    value = json.loads(json.dumps(TrainConfig(steps=7).to_json()))
    # Written before these settings were there.
    del value["mixed_precision"], value["optimizer"]["ema"]
    assert config_from_json(value) == TrainConfig(steps=7)
    with pytest.raises(InputError, match="not the settings of a run of this version"):
        config_from_json({**value, "new": 1})
    with pytest.raises(InputError, match="not the settings of a run of this version"):
        config_from_json([])


@pytest.mark.parametrize("name", config_names())
def test_every_config_loads_and_says_what_it_is_for(name):
    config = load_config(name)
    assert isinstance(config, TrainConfig)
    stored = json.dumps(config.to_json())
    assert json.dumps(config_from_json(json.loads(stored)).to_json()) == stored
    assert 20 < len(summary(name)) <= 100 and summary(name).endswith(".")
    assert dataclasses.replace(config, data="x").data == "x" and config.data == ""


@pytest.mark.parametrize("name", config_names())
def test_every_config_builds_its_network_optimizer_and_loss_weights(name):
    config = load_config(name, ["init="])
    count = 19 if name.startswith("cityscapes") else 21
    descriptor = DatasetDescriptor(
        "drawn",
        tuple(f"class {i}" for i in range(count)),
        tuple((i, i, i) for i in range(count)),
        splits={"train": 100, "val": 10},
        pixel_share=(1 / count,) * count,
        ignore_label=255,
        thing_classes=(count - 1,),
        label_divisor=1000,
    )
    model = build_model(config, descriptor, [].append)
    outputs = model.output if isinstance(model.output, dict) else {"": model.output}
    options = config.model.arguments
    of_instances = {
        keys.CENTER_HEATMAP: 1,
        keys.OFFSET_MAP: 2,
        keys.MASK_LOGITS: options.get("num_mask_slots", 128),
        keys.MASK_CLASS_LOGITS: count + 1,  # void
        keys.PIXEL_FEATURE: 128,
    }
    for key, output in outputs.items():
        kind = re.sub(r"auxiliary_\d+_", "", key)
        assert output.shape[-1] == of_instances.get(kind, count), key
    assert model.info.image_size == (config.eval_size or config.image_size)
    build_optimizer(config, model).build(model.trainable_variables)
    class_weights(config, descriptor)
