"""Scores are those of a plain calculation, at each picture's own size, and say what they hide."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.datasets import build_folder
from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner
from deeplab_tf.inference.crf import CrfRunner
from deeplab_tf.models.info import ModelInfo
from deeplab_tf.postprocess.crf_parameters import CrfParameters
from deeplab_tf.training.evaluate import evaluate, match_classes
from deeplab_tf.training.findings import plain_warnings
from deeplab_tf.training.report import write_report

CLASSES = ("background", "red", "green")


class ByColour(Runner):
    """Class i where channel i - 1 is bright, background elsewhere; sees every second pixel."""

    def __init__(self, classes=CLASSES, resize="none"):
        self.name, self.batches, self.classes = "by colour", [], len(classes)
        self.info = ModelInfo(tuple(classes), image_size=(32, 32), resize=resize)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        bright = batch[..., : self.classes - 1].astype(np.float32) / 255
        return np.concatenate([0.5 + 0 * bright[..., :1], bright], -1)


def picture(label: np.ndarray) -> np.ndarray:
    """A picture on which `ByColour` is right."""
    image = np.zeros((*label.shape, 3), np.uint8)
    image[label == 1, 0] = 255
    image[label == 2, 1] = 255
    return image


def random_label(seed: int, classes: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    label = np.zeros(random.integers(30, 60, 2), np.uint8)
    for value in range(1, classes):
        top, left = random.integers(0, 25, 2)
        label[top : top + 15, left : left + 18] = value
    return label


def write(folder, name: str, image: np.ndarray, label: np.ndarray) -> None:
    for part, array in (("images", image), ("masks", label)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{name}.png")


@pytest.fixture
def three_classes(tmp_path):
    """Six pictures of three classes, the last of which the model gets partly wrong."""
    folder = tmp_path / "set"
    for i in range(6):
        label = random_label(i)
        image = picture(label)
        if i == 5:
            image[:10] = 0
        label[-3:] = 255
        write(folder, f"p{i}", image, label)
    (folder / "classes.csv").write_text(
        "index,name,red,green,blue\n0,background,0,0,0\n1,red,255,0,0\n2,green,0,255,0\n"
    )
    (folder / "val.txt").write_text("".join(f"p{i}\n" for i in range(6)))
    (folder / "train.txt").write_text("p0\n")
    return folder


def plain_iou(folder, classes: int) -> list[float]:
    """The same by sets of pixels."""
    hits, unions = np.zeros(classes), np.zeros(classes)
    for path in sorted((folder / "masks").iterdir()):
        label = np.asarray(Image.open(path))
        image = np.asarray(Image.open(folder / "images" / path.name))
        predicted = np.where(image[..., 0] > 128, 1, np.where(image[..., 1] > 128, 2, 0))
        for value in range(classes):
            a = (label == value) & (label != 255)
            b = (predicted == value) & (label != 255)
            hits[value] += (a & b).sum()
            unions[value] += (a | b).sum()
    return list(hits / unions)


def test_scores_are_those_of_a_plain_calculation(three_classes):
    scores = evaluate(ByColour(), three_classes)
    expected = plain_iou(three_classes, 3)
    assert [score.iou for score in scores.classes] == pytest.approx(expected)
    assert scores.mean_iou == pytest.approx(np.mean(expected))
    assert min(expected) < 0.95 < scores.pixel_accuracy
    assert [score.name for score in scores.classes] == [*CLASSES]
    assert sum(score.pixel_share for score in scores.classes) == pytest.approx(1)
    assert sum(score.predicted_share for score in scores.classes) == pytest.approx(1)
    assert scores.confusion.sum() == sum(
        (np.asarray(Image.open(p)) != 255).sum() for p in (three_classes / "masks").iterdir()
    )
    assert len(scores.pictures) == 6 and scores.foreground_iou is None


def test_a_picture_without_any_label_is_not_among_the_worst(three_classes):
    label = np.full((40, 50), 255, np.uint8)
    write(three_classes, "p0", picture(label), label)
    scores = evaluate(ByColour(), three_classes)
    assert len(scores.pictures) == 6 and len(scores.worst) == 5
    assert "p0.png" not in [shown.score.name for shown in scores.worst]


def test_boundary_iou_is_stricter_and_can_be_left_out(three_classes):
    scores = evaluate(ByColour(), three_classes)
    assert 0 < scores.mean_boundary_iou < scores.mean_iou
    without = evaluate(ByColour(), three_classes, boundary=False)
    assert without.mean_boundary_iou is None and without.classes[1].boundary_iou is None
    assert without.mean_iou == scores.mean_iou


def test_records_and_their_folder_score_the_same(three_classes, tmp_path):
    build_folder(three_classes, tmp_path / "records", quiet=True)
    one, other = evaluate(ByColour(), three_classes), evaluate(ByColour(), tmp_path / "records")
    np.testing.assert_array_equal(one.confusion, other.confusion)
    assert one.pictures == other.pictures
    assert other.split == "val" and other.data.endswith("records")


def test_pictures_go_in_batches_where_the_model_has_one_size(three_classes):
    runner = ByColour(resize="stretch")
    scores = evaluate(runner, three_classes, batch_size=4)
    assert runner.batches == [4, 2]
    assert 0.5 < scores.mean_iou < 1
    assert (
        evaluate(ByColour(resize="stretch"), three_classes, limit=2).to_json()["picture_count"] == 2
    )


def test_large_pictures_go_in_smaller_batches(three_classes, monkeypatch):
    monkeypatch.setattr("deeplab_tf.training.evaluate._BATCH_PIXELS", 1)
    runner = ByColour(resize="stretch")
    evaluate(runner, three_classes, batch_size=4)
    assert runner.batches == [1] * 6


def test_the_mean_says_over_how_many_classes_it_is(three_classes):
    for path in (three_classes / "masks").iterdir():
        label = np.asarray(Image.open(path)).copy()
        Image.fromarray(np.where(label == 2, 0, label)).save(path)
        Image.fromarray(picture(np.asarray(Image.open(path)))).save(
            three_classes / "images" / path.name
        )
    scores = evaluate(ByColour(), three_classes)
    assert scores.mean_iou_text == f"mean IoU over 2 of 3 classes {scores.mean_iou:.4f}"


def test_the_worst_pictures_are_kept_worst_first(three_classes):
    scores = evaluate(ByColour(), three_classes, worst=2)
    assert len(scores.worst) == 2 and scores.worst[0].score.name == "p5.png"
    ranks = sorted(score.mean_iou for score in scores.pictures)
    assert [shown.score.mean_iou for shown in scores.worst] == ranks[:2]
    assert evaluate(ByColour(), three_classes, worst=0).worst == ()


@pytest.fixture
def people(tmp_path):
    """Two classes from two sources; the model misses the person of one picture."""
    folder = tmp_path / "people"
    for name, seed, share in (("sup_1", 1, 1), ("sup_2", 2, 1), ("ccp_1", 3, 0), ("ccp_2", 4, 1)):
        label = random_label(seed, 2)
        write(folder, name, picture(label) * np.uint8(share), label * 255)
    label = np.zeros((40, 40), np.uint8)
    write(folder, "ccp_3", picture(label), label)
    names = ("sup_1", "sup_2", "ccp_1", "ccp_2", "ccp_3")
    (folder / "val.txt").write_text("\n".join(names))
    return folder


def test_two_classes_give_the_mean_over_pictures_and_by_source(people):
    scores = evaluate(ByColour(("background", "foreground")), people)
    # ccp_3 has no foreground and none is seen: it says nothing.
    assert [score.foreground_iou for score in scores.pictures] == [1, 1, 0, 1, None]
    assert scores.foreground_iou == pytest.approx(3 / 4)
    assert scores.foreground_iou_by_source == {"ccp": 0.5, "sup": 1.0}


def test_names_without_a_source_make_no_groups(people):
    for part in ("images", "masks"):
        (people / part / "ccp_3.png").rename(people / part / "other.png")
    (people / "val.txt").write_text("sup_1\nccp_1\nother\n")
    scores = evaluate(ByColour(("background", "foreground")), people)
    assert scores.foreground_iou_by_source == {}


def test_a_model_of_more_classes_is_matched_by_name(people):
    (people / "classes.csv").write_text("index,name\n0,background\n1,red\n")
    for path in (people / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    scores = evaluate(ByColour(("Background", "Red", "green")), people)
    assert scores.foreground_iou == pytest.approx(3 / 4)
    assert "matched by name" in scores.notes[0]


@pytest.mark.parametrize(
    ("names", "count", "wanted", "values"),
    [
        (("a", "b"), 2, ("a", "b"), [0, 1]),
        (("b", "a"), 2, ("a", "b"), [1, 0]),
        (("a", "y"), 2, ("a", "b"), [0, 1]),
        (("sky", "cloud"), 2, ("background", "foreground"), [0, 1]),
        ((), 2, ("a", "b"), [0, 1]),
        (("background", "cat", "person"), 3, ("background", "person"), [0, 0, 1]),
        (("background", "person"), 3, ("background", "person"), [0, 1, 0]),
    ],
)
def test_classes_are_matched(names, count, wanted, values):
    assert match_classes(names, count, wanted)[0].tolist() == values


def test_classes_of_other_names_are_taken_in_order_and_it_is_said():
    note = match_classes(("background", "person"), 2, ("background", "foreground"))[1]
    assert "in order, though the model calls them background, person" in note
    assert match_classes(("A", "b"), 2, ("a", "B"))[1] == ""
    assert match_classes((), 2, ("a", "b"))[1] == ""


@pytest.mark.parametrize(
    ("names", "count", "wanted"),
    [
        ((), 21, ("background", "person")),
        (("background", "cat", "dog"), 3, ("background", "person")),
        (("road", "sky", "car"), 3, ("road", "car")),
        (("person", "background"), 2, ("background", "foreground")),
        (("cat", "dog"), 2, ("road", "sky")),
    ],
)
def test_classes_that_do_not_match_are_an_error(names, count, wanted):
    with pytest.raises(InputError, match="their names don't match"):
        match_classes(names, count, wanted)


def test_mistakes_in_the_data_are_named(three_classes, tmp_path):
    with pytest.raises(InputError, match="no split 'tset'; it has train, val"):
        evaluate(ByColour(), three_classes, "tset")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        evaluate(ByColour(), tmp_path / "nowhere")
    label = np.asarray(Image.open(three_classes / "masks" / "p0.png")).copy()
    label[0, 0] = 7
    Image.fromarray(label).save(three_classes / "masks" / "p0.png")
    with pytest.raises(InputError, match="the label of p0.png has values outside 0..2"):
        evaluate(ByColour(), three_classes)
    Image.fromarray(label[:-1]).save(three_classes / "masks" / "p0.png")
    with pytest.raises(InputError, match="p0.png is .* make them the same size"):
        evaluate(ByColour(), three_classes)


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        ([[970, 0, 0], [10, 0, 0], [10, 0, 10]], "class 1 (b): 1.0% of the pixels, never"),
        ([[99990, 0, 0], [9, 1, 0], [3, 0, 0]], "class 2 (c): less than 0.1% of the pixels, never"),
        ([[500, 20, 0], [20, 460, 0], [0, 0, 0]], "class 2 (c): neither labelled nor predicted"),
        ([[500, 20, 9], [20, 451, 0], [0, 0, 0]], "class 2 (c): not in the labels"),
        ([[400, 300, 0], [0, 100, 0], [0, 0, 200]], "class 1 (b): predicted for 40.0%"),
        ([[900, 1, 0], [50, 1, 0], [47, 0, 1]], "pixel accuracy is 90.2% only because class 0"),
        ([[700, 0, 0], [200, 0, 0], [100, 0, 0]], "100.0% of all pixels are predicted as class 0"),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], "no pixel counts"),
    ],
)
def test_warnings_say_in_words_what_the_numbers_hide(confusion, expected):
    warnings = plain_warnings(np.array(confusion), ("a", "b", "c"), 100)
    assert any(expected in warning for warning in warnings), warnings


def test_good_scores_give_no_warnings():
    good = np.array([[500, 10, 0], [10, 380, 5], [0, 5, 90]])
    assert plain_warnings(good, ("a", "b", "c"), 100) == ()
    assert plain_warnings(good, ("a", "b", "c"), 5) == (
        "only 5 pictures: scores of so few vary by chance.",
    )


def test_a_report_holds_the_numbers_and_the_pictures(three_classes, tmp_path):
    scores = evaluate(ByColour(), three_classes, worst=3)
    written = write_report(scores, tmp_path / "out")
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()}
    value = json.loads((tmp_path / "out" / "report.json").read_text())
    assert value["mean_iou"] == scores.mean_iou and value["picture_count"] == 6
    assert value["classes"][1]["iou"] == scores.classes[1].iou
    assert [*value["classes"][0]][:2] == ["name", "color"] and value["warnings"]
    assert value["confusion"] == scores.confusion.tolist() and value["classes_in_mean"] == 3
    rows = [*csv.DictReader((tmp_path / "out" / "pictures.csv").open())]
    assert [row["name"] for row in rows] == [score.name for score in scores.pictures]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 9
    assert "http" not in page and "only 6 pictures" in page and f"{scores.mean_iou:.4f}" in page
    assert all(page.count(f'alt="{what}"') == 3 for what in ("photo", "label", "prediction"))
    assert "<meta name=viewport" in page  # or a phone shows it as on a desk
    assert Image.open(tmp_path / "out" / "worst.png").width > 3 * 240


def test_names_are_escaped_on_the_page(three_classes, tmp_path):
    (three_classes / "classes.csv").write_text("index,name\n0,<b>\n1,red\n2,green\n")
    scores = evaluate(ByColour(), three_classes)
    write_report(scores, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "</span><b>" not in page
    assert "</span>&lt;b&gt;" in page


def test_a_preset_and_a_lite_file_are_evaluated_too(people, tiny_preset, red_lite_files):
    scores = evaluate(tiny_preset, people, boundary=False)
    assert 0 <= scores.mean_iou <= 1 and scores.model == str(tiny_preset)
    found = evaluate(red_lite_files["int8"], people)
    assert found.foreground_iou_by_source["sup"] > 0.85


def test_means_with_and_without_the_crf_may_be_over_different_classes(tmp_path):
    """A speck of a class that isn't labelled counts as zero by the official rule."""
    label = np.zeros((40, 40), np.uint8)
    label[:, 20:] = 1
    image = picture(label)
    write(tmp_path / "set", "p0", image, label)
    image[5, 5] = (0, 255, 0)
    write(tmp_path / "set", "p1", image, label)
    (tmp_path / "set" / "val.txt").write_text("p0\np1\n")
    (tmp_path / "set" / "classes.csv").write_text(
        "index,name,red,green,blue\n0,background,0,0,0\n1,red,255,0,0\n2,green,0,255,0\n"
    )

    class Probable(ByColour):
        def forward(self, batch):
            scores = super().forward(batch)
            return scores / scores.sum(-1, keepdims=True)

    # Colours don't count, so that the speck goes.
    crf = CrfRunner(Probable(), CrfParameters(w1=0, w2=3, sigma_gamma=3))
    scores = evaluate(crf, tmp_path / "set", "val", boundary=False)
    assert scores.mean_iou == 1.0 and scores.without_crf == pytest.approx(2 / 3, abs=1e-3)
    (note,) = scores.notes
    assert note.startswith("3 classes are labelled or predicted without the CRF, 2 with it;")
    assert note.endswith("is 0.9997 without, 1.0000 with it")
