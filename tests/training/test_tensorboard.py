"""TensorBoard gets scores and a page of pictures at each evaluation, also after a resume."""

import builtins
import io

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from deeplab_tf.training.tensorboard import Board


def read(folder):
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_a_run_writes_scores_rate_and_pictures_at_each_evaluation(whole_run):
    events = read(whole_run.folder / "tensorboard")
    assert {
        "train/loss",
        "train/learning_rate",
        "validation/mean_iou",
        "validation_class_iou/ground",
    } <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("validation/mean_iou")] == [3, 6]
    pictures = events.Images("validation")
    assert [e.step for e in pictures] == [3, 6]
    page = np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string)))
    # Four rows of picture, label, prediction; the labels' red disc and blue bar are on it.
    assert page.shape[0] > page.shape[1] > 3 * 200 and page.shape[2] == 3
    for color in ((255, 0, 0), (0, 0, 255)):
        assert (page == color).all(-1).any()


def test_a_resumed_run_goes_on_in_the_folder_without_the_steps_done_twice(tmp_path):
    board = Board(tmp_path)
    for step in (1, 2, 3):
        board.write(step, {"loss": float(step)})
    board.close()
    board = Board.open(tmp_path, first_step=2)
    board.write(3, {"loss": 30.0})
    board.close()
    points = read(tmp_path).Scalars("loss")
    assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_without_tensorboard_there_is_no_board_and_no_error(tmp_path, monkeypatch):
    load = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return load(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert Board.open(tmp_path) is None
    assert not list(tmp_path.iterdir())
