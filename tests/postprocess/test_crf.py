"""The CRF for arrays: mean field against a plain one, properties, parameters and refusals."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess import crf, crf_unary
from deeplab_tf.postprocess.crf import CRF_PRESETS, CrfParameters, PictureCrf, dense_crf
from deeplab_tf.postprocess.crf_parameters import NORMALIZATIONS
from deeplab_tf.postprocess.permutohedral import Lattice

ROOT = Path(__file__).resolve().parents[2]


def _picture(height=24, width=70, classes=5, seed=0):
    """A picture of flat fields with noise, and a weak network's probabilities."""
    random = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    labels = (x // 15 + y // 9) % classes
    image = random.integers(20, 236, (classes, 3))[labels]
    image = np.clip(image + random.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    logits = random.normal(size=(height, width, classes)) + 1.5 * np.eye(classes)[labels]
    return image, _softmax(logits).astype(np.float32), labels


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _plain(image, unary, parameters: CrfParameters):
    """Mean field written down in NumPy, with the lattice as a plain filter."""
    height, width, classes = unary.shape
    y, x = np.indices((height, width))
    positions = np.stack([x, y], -1).astype(np.float32).reshape(-1, 2)
    features = [
        np.concatenate(
            [
                positions / np.float32(parameters.sigma_alpha),
                image.reshape(-1, 3) / np.float32(parameters.sigma_beta),
            ],
            axis=1,
        ),
        positions / np.float32(parameters.sigma_gamma),
    ]
    unary = unary.reshape(-1, classes)
    q = _softmax(-unary)
    lattices = [Lattice(feature) for feature in features]
    for _ in range(parameters.iterations):
        total = 0
        for lattice, weight in zip(lattices, (parameters.w1, parameters.w2), strict=True):
            n = lattice.filter(np.ones((len(q), 1), np.float32))
            before, after = {
                "symmetric": (n**-0.5, n**-0.5),
                "before": (1 / n, 1),
                "after": (1, 1 / n),
                "none": (1, 1),
            }[parameters.normalization]
            total = total + weight * after * lattice.filter(before * q)
        if parameters.compatibility is not None:
            total = -total @ np.array(parameters.compatibility).T
        q = _softmax(total - unary)
    return q.reshape(height, width, classes)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("matrix", [False, True])
def test_it_is_mean_field(normalization, matrix):
    image, probabilities, _ = _picture()
    compatibility = np.random.default_rng(1).uniform(0, 1, (5, 5)) if matrix else None
    weight = 0.01 if normalization == "none" else 1
    parameters = CrfParameters(
        w1=4 * weight,
        w2=3 * weight,
        sigma_alpha=20,
        sigma_beta=12,
        iterations=3,
        normalization=normalization,
        compatibility=compatibility,
    )
    unary = crf.unary_from_probabilities(probabilities)
    expected = _plain(image, unary, parameters)
    ours = dense_crf(image, probabilities=probabilities, parameters=parameters)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.abs(ours - _softmax(-unary)).max() > 0.1


@pytest.mark.parametrize("classes", [1, 2, 3, 8, 9, 17, 40])
def test_any_number_of_classes_and_any_size(classes):
    for height, width in ((1, 1), (1, 9), (5, 1), (3, 66)):
        image, probabilities, _ = _picture(height, width, classes)
        parameters = CrfParameters(sigma_alpha=9, sigma_beta=20, iterations=2)
        expected = _plain(image, crf.unary_from_probabilities(probabilities), parameters)
        ours = dense_crf(image, probabilities=probabilities, parameters=parameters)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_it_repairs_labels():
    image, probabilities, labels = _picture(48, 60)
    q = dense_crf(image, probabilities=probabilities, parameters="deeplab_v1_large_fov")
    before, after = ((x.argmax(-1) == labels).mean() for x in (probabilities, q))
    assert before < 0.8 and after > 0.97


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_number_of_threads_changes_no_bit(threads):
    image, probabilities, _ = _picture(20, 200, 21)
    ours = [dense_crf(image, probabilities=probabilities, threads=n) for n in (1, threads)]
    np.testing.assert_array_equal(*ours)


@hypothesis.given(st.permutations(range(11)), st.sampled_from(["symmetric", "before", "after"]))
@hypothesis.settings(deadline=None, max_examples=15)
def test_renamed_classes_give_renamed_answers(order, normalization):
    image, probabilities, _ = _picture(classes=11)
    parameters = CrfParameters(iterations=3, normalization=normalization)
    ours = dense_crf(image, probabilities=probabilities, parameters=parameters)
    renamed = dense_crf(image, probabilities=probabilities[..., order], parameters=parameters)
    np.testing.assert_allclose(renamed, ours[..., order], atol=1e-5)


def test_a_picture_without_colours_leaves_positions_alone():
    """Its bilateral kernel is a Gaussian one: three features more, all zero, blur nothing."""
    image, probabilities, _ = _picture()
    black = np.zeros_like(image)
    q = dense_crf(black, probabilities=probabilities, parameters=CrfParameters(w1=0, iterations=4))
    other = dense_crf(
        image, probabilities=probabilities, parameters=CrfParameters(w1=0, iterations=4)
    )
    np.testing.assert_array_equal(q, other)
    gray = np.full_like(image, 77)
    parameters = CrfParameters(w2=0, sigma_alpha=5, iterations=4)
    ours = [dense_crf(x, probabilities=probabilities, parameters=parameters) for x in (black, gray)]
    spatial = CrfParameters(w1=0, w2=4, sigma_gamma=5, iterations=4)
    spatial = dense_crf(image, probabilities=probabilities, parameters=spatial)
    # The lattice is of five dimensions here and of two there, hence not the same.
    for q in ours:
        assert np.abs(q - spatial).mean() < 0.03 < np.abs(q - probabilities).mean()


def test_potts_is_a_matrix_of_ones_with_zeros_on_its_diagonal():
    image, probabilities, _ = _picture()
    matrix = CrfParameters(compatibility=1 - np.eye(5), iterations=5)
    np.testing.assert_allclose(
        dense_crf(image, probabilities=probabilities, parameters=matrix),
        dense_crf(image, probabilities=probabilities, parameters=CrfParameters(iterations=5)),
        atol=1e-5,
    )


def test_a_cost_counts_for_the_class_of_its_row():
    """Class 0 is dear beside class 1, which fills the picture; nothing else costs."""
    image = np.zeros((12, 12, 3), np.uint8)
    probabilities = np.full((12, 12, 3), [0.4, 0.4, 0.2], np.float32)
    costs = np.zeros((3, 3))
    costs[0, 1] = 1
    q = dense_crf(image, probabilities=probabilities, parameters=CrfParameters(compatibility=costs))
    assert (q.argmax(-1) == 1).all() and q[..., 0].max() < 0.1
    np.testing.assert_allclose(q[..., 1] / q[..., 2], 2, rtol=1e-3)


def test_widths_of_each_axis_and_channel():
    image, probabilities, _ = _picture()
    single = CrfParameters(sigma_alpha=9, sigma_beta=7, sigma_gamma=2, iterations=2)
    several = dataclasses.replace(
        single, sigma_alpha=(9, 9), sigma_beta=(7, 7, 7), sigma_gamma=(2, 2)
    )
    answers = [
        dense_crf(image, probabilities=probabilities, parameters=p) for p in (single, several)
    ]
    np.testing.assert_array_equal(*answers)
    wide = dataclasses.replace(single, w1=0, sigma_gamma=(1, 6))
    turned = dataclasses.replace(single, w1=0, sigma_gamma=(6, 1))
    across = dense_crf(image, probabilities=probabilities, parameters=wide)
    swapped = (array.transpose(1, 0, 2) for array in (image, probabilities))
    down = dense_crf(next(swapped), probabilities=next(swapped), parameters=turned)
    # x comes before y in the lattice, so the two differ a little.
    assert np.abs(across - down.transpose(1, 0, 2)).mean() < 0.01
    assert np.abs(across - answers[0]).mean() > 0.01


def test_one_picture_serves_many_weights():
    image, probabilities, _ = _picture()
    unary = crf.unary_from_probabilities(probabilities)
    picture = PictureCrf(image, CrfParameters())
    assert picture.vertices["bilateral"] > 50 < picture.vertices["gaussian"]
    for change in (dict(w1=1.5), dict(w1=0), dict(w2=0, iterations=3), dict(normalization="after")):
        parameters = dataclasses.replace(CrfParameters(), **change)
        np.testing.assert_array_equal(
            picture.infer(unary, parameters), PictureCrf(image, parameters).infer(unary)
        )
    np.testing.assert_allclose(
        picture.infer(unary, CrfParameters(iterations=0)), probabilities, atol=1e-5
    )
    with pytest.raises(InputError, match=r"sigma_beta was 3\.0 for this PictureCrf"):
        picture.infer(unary, CrfParameters(sigma_beta=5))
    with pytest.raises(InputError, match="w1 was 0 for this PictureCrf"):
        PictureCrf(image, CrfParameters(w1=0)).infer(unary, CrfParameters())


# --- Unaries ---


def test_unaries_of_probabilities_and_logits_agree():
    _, probabilities, _ = _picture(3, 5)
    probabilities[0, 0] = [1, 0, 0, 0, 0]
    expected = -np.log(np.clip(probabilities, 1e-5, 1))
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-6), (np.float16, 0.02)):
        ours = crf.unary_from_probabilities(probabilities.astype(dtype))
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected, atol=tolerance, rtol=tolerance)
    logits = np.log(np.maximum(probabilities, 1e-30)) + 1000
    np.testing.assert_allclose(crf.unary_from_logits(logits), expected, atol=1e-3)


