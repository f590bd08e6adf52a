"""The lattice filter is linear, transposed by reversing its axes, and near to a Gaussian."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess import permutohedral
from deeplab_tf.postprocess.permutohedral import Digits, Lattice, elevation

_SHAPES = st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 3, 5]), st.integers(0, 2**32 - 1))


def _points(points: int, dimensions: int, seed: int, spread: float = 4.0):
    random = np.random.default_rng(seed)
    return random.uniform(-spread, spread, (points, dimensions)).astype(np.float32), random


@hypothesis.given(_SHAPES)
@hypothesis.settings(deadline=None, max_examples=40)
def test_it_is_linear_and_reversed_axes_transpose_it(shape):
    features, random = _points(*shape)
    lattice = Lattice(features)
    a, b = random.normal(size=(2, len(features), 3)).astype(np.float32)
    np.testing.assert_allclose(
        lattice.filter(2 * a - b), 2 * lattice.filter(a) - lattice.filter(b), atol=2e-4
    )
    there, back = (a * lattice.filter(b)).sum(), (lattice.filter(a, reverse=True) * b).sum()
    np.testing.assert_allclose(there, back, rtol=1e-3, atol=1e-2)


@hypothesis.given(_SHAPES)
@hypothesis.settings(deadline=None, max_examples=40)
def test_weights_are_shares_and_points_of_a_lattice_stay_positive(shape):
    lattice = Lattice(_points(*shape)[0])
    weights = lattice.weights.reshape(-1, lattice.corners)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)
    assert weights.min() > -1e-4
    ids = lattice.corner_ids.reshape(-1, lattice.corners)
    assert {*ids.ravel()} == {*range(lattice.vertices)}
    assert all(len({*row}) == lattice.corners for row in ids.tolist())
    assert lattice.filter_ones().min() > 0


@pytest.mark.parametrize("classes", [1, 2, 7, 8, 9, 16, 21])
def test_each_class_is_filtered_by_itself(classes):
    features, random = _points(50, 2, 1)
    values = random.normal(size=(50, classes)).astype(np.float32)
    lattice = Lattice(features)
    together = lattice.filter(values)
    for column in range(classes):
        alone = lattice.filter(values[:, column : column + 1])
        np.testing.assert_array_equal(together[:, column : column + 1], alone)
    np.testing.assert_array_equal(
        lattice.filter(np.ones((50, classes), np.float32)),
        np.broadcast_to(lattice.filter_ones()[:, None], (50, classes)),
    )


def test_it_is_the_dense_matrix_of_its_three_steps():
    """Splat, blur and slice written down as matrices, from the corners alone."""
    features, _ = _points(30, 2, 2)
    lattice = Lattice(features)
    splat = np.zeros((lattice.vertices, 30))
    ids = lattice.corner_ids.reshape(30, 3)
    np.add.at(splat, (ids, np.arange(30)[:, None]), lattice.weights.reshape(30, 3))
    blur = np.eye(lattice.vertices)
    for order, ends in lattice._lines:
        axis, start = np.eye(lattice.vertices), 0
        for end in ends:
            for one, other in zip(order[start : end - 1], order[start + 1 : end], strict=True):
                axis[one, other] = axis[other, one] = 0.5
            start = end
        blur = axis @ blur
    expected = splat.T @ blur @ splat / (1 + 2.0**-2)
    np.testing.assert_allclose(lattice.filter(np.eye(30, dtype=np.float32)), expected, atol=1e-6)


def test_a_grid_of_points_is_filtered_nearly_as_by_a_gaussian():
    y, x = np.indices((40, 40))
    features = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32) / 4
    values = np.random.default_rng(0).uniform(size=(1600, 1)).astype(np.float32)
    lattice = Lattice(features, 40)
    distance = ((features[:, None] - features[None]) ** 2).sum(-1)
    kernel = np.exp(-distance / 2)
    ours = lattice.filter(values)[:, 0] / lattice.filter_ones()
    exact = (kernel @ values)[:, 0] / kernel.sum(1)
    assert np.abs(ours - exact).max() < 0.02 < np.abs(values[:, 0] - exact).max()


def test_the_order_of_walking_changes_nothing_but_numbers_of_vertices():
    features, random = _points(7 * 130, 3, 3)
    values = random.normal(size=(len(features), 4)).astype(np.float32)
    plain, picture = Lattice(features), Lattice(features, 130)
    assert plain.vertices == picture.vertices
    np.testing.assert_allclose(plain.filter(values), picture.filter(values), atol=1e-5)


def test_more_vertices_than_the_first_hash_table_holds():
    features, _ = _points(20_000, 5, 4, spread=60)
    lattice = Lattice(features)
    assert lattice.vertices > 1 << 16
    weights = lattice.weights.reshape(-1, 6).astype(np.float64)
    # Nearly every point is alone, and a lone point meets itself in the corners' squares and little
    # more.
    assert np.median(lattice.filter_ones() - (weights**2).sum(1) * lattice.gain) >= 0


@hypothesis.given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 50)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_codes_are_unique_and_steps_lead_to_neighbours(bounds, seed):
    """Coordinates rebuilt from a code's digits; the step adds (-1, …, d, …, -1)."""
    low = [start for start, _ in bounds]
    digits = Digits.of_features(low, [start + extent for start, extent in bounds])
    d, random = len(bounds), np.random.default_rng(seed)

    def coordinates(code: int) -> list[int]:
        quotients = [
            code // stride % count + first
            for stride, count, first in zip(digits.strides, digits.counts, digits.low, strict=True)
        ]
        return [(d + 1) * quotient + code % (d + 1) for quotient in quotients]

    middle = sum(
        int(count // 2) * s for count, s in zip(digits.counts, digits.strides, strict=True)
    )
    code = middle + int(random.integers(0, d + 1))
    for axis in range(d + 1):
        step, step_over = digits.steps(axis)
        moved = coordinates(code + (step if code % (d + 1) else step_over))
        expected = [x + (d if i == axis else -1) for i, x in enumerate(coordinates(code))]
        assert moved == expected
    assert digits.codes == digits.strides[-1] * digits.counts[-1] > code


def test_all_vertices_lie_within_the_digits():
    """A code whose digits ran over would meet that of another vertex."""
    features, _ = _points(500, 2, 5, spread=1)
    features[:4] = [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    wide = np.concatenate([features, [[-30, -30], [30, 30]]]).astype(np.float32)
    assert Lattice(features).vertices + 6 == Lattice(wide).vertices


def test_the_scales_are_those_of_the_paper():
    np.testing.assert_allclose(elevation(2), np.sqrt(2 / 3) * 3 / np.sqrt([2, 6]), rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros((3,)), "shape"),
        (np.zeros((0, 2)), "shape"),
        (np.full((3, 2), np.nan), "finite"),
        (np.array([[0, 0], [1e9, 1e9]]), "kernel widths are too small"),
        (np.arange(10)[:, None] * np.full(5, 1e4), "kernel widths are too small"),
    ],
)
def test_features_that_cannot_be_are_refused(features, words):
    with pytest.raises(InputError, match=words):
        Lattice(features)


def test_values_of_another_number_of_points_are_refused():
    with pytest.raises(InputError, match=r"\[3, C\]"):
        Lattice(np.zeros((3, 2))).filter(np.zeros((4, 1)))


def test_more_vertices_than_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(permutohedral, "free_memory", lambda: 120 * 50)
    features, _ = _points(200, 5, 6, spread=30)
    with pytest.raises(InputError, match="more than 50 vertices"):
        Lattice(features)
