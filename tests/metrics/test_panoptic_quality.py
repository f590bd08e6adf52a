"""Panoptic quality counts as the paper, deeplab2 and the COCO tool do."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.errors import InputError
from deeplab_tf.metrics.panoptic_quality import PanopticQuality

# Two stuff classes, two things, void outside of them: 900.
CLASSES, THINGS, DIVISOR, IGNORE = 4, (2, 3), 100, 9
VOID = IGNORE * DIVISOR


def quality(crowd="segment", ignore=IGNORE, things=THINGS) -> PanopticQuality:
    return PanopticQuality(CLASSES, things, DIVISOR, ignore, crowd=crowd)


def counted(*pairs, **settings) -> PanopticQuality:
    total = quality(**settings)
    for truth, prediction in pairs:
        total.update(np.array(truth), np.array(prediction))
    return total


def row(**pixels) -> list[list[int]]:
    """One row of pixels: label_NUMBER=count, in order."""
    labels = [[int(name.split("_")[1])] * count for name, count in pixels.items()]
    return [sum(labels, [])]


def plain(truth, prediction, crowd: str, ignore: int) -> dict[str, np.ndarray]:
    """Every true segment against every predicted one, by masks."""
    result = {name: np.zeros(CLASSES) for name in ("iou_sum", "tp", "fn", "fp")}
    void = truth == ignore * DIVISOR
    crowds = [
        label
        for label in np.unique(truth)
        if crowd == "ignore" and label // DIVISOR in THINGS and label % DIVISOR == 0
    ]
    matched = set()
    for label in np.unique(truth):
        class_, found = label // DIVISOR, False
        if class_ == ignore or label in crowds:
            continue
        for other in np.unique(prediction):
            true, mask = truth == label, prediction == other
            iou = (true & mask).sum() / (true | (mask & ~void)).sum()
            if other // DIVISOR == class_ and iou > 0.5:
                result["iou_sum"][class_] += iou
                result["tp"][class_] += 1
                matched.add(other)
                found = True
        result["fn"][class_] += not found
    for other in np.unique(prediction):
        class_, mask = other // DIVISOR, prediction == other
        excused = void | (truth == class_ * DIVISOR if class_ * DIVISOR in crowds else False)
        if class_ != ignore and other not in matched and excused[mask].mean() <= 0.5:
            result["fp"][class_] += 1
    return result


@st.composite
def pictures(draw, ignore=IGNORE):
    """Truth and a prediction that often agrees with it: int32 [H, W] of few areas."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 9)))
    labels = [0, 100, 200, 201, 202, 300, 301, 302, ignore * DIVISOR]
    palette = random.choice(labels, draw(st.integers(1, 6)))
    truth = random.choice(palette, shape)
    changed = random.random(shape) < draw(st.sampled_from([0, 0.2, 0.5]))
    prediction = np.where(changed, random.choice(labels, shape), truth)
    renamed = {201: 202, 202: 201} if draw(st.booleans()) else {}
    prediction = np.vectorize(lambda label: renamed.get(label, label), otypes=[int])(prediction)
    return truth.astype(np.int32), prediction.astype(np.int32)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([IGNORE, 0]).flatmap(
        lambda ignore: st.tuples(st.just(ignore), st.lists(pictures(ignore), max_size=3))
    ),
    st.sampled_from(["segment", "ignore"]),
)
def test_counts_are_those_of_comparing_every_segment_with_every_other(drawn, crowd):
    ignore, examples = drawn
    total = counted(*examples, crowd=crowd, ignore=ignore)
    for name in ("iou_sum", "tp", "fn", "fp"):
        expected = sum((plain(*e, crowd, ignore)[name] for e in examples), np.zeros(CLASSES))
        np.testing.assert_allclose(getattr(total, name), expected, rtol=1e-12, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(st.lists(pictures(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_neither_the_order_of_pictures_nor_the_numbers_of_instances_matter(examples, random):
    def renumbered(labels):
        numbers = [0, *random.sample(range(1, DIVISOR), 3)]
        return labels // DIVISOR * DIVISOR + np.array(numbers)[labels % DIVISOR]

    first = counted(*examples, crowd="ignore")
    others = [(renumbered(truth), renumbered(prediction)) for truth, prediction in examples]
    random.shuffle(others)
    second = counted(*others, crowd="ignore")
    np.testing.assert_allclose(first.iou_sum, second.iou_sum, rtol=1e-12)
    for name in ("tp", "fn", "fp"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_scores_of_a_small_picture_worked_out_by_hand():
    truth = row(a_0=4, b_201=6, c_202=4, d_301=2)
    prediction = row(a_0=3, b_250=6, c_100=3, d_202=2, e_0=2)
    # 0: 3 of 6 pixels. 201: 5 of 7, as 250. 202: 2 of 4. 301 isn't seen, 100 isn't there.
    total = counted((truth, prediction))
    np.testing.assert_allclose(total.iou_sum, [0, 0, 5 / 7, 0])
    np.testing.assert_array_equal(total.tp, [0, 0, 1, 0])
    np.testing.assert_array_equal(total.fn, [1, 0, 1, 1])
    np.testing.assert_array_equal(total.fp, [1, 1, 1, 0])
    np.testing.assert_allclose(total.class_pq, [0, 0, 5 / 14, 0])
    np.testing.assert_allclose(total.class_sq, [0, 0, 5 / 7, 0])
    np.testing.assert_allclose(total.class_rq, [0, 0, 1 / 2, 0])
    assert total.all == pytest.approx((5 / 56, 5 / 28, 1 / 8, 4))
    assert total.things == pytest.approx((5 / 28, 5 / 14, 1 / 4, 2))
    assert total.stuff == (0, 0, 0, 2)


def test_a_match_needs_more_than_half():
    assert counted((row(a_0=2, b_100=1), row(a_0=1, b_100=2))).tp.sum() == 0
    total = counted((row(a_0=3, b_100=9), row(a_0=2, b_100=10)))
    np.testing.assert_allclose(total.iou_sum, [2 / 3, 9 / 10, 0, 0])


def test_pixels_on_void_are_taken_off_a_prediction_but_not_off_the_truth():
    # 4 shared, 6 on void: 4 / 4. Void prediction on 2 of 201: 4 / 6.
    total = counted((row(a_201=6, b_900=6), row(a_900=2, b_205=10)))
    np.testing.assert_allclose(total.iou_sum, [0, 0, 4 / 6, 0])
    assert total.all.classes == 1


@pytest.mark.parametrize(("on_void", "invented"), [(3, 0), (2, 1)])
def test_a_prediction_mostly_on_void_is_not_invented(on_void, invented):
    pair = (
        row(a_0=10, b_900=on_void, c_100=9 - on_void),
        row(a_0=10, b_301=4, c_100=5),
    )
    assert counted(pair).fp[3] == invented


def test_void_inside_the_classes_does_not_count_either():
    total = counted((row(a_0=5, b_100=5), row(a_0=4, b_100=6)), ignore=0)
    np.testing.assert_array_equal(total.present, [False, True, False, False])
    np.testing.assert_allclose(total.class_pq, [np.nan, 1, np.nan, np.nan])


def test_without_a_void_class_every_pixel_counts():
    total = counted((row(a_0=5, b_100=5), row(a_0=4, b_100=6)), ignore=None)
    np.testing.assert_allclose(total.iou_sum, [4 / 5, 5 / 6, 0, 0])


# A crowd of class 2, 8 pixels, of which a prediction takes 6 and one of class 3 the rest.
CROWD = (row(a_200=8, b_201=3, c_0=2), row(a_203=6, b_301=2, c_204=3, d_0=2))


def test_a_crowd_is_a_segment_in_deeplab2():
    total = counted(CROWD)
    np.testing.assert_allclose(total.iou_sum, [1, 0, 6 / 8 + 1, 0])
    np.testing.assert_array_equal(
        [total.tp, total.fn, total.fp], [[1, 0, 2, 0], [0] * 4, [0, 0, 0, 1]]
    )


def test_a_crowd_need_not_be_found_and_excuses_its_class_by_the_coco_tool():
    total = counted(CROWD, crowd="ignore")
    np.testing.assert_allclose(total.iou_sum, [1, 0, 1, 0])
    # The one of class 3 has no excuse.
    np.testing.assert_array_equal(
        [total.tp, total.fn, total.fp], [[1, 0, 1, 0], [0] * 4, [0, 0, 0, 1]]
    )
    # What lies on a crowd is excused, and yet counts in the comparison: 3 / (3 + 6).
    total = counted((row(a_200=8, b_201=3), row(a_200=2, b_203=9)), crowd="ignore")
    np.testing.assert_array_equal([total.tp[2], total.fn[2], total.fp[2]], [0, 1, 0])
    # Void and crowd excuse together: 2 + 2 of 7.
    pair = (row(a_200=2, b_900=2, c_0=3), row(a_203=7))
    assert counted(pair, crowd="ignore").fp[2] == 0
    assert counted(pair).fp[2] == 1


def test_stuff_of_instance_0_is_no_crowd():
    assert counted((row(a_0=3), row(a_100=3)), crowd="ignore").fn[0] == 1


def test_nothing_seen_gives_zeros_and_says_so():
    total = quality()
    assert total.all == total.things == total.stuff == (0, 0, 0, 0)
    assert np.isnan(total.class_pq).all()
    total.update(np.full((3, 4), VOID), np.full((3, 4), VOID))
    total.update(np.zeros((0, 4), int), np.zeros((0, 4), int))
    assert total.all.classes == 0


def test_counts_of_two_processes_add_up():
    examples = [(row(a_0=3, b_201=3), row(a_0=4, b_202=2)), (row(a_301=5), row(a_301=5)), CROWD]
    whole, part = counted(*examples), counted(*examples[:1])
    part += counted(*examples[1:])
    assert part.all == whole.all
    with pytest.raises(ValueError, match="counts of crowd ignore to counts of crowd segment"):
        part += quality(crowd="ignore")


def test_a_truth_of_an_unknown_class_is_an_error_of_the_user():
    with pytest.raises(InputError, match=r"the truth has label 26001, class 260 .* Is label_div"):
        counted((row(a_26001=3), row(a_0=3)))
    with pytest.raises(InputError, match=r"label 900, class 9 by .*: classes are 0\.\.3\. Is"):
        counted((row(a_900=3), row(a_0=3)), ignore=None)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([[0]], [[400]], "the prediction has label 400, class 4"),
        ([[0]], [[-1]], r"prediction: labels lie in 0\.\.\d+; got -1\.\.-1"),
        ([[-100, 0]], [[0, 0]], r"truth: labels lie in 0\.\.\d+; got -100\.\.0"),
        ([[0]], [[2**31]], "prediction: labels lie in"),
        ([[0.0]], [[0]], "truth: labels are whole numbers; got float64"),
        ([0], [0], r"one picture at a time.*\(1,\), \(1,\)"),
        ([[0, 0]], [[0], [0]], r"\(1, 2\), \(2, 1\)"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(truth, prediction, message):
    total = quality()
    with pytest.raises(ValueError, match=message):
        total.update(np.array(truth), np.array(prediction))
    assert not total.present.any()


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"thing_classes lie in 0\.\.3; got \[4\]"):
        quality(things=(1, 4))
    with pytest.raises(ValueError, match="label_divisor is at least 1"):
        PanopticQuality(4, (), 0)
    with pytest.raises(ValueError, match='"segment" or "ignore"'):
        quality(crowd="void")


def test_unsigned_and_wide_labels_count_alike():
    truth, prediction = np.array(CROWD)
    expected = counted((truth, prediction)).all
    for dtype in (np.uint16, np.uint32, np.int64, np.uint64):
        assert counted((truth.astype(dtype), prediction.astype(dtype))).all == expected


def test_thousands_of_segments_take_little_memory_and_pictures_none():
    def peak(count):
        labels = 200 + np.arange(64 * 64).reshape(64, 64).repeat(4, 0).repeat(4, 1)
        total = PanopticQuality(4, THINGS, 10_000, None)
        tracemalloc.start()
        for _ in range(count):
            total.update(labels, labels)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    one = peak(1)
    assert one < 8e6
    assert peak(20) < 1.1 * one
