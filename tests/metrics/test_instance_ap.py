"""Instance AP gives the numbers of pycocotools, of scores and flags alone."""

import contextlib
import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.metrics.instance_ap import InstanceAP, instance_scores

THINGS, DIVISOR = (1, 2), 100
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


def counted(pictures, things=THINGS, divisor=DIVISOR) -> dict[str, float]:
    total = InstanceAP(things, divisor)
    for truth, prediction, score, crowd in pictures:
        ones = np.ones(prediction.shape, np.float32)
        total.update(truth, prediction, class_probability=ones, instance_score=score, crowd=crowd)
    return total.result()


def reference(pictures, things=THINGS, divisor=DIVISOR) -> list[float]:
    """The twelve numbers of pycocotools."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    mask = pytest.importorskip("pycocotools.mask")
    true, found, images = [], [], []
    for number, (truth, prediction, score, crowd) in enumerate(pictures, 1):
        images.append({"id": number, "height": truth.shape[0], "width": truth.shape[1]})
        for labels, annotations in ((truth, true), (prediction, found)):
            values, first = np.unique(labels, return_index=True)
            for label in values[np.argsort(first)].tolist():
                if label // divisor not in things:
                    continue
                pixels = labels == label
                segment = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": label // divisor,
                        "segmentation": segment,
                        "area": int(pixels.sum()),
                        "bbox": mask.toBbox(segment).tolist(),
                        "iscrowd": int(crowd[pixels].any()),
                        "score": float(np.float32(score[pixels].mean(dtype=np.float64))),
                    }
                )
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (true, found):
            side = coco.COCO()
            side.dataset = {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": c} for c in things],
            }
            side.createIndex()
            sides.append(side)
        evaluation = cocoeval.COCOeval(*sides, iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def picture(seed: int, scale: int, noise: float, levels: int):
    """A picture of blocks `scale` pixels wide, its prediction, scores of few levels, crowds."""
    random = np.random.default_rng(seed)
    shape = random.integers(2, 9, 2)
    labels = np.array([0, 100, 101, 102, 103, 104, 200, 201, 202, 203, 900])
    truth = random.choice(random.choice(labels, 6), shape)
    prediction = np.where(random.random(shape) < noise, random.choice(labels, shape), truth)
    renamed = np.arange(1000)
    renamed[100:105] = random.permutation(renamed[100:105])
    prediction = renamed[prediction]
    score = (random.integers(1, levels + 1, 1000) / levels).astype(np.float32)
    crowd = random.random(1000) < 0.15
    maps = [truth, prediction, score[prediction], crowd[truth]]
    return [array.repeat(scale, 0).repeat(scale, 1) for array in maps]


pictures = st.lists(
    st.builds(
        picture,
        st.integers(0, 2**32 - 1),
        st.sampled_from([1, 5, 16, 40]),
        st.sampled_from([0, 0.1, 0.3, 0.6]),
        st.sampled_from([2, 1000]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=120, deadline=None)
@given(pictures)
def test_the_numbers_are_those_of_pycocotools(examples):
    result = counted(examples)
    assert tuple(result) == NAMES
    np.testing.assert_allclose(list(result.values()), reference(examples), rtol=1e-12, atol=1e-12)


def test_of_more_than_a_hundred_predictions_the_surest_count_as_in_pycocotools():
    random = np.random.default_rng(0)
    truth = 1000 + np.arange(150).reshape(10, 15)
    prediction = np.where(random.random(truth.shape) < 0.1, 1000, truth)
    assert len(np.unique(prediction)) > 110
    maps = [truth, prediction, random.random(truth.shape).astype(np.float32), truth < 0]
    result = counted([maps, maps], (1,), 1000)
    assert 1 / 150 < result["AR_10"] < result["AR_100"] <= 100 / 150
    np.testing.assert_allclose(list(result.values()), reference([maps, maps], (1,), 1000))


@settings(max_examples=60, deadline=None)
@given(pictures, st.randoms(use_true_random=False))
def test_neither_the_order_of_pictures_nor_the_numbers_of_instances_matter(examples, random):
    # With scores of their own: of equal ones the picture that comes first goes first.
    levels = np.random.default_rng(0).permutation(2000).astype(np.float32)
    examples = [
        (truth, prediction, levels[prediction + 200 * place], crowd)
        for place, (truth, prediction, _, crowd) in enumerate(examples)
    ]

    def renumbered(labels):
        numbers = np.array(random.sample(range(DIVISOR), 5))
        return labels // DIVISOR * DIVISOR + numbers[labels % DIVISOR]

    others = [(renumbered(t), renumbered(p), *rest) for t, p, *rest in examples]
    random.shuffle(others)
    assert counted(examples) == pytest.approx(counted(others), abs=1e-12)


def test_numbers_of_a_small_picture_worked_out_by_hand():
    truth = np.array([[101] * 8 + [102] * 8 + [0] * 8])
    # The surest is wrong, the next has an IoU of 6 / 8, the third of 8 / 10.
    prediction = np.array([[111] * 6 + [0] * 2 + [112] * 10 + [113] * 6])
    score = np.array([[0.6] * 6 + [0] * 2 + [0.4] * 10 + [0.9] * 6], np.float32)
    result = counted([(truth, prediction, score, None)])
    # Precision 1 / 2 up to recall 1 / 2, 2 / 3 from there on, so 2 / 3 at every recall; with the
    # thresholds 0.5 .. 0.75. At 0.8, only the third is right: 1 / 3 up to recall 1 / 2.
    assert result["AP50"] == result["AP75"] == pytest.approx(2 / 3)
    assert result["AP"] == pytest.approx((6 * 2 / 3 + 1 / 3 * 51 / 101) / 10)
    assert (result["AR_1"], result["AR_10"], result["AR_100"]) == pytest.approx((0, 0.65, 0.65))
    assert result["AP_small"] == result["AP"]
    assert result["AP_medium"] == result["AR_large"] == -1


def test_a_crowd_takes_any_number_of_predictions_and_need_not_be_found():
    truth = np.array([[100] * 10 + [101] * 4])
    prediction = np.array([[101] * 4 + [102] * 4 + [0] * 2 + [103] * 4])
    score = np.array([[0.9] * 4 + [0.8] * 4 + [0] * 2 + [0.5] * 4])
    assert counted([(truth, prediction, score, None)])["AP"] == pytest.approx(1)
    # A map of crowds has the say over the labels.
    none = np.zeros(truth.shape, bool)
    assert counted([(truth, prediction, score, none)])["AP"] < 0.5
    all_ = ~none
    assert counted([(truth, prediction, score, all_)])["AP"] == -1


def test_a_crowd_only_gets_what_no_counted_instance_matches():
    truth = np.array([[101, 101, 100, 100]])
    prediction = np.full((1, 4), 107)
    example = [(truth, prediction, np.ones((1, 4)), truth == 100)]
    # Half of the prediction lies on either: a match of IoU 0.5.
    assert counted(example)["AP50"] == pytest.approx(1)
    assert counted(example)["AP75"] == 0
    assert list(counted(example).values()) == pytest.approx(reference(example))


def test_an_instance_is_found_once():
    truth = np.full((1, 4), 101)
    prediction = np.array([[101, 101, 102, 102], [103, 103, 0, 0]])
    truth = np.concatenate([truth, [[102, 102, 0, 0]]])
    # 101 and 102 have an IoU of 0.5 with the same instance; the second is wrong.
    example = [(truth, prediction, np.where(prediction == 103, 0.2, 0.8), truth < 0)]
    result = counted(example)
    assert result["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert list(result.values()) == pytest.approx(reference(example))


def test_a_picture_without_instances_or_predictions():
    empty = np.zeros((2, 3), np.int32)
    full = np.full((2, 3), 101)
    score = np.ones((2, 3))
    assert set(counted([]).values()) == {-1}
    assert set(counted([(empty, empty, score, None)]).values()) == {-1}
    missed = counted([(full, empty, score, None)])
    assert missed["AP"] == missed["AR_100"] == 0 and missed["AP_large"] == -1
    invented = counted([(empty, full, score, None)])
    assert set(invented.values()) == {-1}


def test_a_score_is_the_mean_class_probability_times_the_mean_instance_score():
    prediction = np.array([[201, 201, 101], [900, 201, 101]])
    instance_score = np.array([[0.2, 0.4, 1.0], [0.7, 0.6, 0.5]])
    probability = np.zeros((2, 3, 3))
    probability[..., 2] = [[0.5, 0.7, 0.1], [0.3, 0.9, 0.1]]
    probability[..., 1] = [[0.1, 0.1, 0.8], [0.1, 0.1, 0.6]]
    expected = {201: 0.7 * 0.4, 101: 0.7 * 0.75, 900: 0.3 * 0.7}
    scores = instance_scores(prediction, probability, instance_score, label_divisor=DIVISOR)
    assert list(scores) == [201, 101, 900]
    assert scores == pytest.approx(expected)
    of_class = np.take_along_axis(probability, np.minimum(prediction // 100, 2)[..., None], -1)
    again = instance_scores(prediction, of_class[..., 0], instance_score, label_divisor=DIVISOR)
    assert again == scores


@pytest.mark.parametrize("what", ["class_probability", "instance_score", "crowd", "truth"])
def test_maps_of_another_size_are_refused(what):
    maps = {
        "truth": np.full((2, 3), 101),
        "prediction": np.full((2, 3), 101),
        "class_probability": np.ones((2, 3, 3)),
        "instance_score": np.ones((2, 3)),
        "crowd": np.zeros((2, 3)),
    }
    total = InstanceAP(THINGS, DIVISOR)
    with pytest.raises(ValueError, match=r"\(3, 2"):
        total.update(**(maps | {what: np.swapaxes(maps[what], 0, 1)}))
    assert total.result()["AP"] == -1


def test_a_picture_leaves_little_more_than_forty_bytes_per_instance():
    def held(count):
        labels = 100 + np.arange(64).reshape(8, 8).repeat(16, 0).repeat(16, 1)
        score = np.ones(labels.shape, np.float32)
        total = InstanceAP(THINGS, DIVISOR)
        tracemalloc.start()
        for _ in range(count):
            total.update(labels, labels, class_probability=score, instance_score=score)
        result = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return result

    assert held(20) - held(10) < 10 * 64 * 60
