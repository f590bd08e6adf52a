"""The merge of masks in Keras, beside a plain version of its rules."""

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess import bands, masks
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.masks import merge_masks

# Six classes; the first two channels are things, then stuff, then void.
THINGS, DIVISOR, VOID, ORDER = (2, 3), 100, 0, np.array([2, 3, 1, 4, 5])
CHANNELS = len(ORDER) + 1
OTHER_BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
MAPS = {
    "panoptic_label": np.int32,
    "semantic_label": np.int32,
    "instance_map": np.int32,
    "instance_score": np.float32,
    "semantic_score": np.float32,
}


def _settings(rule, **changes):
    values = dict(thing_area_limit=0, stuff_area_limit=0, class_confidence_threshold=0.5)
    maskwise = dict(class_confidence_threshold_thing=0.5, class_confidence_threshold_stuff=0.4)
    return MaskSettings(THINGS, DIVISOR, VOID, rule, **{**values, **maskwise, **changes})


# --- The plain version ---


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _enlarge(x, size):
    """[h, w, S] -> [H, W, S], corners on corners."""
    for axis, side in enumerate(size):
        place = np.arange(side) * ((x.shape[axis] - 1) / max(side - 1, 1))
        low = place.astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        weight = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        x = np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
    return x


def _plain(mask_logits, class_logits, s, size):
    """Slot by slot, as the rules say it."""
    large, probabilities = _enlarge(mask_logits, size), _softmax(class_logits)[:, :-1]
    channel, sure = probabilities.argmax(-1), probabilities.max(-1)
    result = {name: np.zeros(size, kind) for name, kind in MAPS.items()}
    result["semantic_label"][:] = ORDER[channel][large.argmax(-1)]
    result["panoptic_label"][:] = VOID * DIVISOR
    rule = _plain_pixelwise if s.rule == "pixelwise" else _plain_maskwise
    found = rule(mask_logits, large, channel, sure, s)
    if found is None:
        return result
    number, instance, score, order = found
    result["instance_map"][:], result["instance_score"][:] = instance, score
    for i, slot in enumerate(order, 1):
        result["semantic_score"][instance == i] = sure[slot]
        thing = channel[slot] < len(THINGS)
        same = [j for j, other in enumerate(order, 1) if channel[other] == channel[slot]]
        area = (number == i).sum() if thing else np.isin(number, same).sum()
        if area >= (s.thing_area_limit if thing else s.stuff_area_limit):
            label = ORDER[channel[slot]] * DIVISOR + (i if thing else 0)
            result["panoptic_label"][number == i] = label
    return result


def _plain_pixelwise(mask_logits, large, channel, sure, s):
    kept = np.flatnonzero(sure >= np.float32(s.class_confidence_threshold))
    if not len(kept):
        return None
    score = _softmax(large[..., kept]).max(-1)
    best = kept[large[..., kept].argmax(-1)]
    certain = score > s.pixel_confidence_threshold
    certain &= large.max(-1) == large[..., kept].max(-1)
    return np.where(certain, best + 1, 0), best + 1, score, range(len(sure))


def _plain_maskwise(mask_logits, large, channel, sure, s):
    limits = s.class_confidence_threshold_thing, s.class_confidence_threshold_stuff
    if not (sure >= min(limits)).any():
        return None
    weight, small = [], _softmax(mask_logits)
    for slot, value in enumerate(sure):
        inside = small[..., slot][small[..., slot] > s.pixel_confidence_threshold]
        mean = inside.mean() if len(inside) else 0.0
        weight.append(value**s.class_weight * mean**s.mask_weight)
    order = np.argsort(-np.array(weight), kind="stable")
    probability = _softmax(large)
    number = np.zeros(large.shape[:2], np.int32)
    for i, slot in enumerate(order, 1):
        mask = probability[..., slot] > s.pixel_confidence_threshold
        free = mask & (number == 0)
        limit = limits[0] if channel[slot] < len(THINGS) else limits[1]
        enough = np.float32(free.sum()) > np.float32(mask.sum()) * np.float32(s.overlap_threshold)
        if sure[slot] >= np.float32(limit) and enough:
            number[free] = i
    return number, number, probability.max(-1), order


# --- Inputs ---