def test_unaries_of_labels():
    labels = np.array([[0, 3], [255, 1]])
    unary = crf.unary_from_labels(labels, 4, confidence=0.7)
    expected = np.full((2, 2, 4), 0.1)
    expected[0, 0, 0] = expected[0, 1, 3] = expected[1, 1, 1] = 0.7
    expected[1, 0] = 0.25
    np.testing.assert_allclose(np.exp(-unary), expected, rtol=1e-5)
    image, _, labels = _picture()
    q = dense_crf(image, labels=labels.astype(np.uint8), num_classes=5, confidence=0.6)
    assert (q.argmax(-1) == labels).mean() > 0.98


@pytest.mark.parametrize("strip", [1, 7, 100])
def test_strips_change_nothing(strip, monkeypatch):
    _, probabilities, _ = _picture(5, 9)
    expected = crf.unary_from_probabilities(probabilities)
    monkeypatch.setattr(crf_unary, "_STRIP", strip)
    np.testing.assert_array_equal(crf.unary_from_probabilities(probabilities), expected)
    probabilities[4, 8, 0] = np.nan
    with pytest.raises(InputError, match="pixel number 44 add up to nan"):
        crf.unary_from_probabilities(probabilities)


# --- Refusals ---


def _changed(array, value):
    array = array.copy()
    array[1, 2, 0] = value
    return array


