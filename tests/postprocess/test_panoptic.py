"""The merge of Panoptic-DeepLab, in Keras and in NumPy, beside a plain version of its rules."""

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

from deeplab_tf.postprocess import merge_settings, panoptic, panoptic_numpy
from deeplab_tf.postprocess.merge_settings import RULES, MergeSettings

THINGS, DIVISOR, VOID = (2, 3), 100, 9
OTHER_BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
MAPS = {"panoptic_label": np.int32, "instance_map": np.int32, "instance_score": np.float32}


def _settings(**changes):
    values = dict(nms_kernel=3, stuff_area_limit=0, center_threshold=0.1)
    return MergeSettings(THINGS, DIVISOR, VOID, **{**values, **changes})


def _plain(semantic, heatmap, offsets, s):
    """Pixel by pixel and instance by instance, in float64."""
    height, width = semantic.shape
    before, after = (s.nms_kernel - 1) // 2, s.nms_kernel // 2
    peaks = []
    for y, x in np.ndindex(semantic.shape):
        window = heatmap[max(0, y - before) : y + after + 1, max(0, x - before) : x + after + 1]
        if heatmap[y, x] > max(s.center_threshold, 0) and heatmap[y, x] == window.max():
            peaks.append((y, x))
    highest = sorted(peaks, key=lambda place: (-heatmap[place], place))[: s.max_centers]
    centers = sorted(highest)
    instances = np.zeros(semantic.shape, np.int32)
    scores = np.zeros(semantic.shape, np.float32)
    thing = np.isin(semantic, s.thing_classes)
    for y, x in np.argwhere(thing):
        if centers:
            place = np.float32([y, x]) + offsets[y, x]
            squares = [((place - np.float64(center)) ** 2).sum() for center in centers]
            instances[y, x] = np.argmin(squares) + 1
            scores[y, x] = heatmap[centers[instances[y, x] - 1]]
    result = np.full(semantic.shape, VOID * DIVISOR, np.int32)
    numbers, first = np.unique(instances, return_index=True)
    order = numbers if s.rule == "pytorch" else numbers[np.argsort(first)]
    groups = [(instances == number) & thing for number in order if number]
    if s.rule == "compiled" and not centers:
        groups = [thing]
    seen = {}
    for group in groups:
        if group.any():
            winner = int(np.bincount(semantic[group]).argmax())
            seen[winner] = seen.get(winner, 0) + 1
            if seen[winner] < DIVISOR:
                result[group] = winner * DIVISOR + seen[winner]
    for label in set(semantic[~thing].tolist()):
        area = (semantic == label).sum()
        if area > s.stuff_area_limit or (area == s.stuff_area_limit and s.rule != "compiled"):
            result[semantic == label] = label * DIVISOR
    return dict(zip(MAPS, (result, instances, scores), strict=True))


@functools.cache
def _compiled(s):
    specs = [
        tf.TensorSpec((None, None, None), tf.int32),
        tf.TensorSpec((None, None, None, 1)),
        tf.TensorSpec((None, None, None, 2)),
    ]
    return tf.function(
        lambda *inputs: panoptic.merge(*inputs, s), input_signature=specs, autograph=False
    )


def _keras(semantic, heatmap, offsets, s):
    """One picture through the compiled merge of batches of any size."""
    merged = _compiled(s)(semantic[None], heatmap[None, ..., None], offsets[None])
    return {name: value.numpy()[0] for name, value in merged.items()}


