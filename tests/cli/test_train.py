"""`deeplab-tf train`: wrong calls end with a line, a killed run ends as one that was not."""

import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from deeplab_tf.cli import main
from deeplab_tf.training import state, train
from deeplab_tf.training.callbacks import Stopped
from deeplab_tf.training.config import config_names, load_config

OVERRIDES = (
    "steps=40",
    "evaluate_every=15",
    "checkpoint_every=2",
    "optimizer.name=adamw",
    "optimizer.ema=0.9",
    "optimizer.learning_rate=0.005",
)


def last_step(run) -> int:
    return max((int(path.stem.removeprefix("step-")) for path in state.checkpoints(run)), default=0)


def start(run, config, records) -> subprocess.Popen:
    """The command as a user gives it: with --resume once there is a run."""
    if (run / "config.json").exists():
        arguments = ["--resume", "--run", str(run)]
    else:
        arguments = ["--config", str(config), "--run", str(run), f"data={records}", *OVERRIDES]
    program = "from deeplab_tf.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process, condition) -> bool:
    """Whether the condition came true before the process ended."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def test_a_run_killed_five_times_ends_as_one_that_was_not(drawn_records, tiny_config, tmp_path):
    run, moments = tmp_path / "killed", random.Random(7)
    # The first kill comes before any checkpoint, the others anywhere in what is done between
    # two: steps, the writing of checkpoints, evaluations.
    for target in (0, 3, 9, 15, 22):
        process = start(run, tiny_config, drawn_records)
        assert wait_for(process, (run / "config.json").exists), process.communicate()[0]
        goal = max(target, last_step(run) + 1) if target else 0
        assert wait_for(process, lambda goal=goal: last_step(run) >= goal), process.communicate()
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        output = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, output
    assert last_step(run) < 40

    process = start(run, tiny_config, drawn_records)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert "step 40" in output and "done: " in output

    whole = tmp_path / "whole"
    config = load_config(str(tiny_config), [f"data={drawn_records}", *OVERRIDES])
    train.train(config, whole, say=[].append)
    with np.load(run / "checkpoints/step-00000040.npz") as one:
        with np.load(whole / "checkpoints/step-00000040.npz") as other:
            assert len(one.files) == len(other.files)
            assert sum("average" in name for name in one.files) > 50
            for x, y in zip(one.files, other.files, strict=True):
                np.testing.assert_array_equal(one[x], other[y], err_msg=x)
    for preset in ("last", "best"):
        with np.load(run / preset / "weights.npz") as one:
            with np.load(whole / preset / "weights.npz") as other:
                for name in one.files:
                    np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    # No half-made file is left of any of it.
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]


def test_list_shows_what_each_config_is_for():
    result = CliRunner().invoke(main, ["train", "--list"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == config_names()
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a config with --config"),
        (["--config", "portrat"], "no config 'portrat'. Did you mean 'portrait'?"),
        (["--config", "portrait"], "name the records: data=FOLDER"),
        (["--config", "portrait", "data=x", "stepz=3"], "Did you mean 'steps'?"),
        (["--config", "portrait", "data=x", "steps=few"], "steps is a whole number; got 'few'."),
        (["--config", "portrait", "data=x"], "no dataset.json in there"),
        (
            ["--config", "portrait", "data={data}", "model.arguments.backbone=mobilnet_v2"],
            "unknown backbone 'mobilnet_v2'. Did you mean 'mobilenet_v2'?",
        ),
        (
            ["--config", "portrait", "data={data}", "model.arguments.output_stride=4"],
            "output_stride of mobilenet_v2 is one of [8, 16, 32]; got 4",
        ),
        (["--config", "{tiny}", "data={data}", "--run", "{used}"], "holds a run already. Go on"),
        (["--resume"], "--resume needs --run with the folder of a run that was started."),
        (["--resume", "--run", "nowhere"], "--resume needs --run with the folder of a run"),
        (["--resume", "--run", "{used}", "steps=3"], "leave out config and keys"),
        (["--resume", "--run", "{used}"], "config.json: not the settings of a run of this version"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "nothing",
)
def test_a_wrong_call_ends_with_one_line_and_code_2(
    arguments, message, drawn_records, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    places = {"data": drawn_records, "tiny": tiny_config, "used": tmp_path / "used"}
    result = CliRunner().invoke(main, ["train", *(a.format(**places) for a in arguments)])
    assert result.exit_code == 2, result.output
    assert message in result.stderr and result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_record_ends_a_run_with_its_name(split, drawn_records, tiny_config, tmp_path):
    records = shutil.copytree(drawn_records, tmp_path / "records")
    shard = next(records.glob(f"{split}-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    arguments = ["--config", str(tiny_config), f"data={records}", "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(main, ["train", *arguments, "steps=2", "evaluate_every=2"])
    assert result.exit_code == 2, result.output
    assert str(shard) in result.stderr and "build" in result.stderr
    assert "Traceback" not in result.output


def test_ctrl_c_ends_with_code_130_and_says_how_to_go_on(drawn_records, tiny_config, monkeypatch):
    def stop(*arguments, **options):
        raise Stopped(7)

    monkeypatch.setattr(train, "train", stop)
    arguments = ["train", "--config", str(tiny_config), f"data={drawn_records}", "--run", "r"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 130
    assert result.stderr == ("stopped at step 7; go on with: deeplab-tf train --resume --run r\n")
