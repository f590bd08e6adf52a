"""Settings of the merge of masks, and their JSON."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess import merge_settings
from deeplab_tf.postprocess.mask_settings import RULES, MaskSettings

GOOD = dict(thing_classes=(1, 2), label_divisor=256, void_label=0)
SHARES = (
    *("pixel_confidence_threshold", "class_confidence_threshold"),
    *("class_confidence_threshold_thing", "class_confidence_threshold_stuff"),
    "overlap_threshold",
)


@given(
    st.lists(st.integers(1, 200), max_size=5),
    st.sampled_from(RULES),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.floats(0, 10),
)
def test_json_gives_them_back(things, rule, area, share, weight):
    settings = MaskSettings(things, 256, 0, rule, area, overlap_threshold=share, mask_weight=weight)
    assert MaskSettings.from_json(settings.to_json()) == settings


def test_a_records_settings_that_are_not_the_defaults_make_them():
    settings = MaskSettings(**GOOD, **{"rule": "maskwise", "thing_area_limit": 400})
    assert settings.rule == "maskwise" and settings.stuff_area_limit == 1600
    assert MaskSettings((2, 1, 2), 256, 0) == MaskSettings(**GOOD)


def test_a_rule_tells_these_settings_from_those_of_centres():
    assert not {*RULES} & {*merge_settings.RULES}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(thing_classes=5), "thing_classes"),
        (dict(thing_classes=(0, 1)), "void_label"),
        (dict(label_divisor=0), "label_divisor"),
        (dict(label_divisor=2**30), "32 bits"),
        (dict(rule="tensorflow"), "rule is one of .*'tensorflow'"),
        (dict(thing_area_limit=-1), "thing_area_limit is at least 0"),
        (dict(stuff_area_limit=0.5), "stuff_area_limit is a whole number"),
        *((dict([(name, 1.5)]), f"{name} is from 0 to 1; got 1.5") for name in SHARES),
        *((dict([(name, -0.1)]), f"{name} is from 0 to 1; got -0.1") for name in SHARES),
        (dict(pixel_confidence_threshold="0.4"), "pixel_confidence_threshold is a number"),
        (dict(overlap_threshold=float("nan")), "overlap_threshold is a number"),
        (dict(class_weight=-1), "class_weight is at least 0; got -1"),
        (dict(mask_weight=True), "mask_weight is a number"),
    ],
)
def test_a_wrong_value_is_named(change, words):
    with pytest.raises(InputError, match=words):
        MaskSettings(**{**GOOD, **change})


def test_json_with_a_setting_of_centres_is_refused():
    with pytest.raises(InputError, match="'nms_kernel'"):
        MaskSettings.from_json(json.dumps({**GOOD, "nms_kernel": 3}))


def test_the_settings_load_neither_tensorflow_nor_keras():
    code = (
        "import sys, deeplab_tf.postprocess.mask_settings\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
