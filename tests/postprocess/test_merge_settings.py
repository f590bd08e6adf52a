"""Settings of the merge, and their JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess.merge_settings import MAX_CENTERS, RULES, MergeSettings

GOOD = dict(thing_classes=(11, 12), label_divisor=1000, void_label=255)


@given(
    st.lists(st.integers(0, 200), max_size=5),
    st.integers(1, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 20).map(lambda half: 2 * half + 1),
    st.integers(-5, 1000),
    st.sampled_from(RULES),
)
def test_json_gives_them_back(things, divisor, threshold, kernel, keep, rule):
    settings = MergeSettings(things, divisor, 255, threshold, kernel, keep, rule=rule)
    assert MergeSettings.from_json(settings.to_json()) == settings


def test_the_order_of_thing_classes_does_not_matter():
    assert MergeSettings((3, 1, 3), 10, 5) == MergeSettings([1, 3], 10, 5)


def test_zero_and_less_keep_all_centres():
    kept = [MergeSettings(**GOOD, keep_k_centers=n).max_centers for n in (-1, 0, 3, 10**6)]
    assert kept == [MAX_CENTERS, MAX_CENTERS, 3, MAX_CENTERS]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(thing_classes="12"), "thing_classes"),
        (dict(thing_classes=12), "thing_classes"),
        (dict(thing_classes=(1.5,)), "thing class"),
        (dict(thing_classes=(-1,)), "thing class"),
        (dict(label_divisor=0), "label_divisor"),
        (dict(label_divisor=True), "label_divisor"),
        (dict(label_divisor=2**30), "32 bits"),
        (dict(void_label=-1), "void_label"),
        (dict(void_label=5000), "4096"),
        (dict(center_threshold="0.1"), "center_threshold"),
        (dict(nms_kernel=0), "nms_kernel"),
        (dict(nms_kernel=4, rule="pytorch"), "odd"),
        (dict(keep_k_centers=1.0), "keep_k_centers"),
        (dict(stuff_area_limit=-1), "stuff_area_limit"),
        (dict(rule="fast"), "rule"),
    ],
)
def test_a_wrong_value_is_named(change, words):
    with pytest.raises(InputError, match=words):
        MergeSettings(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        (json.dumps({**GOOD, "kernel": 3}), "'kernel'"),
        (json.dumps({"thing_classes": [1], "label_divisor": 10}), "'void_label'"),
    ],
)
def test_json_of_something_else_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        MergeSettings.from_json(text)