IMAGE, PROBABILITIES, LABELS = _picture(6, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of .* got none"),
        ({"probabilities": PROBABILITIES, "logits": PROBABILITIES}, "probabilities and logits"),
        ({"probabilities": PROBABILITIES * 2}, "pixel number 0 add up to 2"),
        ({"probabilities": _changed(PROBABILITIES, np.nan)}, "pixel number 10 add up to nan"),
        ({"probabilities": PROBABILITIES + [1, -1, 0, 0, 0]}, "at least 0; got -"),
        ({"probabilities": (PROBABILITIES * 255).astype(np.uint8)}, "floats"),
        ({"probabilities": PROBABILITIES[:-1]}, "6 x 8 pixels, what belongs to it of 5 x 8"),
        ({"probabilities": PROBABILITIES[..., 0]}, r"floats of shape \[H, W, C\]"),
        ({"probabilities": PROBABILITIES[..., :0]}, "floats"),
        ({"logits": _changed(PROBABILITIES, np.inf)}, "logits are finite"),
        ({"labels": LABELS}, "num_classes"),
        ({"labels": LABELS + 3, "num_classes": 3}, r"labels are 0\.\.2 or ignore_label"),
        ({"labels": LABELS - 1, "num_classes": 5}, r"got -1\.\."),
        ({"labels": LABELS, "num_classes": 1}, "at least 2"),
        ({"labels": LABELS, "num_classes": 5, "confidence": 1.0}, "confidence"),
        ({"labels": LABELS.astype(float), "num_classes": 5}, "integers"),
        ({"labels": LABELS[:, :4], "num_classes": 5}, "6 x 8 pixels, what belongs to it of 6 x 4"),
        ({"probabilities": PROBABILITIES, "threads": 0}, "threads"),
        ({"probabilities": PROBABILITIES, "parameters": "deeplab_v3"}, "deeplab_v1_large_fov"),
        (
            {"probabilities": PROBABILITIES, "parameters": CrfParameters(compatibility=np.eye(4))},
            "compatibility is of 4 classes, the picture of 5",
        ),
        (
            {"probabilities": PROBABILITIES, "parameters": CrfParameters(sigma_alpha=1e-7)},
            "kernel widths are too small",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        dense_crf(IMAGE, **arguments)


@pytest.mark.parametrize(
    "image",
    [IMAGE / 255, IMAGE[..., :2], IMAGE[..., 0], IMAGE.astype(int), IMAGE[0, 0], "photo.jpg"],
)
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(InputError, match="uint8"):
        dense_crf(image, probabilities=PROBABILITIES)
    with pytest.raises(InputError, match="uint8"):
        PictureCrf(image)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sigma_alpha": 0}, "sigma_alpha is a width above 0; got 0"),
        ({"sigma_beta": -3.0}, "sigma_beta is a width above 0"),
        ({"sigma_gamma": float("nan")}, "sigma_gamma is finite"),
        ({"sigma_beta": (3, 3)}, "3 of them"),
        ({"sigma_beta": (3, 3, 0)}, "above 0"),
        ({"sigma_alpha": "wide"}, "sigma_alpha is a number"),
        ({"w1": None}, "w1 is a number"),
        ({"w2": float("inf")}, "w2 is finite"),
        ({"iterations": -1}, "at least 0"),
        ({"iterations": 2.5}, "whole number"),
        ({"iterations": True}, "whole number"),
        ({"normalization": "both"}, "symmetric"),
        ({"compatibility": [[1, 2], [3]]}, "matrix"),
        ({"compatibility": [1, 2]}, "matrix"),
        ({"compatibility": [[1, float("nan")], [3, 4]]}, "matrix"),
        ({"sigma_gama": 1}, "no parameter 'sigma_gama'"),
    ],
)
def test_parameters_that_cannot_be_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        CrfParameters.from_dict(values)