def _assert_equal(ours, expected):
    assert set(ours) == set(MAPS)
    for name, value in ours.items():
        assert value.dtype == MAPS[name]
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@st.composite
def pictures(draw):
    """Small maps with ties of all kinds: few heights, offsets in steps of a quarter."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, reach = (height, width), draw(st.sampled_from([0, 2, 40]))
    semantic = random.integers(0, draw(st.sampled_from([3, 4, 6])), size).astype(np.int32)
    heights = np.float32(draw(st.sampled_from([[0.5], [0, 0.1, 0.2], [0, 0, 0, 0.3, 0.4, 0.9]])))
    offsets = random.integers(-4 * reach, 4 * reach + 1, (*size, 2)).astype(np.float32) / 4
    return semantic, random.choice(heights, size), offsets


VARIANTS = [
    _settings(),
    _settings(rule="compiled", stuff_area_limit=5),
    _settings(rule="pytorch", nms_kernel=5, keep_k_centers=2),
    _settings(nms_kernel=4, keep_k_centers=3, stuff_area_limit=5),
    _settings(nms_kernel=1, keep_k_centers=0, center_threshold=-1.0),
]


@pytest.mark.parametrize("s", VARIANTS, ids=lambda s: f"{s.rule}-{s.nms_kernel}")
@settings(max_examples=60, deadline=None)
@given(pictures())
def test_both_merges_are_the_plain_one(s, picture):
    expected = _plain(*picture, s)
    _assert_equal(panoptic_numpy.merge(*picture, s), expected)
    _assert_equal(_keras(*picture, s), expected)


def _scene(seed=0, size=(60, 80), centers=12, noise=2.0):
    """Discs of things over bands of stuff, as a network would see them."""
    random = np.random.default_rng(seed)
    y, x = np.indices(size)
    semantic = np.where(y < size[0] // 2, 0, 1).astype(np.int32)
    heatmap = random.random(size).astype(np.float32) * 0.05
    offsets = random.normal(0, 9, (*size, 2)).astype(np.float32)
    for number in range(centers):
        dy, dx = random.integers(0, size[0]) - y, random.integers(0, size[1]) - x
        disc = dy**2 + dx**2 < random.integers(16, 144)
        semantic[disc] = 2 + number % 2
        offsets[disc] = np.stack([dy, dx], -1)[disc] + random.normal(0, noise, (disc.sum(), 2))
        peak = random.uniform(0.3, 1) * np.exp(-(dy**2 + dx**2) / 18)
        heatmap = np.maximum(heatmap, peak.astype(np.float32))
    return semantic, heatmap, offsets


@pytest.mark.parametrize("rule", RULES)
def test_a_scene_is_merged_as_the_plain_version_does(rule):
    for seed in range(3):
        picture, s = _scene(seed), _settings(rule=rule, nms_kernel=7, stuff_area_limit=500)
        expected = _plain(*picture, s)
        assert expected["instance_map"].max() > 5
        _assert_equal(panoptic_numpy.merge(*picture, s), expected)
        _assert_equal(_keras(*picture, s), expected)


def test_far_places_and_large_sums_do_not_change_the_nearest_centre():
    # Coordinates as in a street scene, places between centres and far outside the picture.
    random = np.random.default_rng(1)
    size = (64, 2049)
    heatmap = np.zeros(size, np.float32)
    heatmap.ravel()[random.choice(heatmap.size, 150, replace=False)] = 1
    offsets = random.normal(0, 1, (*size, 2)).astype(np.float32) * np.float32([40, 700])
    semantic = np.full(size, 2, np.int32)
    merged = panoptic_numpy.merge(semantic, heatmap, offsets, _settings(nms_kernel=1))
    y, x = np.nonzero(heatmap)
    places = np.indices(size, np.float32) + offsets.transpose(2, 0, 1)
    dy, dx = places[0][..., None] - y.astype(float), places[1][..., None] - x.astype(float)
    nearest = (dy**2 + dx**2).argmin(-1) + 1
    np.testing.assert_array_equal(merged["instance_map"], nearest)


def test_a_batch_is_merged_picture_by_picture():
    s = _settings(nms_kernel=7)
    for count in (1, 3, 6):  # six are a loop, the others are written out
        scenes = [_scene(seed, (30, 40), 4 * (seed % 3)) for seed in range(count)]
        semantic, heatmap, offsets = (np.stack(part) for part in zip(*scenes, strict=True))
        for run in (_compiled(s), lambda *inputs: panoptic.merge(*inputs, s)):
            merged = run(semantic, heatmap[..., None], offsets)
            for i, scene in enumerate(scenes):
                part = {name: value.numpy()[i] for name, value in merged.items()}
                _assert_equal(part, panoptic_numpy.merge(*scene, s))


def test_too_many_centres_leave_the_highest_and_of_equal_ones_the_first():
    heatmap = np.zeros((1, 12), np.float32)
    heatmap[0, [0, 2, 4, 6, 8]] = 0.5, 0.9, 0.5, 0.5, 0.7
    semantic = np.full((1, 12), 2, np.int32)
    offsets, s = np.zeros((1, 12, 2), np.float32), _settings(keep_k_centers=4)
    merged = panoptic_numpy.merge(semantic, heatmap, offsets, s)
    # The peak at 6 is gone; its pixel is as near to 4 as to 8.
    assert merged["instance_map"][0, [0, 2, 4, 6, 8]].tolist() == [1, 2, 3, 3, 4]
    scores = merged["instance_score"][0, [0, 2, 4, 8]]
    np.testing.assert_array_equal(scores, heatmap[0, [0, 2, 4, 8]])
    _assert_equal(_keras(semantic, heatmap, offsets, s), merged)


def test_a_flat_heatmap_makes_as_many_instances_as_may_be_kept():
    semantic, heatmap = np.full((40, 50), 3, np.int32), np.full((40, 50), 0.5, np.float32)
    offsets = np.zeros((40, 50, 2), np.float32)
    s = _settings(keep_k_centers=90)
    merged = panoptic_numpy.merge(semantic, heatmap, offsets, s)
    assert merged["instance_map"].max() == 90
    _assert_equal(_keras(semantic, heatmap, offsets, s), merged)


def test_all_centres_are_kept_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(merge_settings, "MAX_CENTERS", 7)
    semantic, heatmap = np.full((4, 5), 3), np.full((4, 5), 0.5)
    s = _settings(keep_k_centers=-1)
    merged = panoptic_numpy.merge(semantic, heatmap, np.zeros((4, 5, 2)), s)
    assert merged["instance_map"].max() == 7


def test_instances_that_the_divisor_has_no_number_for_are_void():
    semantic, heatmap = np.full((1, 8), 2, np.int32), np.full((1, 8), 0.5, np.float32)
    offsets = np.zeros((1, 8, 2), np.float32)
    s = MergeSettings((2,), 5, 9, nms_kernel=1, stuff_area_limit=0)
    merged = panoptic_numpy.merge(semantic, heatmap, offsets, s)
    assert merged["panoptic_label"].tolist() == [[11, 12, 13, 14, 45, 45, 45, 45]]
    _assert_equal(_keras(semantic, heatmap, offsets, s), merged)


@pytest.mark.parametrize("rule", RULES)
def test_without_a_centre_things_are_void_or_one_instance(rule):
    semantic = np.array([[0, 2, 3, 3]], np.int32)
    zeros = np.zeros((1, 4), np.float32)
    s = _settings(rule=rule)
    merged = panoptic_numpy.merge(semantic, zeros, np.zeros((1, 4, 2)), s)
    thing = 301 if rule == "compiled" else 900
    assert merged["panoptic_label"].tolist() == [[0, thing, thing, thing]]
    assert not merged["instance_map"].any() and not merged["instance_score"].any()
    _assert_equal(_keras(semantic, zeros, np.zeros((1, 4, 2), np.float32), s), merged)


def test_centres_without_a_thing_pixel_are_no_instances():
    semantic, heatmap = np.zeros((3, 3), np.int32), np.eye(3, dtype=np.float32)
    offsets = np.zeros((3, 3, 2), np.float32)
    for s in (_settings(), MergeSettings((), 100, 9, stuff_area_limit=0)):
        merged = panoptic_numpy.merge(semantic, heatmap, offsets, s)
        assert not merged["panoptic_label"].any() and not merged["instance_map"].any()
        _assert_equal(_keras(semantic, heatmap, offsets, s), merged)


def test_small_stuff_is_void():
    semantic = np.array([[0, 0, 0, 1, 1, 4]])
    nothing = np.zeros((1, 6)), np.zeros((1, 6, 2))
    for rule, expected in (
        ("tensorflow", [0, 0, 0, 100, 100, 900]),
        ("compiled", [0] * 3 + [900] * 3),
    ):
        s = _settings(rule=rule, stuff_area_limit=2)
        assert panoptic_numpy.merge(semantic, *nothing, s)["panoptic_label"].tolist() == [expected]


def test_labels_that_no_class_can_have_are_void():
    semantic = np.array([[-1, 0, merge_settings.MAX_CLASSES, 2**30]], np.int32)
    nothing = np.zeros((1, 4), np.float32), np.zeros((1, 4, 2), np.float32)
    merged = panoptic_numpy.merge(semantic, *nothing, _settings())
    assert merged["panoptic_label"].tolist() == [[900, 0, 900, 900]]
    _assert_equal(_keras(semantic, *nothing, _settings()), merged)


def test_values_that_are_no_numbers_harm_only_their_own_pixels():
    semantic, heatmap, offsets = _scene(noise=0.5)
    s = _settings(nms_kernel=7)
    clean = panoptic_numpy.merge(semantic, heatmap, offsets, s)
    spoiled = offsets.copy()
    spoiled[::7, ::5] = np.nan
    spoiled[3::7, ::5] = np.inf
    heat = np.where(heatmap < 0.05, np.nan, heatmap)
    heat = np.where(np.random.default_rng(0).random(heat.shape) < 0.5, heat, heatmap)
    merged = panoptic_numpy.merge(semantic, heatmap, spoiled, s)
    intact = np.isfinite(spoiled).all(-1)
    np.testing.assert_array_equal(merged["instance_map"][intact], clean["instance_map"][intact])
    _assert_equal(_keras(semantic, heatmap, spoiled, s), merged)
    merged = panoptic_numpy.merge(semantic, heat.astype(np.float32), spoiled, s)
    assert np.isfinite(merged["instance_score"]).all()


def test_half_precision_comes_in_as_well():
    semantic, heatmap, offsets = _scene()
    s = _settings(nms_kernel=7)
    halves = heatmap.astype(np.float16), offsets.astype(np.float16)
    merged = panoptic.merge(semantic[None], halves[0][None, ..., None], halves[1][None], s)
    expected = panoptic_numpy.merge(semantic, *halves, s)
    _assert_equal({name: value.numpy()[0] for name, value in merged.items()}, expected)


def test_it_goes_into_a_saved_model(tmp_path):
    s = _settings(nms_kernel=7)
    module = tf.Module()
    module.merge = _compiled(s)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for size in ((20, 30), (33, 17)):
        scene = _scene(3, size, 5)
        merged = loaded.merge(scene[0][None], scene[1][None, ..., None], scene[2][None])
        merged = {name: value.numpy()[0] for name, value in merged.items()}
        _assert_equal(merged, panoptic_numpy.merge(*scene, s))


BACKEND = """
import sys, keras, numpy as np
from deeplab_tf.postprocess.panoptic import MergeSettings, merge
arrays = np.load(sys.argv[1])
inputs = arrays["semantic"], arrays["heatmap"], arrays["offsets"]
for number, text in enumerate(arrays["settings"]):
    settings = MergeSettings.from_json(str(text))
    run = lambda *inputs: merge(*inputs, settings)
    if keras.backend.backend() == "jax":
        import jax
        run = jax.jit(run)
    maps = {name: keras.ops.convert_to_numpy(value) for name, value in run(*inputs).items()}
    np.savez(sys.argv[2] + f"/{number}.npz", **maps)