@functools.cache
def _compiled(s, slots):
    specs = [tf.TensorSpec((None, None, None, slots)), tf.TensorSpec((None, slots, CHANNELS))]
    size = tf.TensorSpec((), tf.int32)
    return tf.function(
        lambda masks, classes, height, width: merge_masks(masks, classes, s, (height, width)),
        input_signature=[*specs, size, size],
        autograph=False,
    )


def _keras(mask_logits, class_logits, s, size):
    """One picture through the compiled merge of batches and maps of any size."""
    run = _compiled(s, mask_logits.shape[-1])
    merged = run(np.float32(mask_logits)[None], np.float32(class_logits)[None], *size)
    return {name: value.numpy()[0] for name, value in merged.items()}


def _assert_equal(ours, expected):
    assert set(ours) == set(MAPS)
    for name, value in ours.items():
        assert value.dtype == MAPS[name]
        check = np.testing.assert_array_equal
        if MAPS[name] == np.float32:
            check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        check(value, expected[name], err_msg=name)


@st.composite
def pictures(draw):
    """Few values and weights of quarters, so that all is exact, and slots that are alike."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    factor = draw(st.sampled_from([1, 2, 4]))
    steps = draw(st.sampled_from([[0.0, 3.0], [0.0, 0.5, 1.5], [0.0, 2.0, 4.0, 6.0]]))
    mask_logits = random.choice(steps, (*size, 5))
    class_logits = random.normal(0, draw(st.sampled_from([0.3, 2.0, 6.0])), (5, CHANNELS))
    copied, by = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    mask_logits[..., by] = mask_logits[..., copied]
    class_logits[by] = class_logits[copied]
    class_logits = np.float32(class_logits)
    return mask_logits, class_logits, tuple((side - 1) * factor + 1 for side in size)


VARIANTS = [
    _settings("pixelwise"),
    _settings("pixelwise", thing_area_limit=3, stuff_area_limit=6, pixel_confidence_threshold=0.21),
    _settings("pixelwise", pixel_confidence_threshold=0, class_confidence_threshold=0),
    _settings("maskwise"),
    _settings("maskwise", thing_area_limit=2, stuff_area_limit=4, overlap_threshold=0.4),
    _settings("maskwise", class_weight=0.5, mask_weight=2, pixel_confidence_threshold=0.45),
    _settings("maskwise", pixel_confidence_threshold=0.21, mask_weight=0, overlap_threshold=0.6),
    _settings("maskwise", pixel_confidence_threshold=0.03, overlap_threshold=0.1),
]


@pytest.mark.parametrize("s", VARIANTS, ids=lambda s: f"{s.rule}-{s.pixel_confidence_threshold}")
@settings(max_examples=40, deadline=None)
@given(pictures())
def test_the_merge_is_the_plain_one(s, picture):
    mask_logits, class_logits, size = picture
    expected = _plain(mask_logits, class_logits, s, size)
    _assert_equal(_keras(mask_logits, class_logits, s, size), expected)


def _scene(seed=0, size=(9, 13), slots=20, sharp=4.0):
    """Discs that lie over each other, as a network would see them."""
    random = np.random.default_rng(seed)
    y, x = np.indices(size)
    mask_logits = random.normal(0, 0.3, (*size, slots))
    for slot in range(slots):
        cy, cx, radius = random.uniform(0, size[0]), random.uniform(0, size[1]), size[0] / 3
        mask_logits[..., slot] += sharp * (1 - np.hypot(y - cy, x - cx) / radius)
    class_logits = random.normal(0, 1, (slots, CHANNELS))
    class_logits[np.arange(slots), random.integers(0, CHANNELS, slots)] += random.uniform(
        2, 8, slots
    )
    return np.float32(mask_logits), np.float32(class_logits)


SCENE_SIZE = (33, 49)
SCENE_VARIANTS = [
    _settings("pixelwise"),
    _settings("maskwise", pixel_confidence_threshold=0.35),
    _settings("maskwise", pixel_confidence_threshold=0.1),
]


@pytest.mark.parametrize("s", SCENE_VARIANTS)
def test_a_scene_is_merged_as_the_plain_version_does(s):
    dropped = 0
    for seed in range(4):
        scene = _scene(seed)
        expected = _plain(*scene, s, SCENE_SIZE)
        assert len(np.unique(expected["panoptic_label"])) >= 5
        _assert_equal(_keras(*scene, s, SCENE_SIZE), expected)
        all_pasted = _plain(*scene, dataclasses.replace(s, overlap_threshold=0), SCENE_SIZE)
        counts = [len(np.unique(maps["instance_map"])) for maps in (all_pasted, expected)]
        dropped += counts[0] > counts[1]
    assert s.rule == "pixelwise" or dropped


@pytest.mark.parametrize("overlap", [0.3, 0.9])
def test_pasting_by_pairs_and_pasting_in_turn_are_the_same(monkeypatch, overlap):
    s = _settings("maskwise", pixel_confidence_threshold=0.35, overlap_threshold=overlap)
    scenes = [_scene(seed, slots=30) for seed in range(3)]
    inputs = [np.stack(part) for part in zip(*scenes, strict=True)]
    by_pairs = merge_masks(*inputs, s, SCENE_SIZE)
    monkeypatch.setattr(masks, "_ONLY_PAIRS", 2.0)
    in_turn = merge_masks(*inputs, s, SCENE_SIZE)
    for name in MAPS:
        np.testing.assert_array_equal(by_pairs[name], in_turn[name], err_msg=name)


@pytest.mark.parametrize("s", SCENE_VARIANTS)
def test_bands_of_rows_make_no_difference(monkeypatch, s):
    whole = _keras(*_scene(), s, SCENE_SIZE)
    for most in (1, 20 * 49 * 5):  # one row, six
        monkeypatch.setattr(bands, "MOST_LOGITS", most)
        _compiled.cache_clear()
        _assert_equal(_keras(*_scene(), s, SCENE_SIZE), whole)
    _compiled.cache_clear()
    fixed = merge_masks(*(x[None] for x in _scene()), s, SCENE_SIZE)
    _assert_equal({name: value.numpy()[0] for name, value in fixed.items()}, whole)


@pytest.mark.parametrize("s", SCENE_VARIANTS)
def test_a_batch_is_merged_picture_by_picture(s):
    scenes = [_scene(seed) for seed in range(3)]
    batch = [np.stack(part) for part in zip(*scenes, strict=True)]
    for run in (_compiled(s, 20), lambda a, b, *size: merge_masks(a, b, s, size)):
        merged = run(*batch, *SCENE_SIZE)
        for i, scene in enumerate(scenes):
            part = {name: value.numpy()[i] for name, value in merged.items()}
            _assert_equal(part, _keras(*scene, s, SCENE_SIZE))


@pytest.mark.parametrize("s", SCENE_VARIANTS)
def test_labels_mean_what_the_settings_say(s):
    for seed in range(4):
        merged = _keras(*_scene(seed), s, SCENE_SIZE)
        classes, instance = np.divmod(merged["panoptic_label"], DIVISOR)
        void, thing = classes == VOID, np.isin(classes, THINGS)
        assert np.isin(classes[~void], ORDER).all() and void.any() and thing.any()
        assert (instance[~thing] == 0).all()
        np.testing.assert_array_equal(instance[thing], merged["instance_map"][thing])
        assert merged["instance_map"].min() >= 0 and merged["instance_map"].max() <= 20
        assert np.isin(merged["semantic_label"], ORDER).all()
        if s.rule == "maskwise":
            assert ((merged["instance_map"] == 0) == void).all()
            assert ((merged["semantic_score"] > 0) == ~void).all()


def test_without_thresholds_nothing_is_void():
    s = _settings("pixelwise", pixel_confidence_threshold=0, class_confidence_threshold=0)
    merged = _keras(*_scene(), s, SCENE_SIZE)
    classes = merged["panoptic_label"] // DIVISOR
    np.testing.assert_array_equal(classes, merged["semantic_label"])
    assert (classes != VOID).all()


@pytest.mark.parametrize("rule", ["pixelwise", "maskwise"])
def test_without_a_slot_that_is_sure_all_is_void(rule):
    mask_logits, class_logits = _scene()
    merged = _keras(mask_logits, class_logits * 0, _settings(rule), SCENE_SIZE)
    assert (merged["panoptic_label"] == VOID * DIVISOR).all()
    assert not any(merged[name].any() for name in MAPS if "instance" in name or "score" in name)
    assert (merged["semantic_label"] == ORDER[0]).all()


def test_a_thing_that_is_only_as_sure_as_stuff_needs_to_be_leaves_its_score():
    mask_logits, class_logits = np.zeros((1, 1, 2)), np.zeros((2, CHANNELS))
    mask_logits[..., 0] = 60
    class_logits[0, 1:3] = 60  # a thing and stuff, of equal probability
    s = _settings("maskwise", class_confidence_threshold_thing=0.6)
    merged = _keras(mask_logits, class_logits, s, (1, 1))
    assert merged["panoptic_label"].item() == VOID * DIVISOR
    assert merged["instance_score"].item() == 1 and merged["semantic_score"].item() == 0


def test_of_equal_slots_the_first_wins_even_over_one_that_is_dropped():
    mask_logits, class_logits = np.zeros((1, 1, 3)), np.zeros((3, CHANNELS))
    class_logits[1, 0] = class_logits[2, 1] = 9  # the first slot is sure of nothing
    s = _settings("pixelwise", pixel_confidence_threshold=0.4)
    merged = _keras(mask_logits, class_logits, s, (1, 1))
    assert merged["panoptic_label"].item() == 2 * DIVISOR + 2
    assert merged["semantic_label"].item() == ORDER[0]
    mask_logits[..., 0] = 0.1  # now the dropped one has the largest logit alone
    merged = _keras(mask_logits, class_logits, s, (1, 1))
    assert merged["panoptic_label"].item() == VOID * DIVISOR and merged["instance_map"].item() == 2


@pytest.mark.parametrize("rule", ["pixelwise", "maskwise"])
def test_a_class_is_at_its_threshold_sure_and_a_pixel_is_not(rule):
    mask_logits, class_logits = np.zeros((1, 1, 2)), np.zeros((2, CHANNELS))
    class_logits[:, 1:3] = 60  # a thing and stuff, of equal probability
    at = dict.fromkeys(("class_confidence_threshold", "class_confidence_threshold_thing"), 0.5)
    for pixel, label in ((0.49, 3 * DIVISOR + 1), (0.5, VOID * DIVISOR)):
        s = _settings(rule, **at, pixel_confidence_threshold=pixel)
        merged = _keras(mask_logits, class_logits, s, (1, 1))
        assert merged["panoptic_label"].item() == label


def test_a_mask_stays_if_more_than_its_share_is_free():
    mask_logits, class_logits = np.full((1, 6, 2), -30.0), np.zeros((2, CHANNELS))
    mask_logits[0, :4, 0] = mask_logits[0, 2:, 1] = 30
    class_logits[[0, 1], 0] = 9, 8
    for share, second in ((0.49, 202), (0.5, 0)):
        s = _settings("maskwise", overlap_threshold=share, mask_weight=0)
        merged = _keras(mask_logits, class_logits, s, (1, 6))
        assert merged["panoptic_label"].tolist() == [[201] * 4 + [second] * 2]


def _side_by_side(*, rule="pixelwise", **limits):
    """Six pixels of a thing, three of another, two and one of two slots of the same stuff."""
    mask_logits = np.full((1, 12, 4), -9.0)
    mask_logits[0, np.arange(12), np.repeat(np.arange(4), (6, 3, 2, 1))] = 9
    class_logits = np.zeros((4, CHANNELS))
    class_logits[np.arange(4), [0, 0, 3, 3]] = 9
    return mask_logits, class_logits, _settings(rule, **limits)


def test_things_need_their_area_alone_and_stuff_as_a_class():
    for limits, expected in (
        (dict(thing_area_limit=3, stuff_area_limit=3), [201] * 6 + [202] * 3 + [400] * 3),
        (dict(thing_area_limit=4, stuff_area_limit=3), [201] * 6 + [0] * 3 + [400] * 3),
        (dict(thing_area_limit=7, stuff_area_limit=4), [0] * 12),
    ):
        merged = _keras(*_side_by_side(**limits), (1, 12))
        assert merged["panoptic_label"].tolist() == [expected]


def test_area_limits_grow_with_the_maps():
    mask_logits, class_logits, s = _side_by_side(thing_area_limit=4, stuff_area_limit=4)
    void = [
        (merge_masks(mask_logits[None], class_logits[None], s, (1, 12), area_scale=scale))
        for scale in (0.75, 1.0, np.float32(1.6))
    ]
    areas = [(np.asarray(maps["panoptic_label"]) == 0).sum() for maps in void]
    assert areas == [0, 6, 12]


def test_void_may_lie_beyond_the_classes():
    mask_logits, class_logits, _ = _side_by_side()
    s = MaskSettings((1, 2), 10, 255, thing_area_limit=4, stuff_area_limit=0)
    merged = merge_masks(mask_logits[None], class_logits[None], s, (1, 12))
    # Channels are the classes 1, 2, 0, 3, 4.
    expected = [11] * 6 + [2550] * 3 + [30] * 3
    assert np.asarray(merged["panoptic_label"]).tolist() == [[expected]]


def test_half_precision_comes_in_as_well():
    halves = [x.astype(np.float16) for x in _scene()]
    merged = merge_masks(*(x[None] for x in halves), SCENE_VARIANTS[0], SCENE_SIZE)
    merged = {name: value.numpy()[0] for name, value in merged.items()}
    _assert_equal(merged, _keras(*halves, SCENE_VARIANTS[0], SCENE_SIZE))


@pytest.mark.parametrize("s", SCENE_VARIANTS)
def test_it_goes_into_a_saved_model(tmp_path, s):
    module = tf.Module()
    module.merge = _compiled(s, 20)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for small, large in (((5, 6), (19, 26)), ((8, 3), (8, 11))):
        scene = _scene(3, small)
        merged = loaded.merge(scene[0][None], scene[1][None], *map(tf.constant, large))
        merged = {name: value.numpy()[0] for name, value in merged.items()}
        _assert_equal(merged, _plain(*scene, s, large))


BACKEND = """
import sys, keras, numpy as np
from deeplab_tf.postprocess.masks import MaskSettings, merge_masks
arrays = np.load(sys.argv[1])
for number, text in enumerate(arrays["settings"]):
    settings = MaskSettings.from_json(str(text))
    run = lambda masks, classes: merge_masks(masks, classes, settings, (33, 49))
    if keras.backend.backend() == "jax":
        import jax
        run = jax.jit(run)
    maps = run(arrays["mask_logits"], arrays["class_logits"])
    maps = {name: keras.ops.convert_to_numpy(value) for name, value in maps.items()}
    np.savez(sys.argv[2] + f"/{number}.npz", **maps)