@pytest.mark.parametrize(
    "parameters",
    [*CRF_PRESETS.values(), CrfParameters(sigma_beta=(1, 2, 3), compatibility=np.eye(3))],
)
def test_parameters_go_through_json(parameters):
    assert CrfParameters.from_dict(json.loads(json.dumps(parameters.to_dict()))) == parameters
    assert hash(parameters) == hash(dataclasses.replace(parameters))


def test_too_little_memory_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr(crf, "free_memory", lambda: 100_000)
    monkeypatch.setattr(crf, "PictureCrf", None)
    with pytest.raises(InputError, match=r"70 x 24 pixels and 50 classes needs 0\.0 GB.*smaller"):
        dense_crf(np.zeros((24, 70, 3), np.uint8), logits=np.zeros((24, 70, 50)))


def test_unaries_of_another_kind_are_refused():
    picture = PictureCrf(IMAGE)
    for unary in (np.zeros((6, 8)), np.full((6, 8, 2), np.nan), np.full((6, 8, 2), np.inf)):
        with pytest.raises(InputError, match="unaries"):
            picture.infer(unary)
    with pytest.raises(InputError, match="6 x 8 pixels, what belongs to it of 8 x 6"):
        picture.infer(np.zeros((8, 6, 2)))


# --- Where it is imported and compiled ---


def _python(code: str, **environment) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_loads_neither_numba_nor_a_framework():
    code = "import deeplab_tf.postprocess.crf, sys; "
    heavy = "[name for name in ('numba', 'tensorflow', 'keras', 'jax') if name in sys.modules]"
    assert _python(f"{code} print({heavy})") == "[]"


def test_without_numba_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "deeplab_tf.postprocess.lattice_loops", raising=False)
    with pytest.raises(InputError, match=r'pip install "deeplab-tf\[crf\]"'):
        dense_crf(IMAGE, probabilities=PROBABILITIES)


def test_it_compiles_where_nothing_can_be_written(monkeypatch):
    """As numba does when neither the package's folder nor the user's can be."""
    import numba

    loops = importlib.import_module("deeplab_tf.postprocess.lattice_loops")

    def refuse(*arguments, cache=False, **options):
        if cache:
            return lambda function: (_ for _ in ()).throw(RuntimeError("no locator available"))
        return numba.njit(*arguments, **options)

    monkeypatch.setattr(loops, "njit", refuse)
    assert loops._compiled(lambda x: x + 1)(2) == 3