"""


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_other_backends_give_the_same_maps(backend, tmp_path):
    scenes = [_scene(seed, (30, 40), 4 * seed) for seed in range(3)]
    semantic, heatmap, offsets = (np.stack(part) for part in zip(*scenes, strict=True))
    variants = [_settings(nms_kernel=7, rule="compiled"), _settings(keep_k_centers=3)]
    np.savez(
        tmp_path / "inputs.npz",
        semantic=semantic,
        heatmap=heatmap[..., None],
        offsets=offsets,
        settings=[s.to_json() for s in variants],
    )
    subprocess.run(
        [sys.executable, "-c", BACKEND, str(tmp_path / "inputs.npz"), str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
    )
    for number, s in enumerate(variants):
        with np.load(tmp_path / f"{number}.npz") as merged:
            for i, scene in enumerate(scenes):
                part = {name: merged[name][i] for name in merged.files}
                _assert_equal(part, panoptic_numpy.merge(*scene, s))


def test_the_numpy_merge_loads_neither_tensorflow_nor_keras():
    code = (
        "import sys, deeplab_tf.postprocess.panoptic_numpy, deeplab_tf.postprocess.segments\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "inputs",
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3, 2))),
        (np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3, 3))),
        (np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.zeros((1, 2, 3, 2))),
    ],
)
def test_sizes_that_differ_are_refused(inputs):
    with pytest.raises(ValueError, match=r"\[H, W"):
        panoptic_numpy.merge(*inputs, _settings())
