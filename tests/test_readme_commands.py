"""The README's commands and Python lines, run in their order in one folder, on tiny pictures."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.cbook import get_sample_data
from PIL import Image

from deeplab_tf.cli import main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# Run in full by tests/cli/test_demo.py, tests/checkpoints/test_convert.py, and, since they want a
# network or pictures of another project, by tests/cli/test_data.py and tests/datasets/test_tfds.py.
ELSEWHERE = ("demo", "convert", "tfds:oxford_iiit_pet", "data=pets", "VOC2012", "tfrecord")
# What makes a command quick. A model of two steps is in doubt everywhere: its int8 file differs.
QUICKER = {
    ("train", "--config"): (
        "steps=2",
        "batch_size=2",
        "image_size=[32,32]",
        "eval_size=[32,32]",
        "optimizer.warmup_steps=0",
        "evaluate_every=1",
        "checkpoint_every=1",
    ),
    ("export", "--model", "runs/mine/best"): ("--threshold", "0"),
    ("export", "--model", "runs/people/best"): ("--threshold", "0"),
    ("bench",): ("--seconds", "0.01"),
    ("crf-search",): (
        *("--w1", "5", "--sigma-alpha", "50", "--sigma-beta", "3"),
        *("--rounds", "1", "--limit", "1"),
    ),
}
SHORTER = {
    "(256, 256)": "(33, 33)",
    "batch_size=16": "batch_size=2",
    "steps_per_epoch=200, epochs=10": "steps_per_epoch=1, epochs=1",
}


@pytest.fixture
def home(tmp_path, red_lite_files, monkeypatch):
    """Where the reader is: with photos, pictures with masks, and what `demo` wrote."""
    monkeypatch.chdir(tmp_path)
    photo = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).resize((64, 75))
    photo.save("photo.jpg")
    Path("holiday").mkdir()
    photo.save("holiday/beach.png")
    Path("demo").mkdir()
    shutil.copy(red_lite_files["int8"], "demo/portrait_int8.tflite")
    y, x = np.indices((40, 36))
    for part in ("images", "masks"):
        Path("my_pictures", part).mkdir(parents=True)
    for index in range(6):
        mask = (y - 20) ** 2 + (x - 10 - 3 * index) ** 2 < 80
        image = np.random.default_rng(index).integers(0, 60, (40, 36, 3)).astype(np.uint8)
        image[mask, 0] += 150
        Image.fromarray(image).save(f"my_pictures/images/{index}.jpg")
        Image.fromarray(mask.astype(np.uint8) * 255).save(f"my_pictures/masks/{index}.png")
        instances = np.zeros(mask.shape, np.uint8)
        instances[mask] = np.where(y[mask] < 20, 1, 2)
        for part, array in (("semantic", mask.astype(np.uint8)), ("instances", instances)):
            Path("people", part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(f"people/{part}/{index}.png")
    shutil.copytree("my_pictures/images", "people/images")
    Path("people/classes.csv").write_text("index,name,thing\n0,background,0\n1,person,1\n")
    Path("my_pictures/train.txt").write_text("0\n1\n2\n3\n")
    Path("my_pictures/val.txt").write_text("4\n5\n")
    for split in ("train", "val"):
        shutil.copy(f"my_pictures/{split}.txt", "people")
    return tmp_path


def commands(block: str) -> list[list[str]]:
    """Our own commands of a bash block, without the program's name."""
    lines = block.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["deeplab-tf"]]


def shortened(block: str) -> str:
    """Python of the page with small numbers where it trains."""
    if ".fit(" in block:
        for words, fewer in SHORTER.items():
            assert words in block
            block = block.replace(words, fewer)
    return block


def test_the_page_can_be_followed_from_top_to_bottom(home):
    done = []
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(shortened(block), "README.md", "exec"), {})
            continue
        for words in commands(block):
            if set(words) & set(ELSEWHERE):
                continue
            extra = [more for key, more in QUICKER.items() if tuple(words[: len(key)]) == key]
            result = CliRunner().invoke(main, [*words, *sum(extra, ())])
            assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
            done.append(words[0])
    assert {"predict", "data", "train", "evaluate", "export", "bench", "models"} <= set(done)
    written = (
        "predictions/photo_mask.png",
        "results/beach_blur.jpg",
        "results/photo_overlay.jpg",
        "records/dataset.json",
        "people_scores/report.html",
        "people_found/photo_panoptic.json",
        "served/people/1/saved_model.pb",
        "runs/mine/best/weights.npz",
        "scores/report.html",
        "crf.png",
        "edges/trimap.png",
        "shapes/dataset.json",
        "mine/weights.npz",
        "mine.tflite",
        "report.json",
        "served/portrait/1/saved_model.pb",
    )
    assert [name for name in written if not (home / name).is_file()] == []