"""


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_other_backends_give_the_same_maps(backend, tmp_path):
    scenes = [_scene(seed) for seed in range(2)]
    mask_logits, class_logits = (np.stack(part) for part in zip(*scenes, strict=True))
    np.savez(
        tmp_path / "inputs.npz",
        mask_logits=mask_logits,
        class_logits=class_logits,
        settings=[s.to_json() for s in SCENE_VARIANTS],
    )
    subprocess.run(
        [sys.executable, "-c", BACKEND, str(tmp_path / "inputs.npz"), str(tmp_path)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
        check=True,
    )
    for number, s in enumerate(SCENE_VARIANTS):
        with np.load(tmp_path / f"{number}.npz") as merged:
            for i, scene in enumerate(scenes):
                part = {name: merged[name][i] for name in merged.files}
                _assert_equal(part, _plain(*scene, s, SCENE_SIZE))


@pytest.mark.parametrize(
    ("masks_shape", "classes_shape", "changes", "words"),
    [
        ((1, 4, 5, 6), (1, 7, CHANNELS), {}, "as many slots; got .*6.*7, 6"),
        ((4, 5, 6), (6, CHANNELS), {}, r"mask_logits are \[B, h, w, slots\]"),
        ((1, 4, 5, 6), (1, 6, 1), {}, "and void; got"),
        ((1, 4, 5, 100), (1, 100, CHANNELS), {}, "number of slots, 100; got 100"),
        ((1, 4, 5, 6), (1, 6, CHANNELS), {"thing_classes": (2, 6)}, r"thing_classes .* \[6\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(masks_shape, classes_shape, changes, words):
    values = {"thing_classes": THINGS, "label_divisor": DIVISOR, "void_label": VOID, **changes}
    with pytest.raises(InputError, match=words):
        merge_masks(np.zeros(masks_shape), np.zeros(classes_shape), MaskSettings(**values), (8, 9))


def test_slots_that_are_known_at_run_time_only_are_refused():
    with pytest.raises(InputError, match="with as many slots; got .*None"):
        _compiled(SCENE_VARIANTS[0], None)(*(x[None] for x in _scene()), *SCENE_SIZE)
