"""Bipartite matching, against every permutation there is."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from deeplab_tf.losses.matching import match, solve

# Of the costs, below: (masks, slots, problems). Ten thousand in all.
SMALL = [(m, s, 250) for m in range(1, 6) for s in range(1, 6)]
LARGE = [(40, 16, 900), (23, 48, 900), (30, 30, 900), (1, 60, 525), (60, 1, 525)]


def _problems(masks, slots, count, seed=0):
    """Costs in [-1, 0], those of the odd problems full of ties; and the masks that are there."""
    random = np.random.default_rng([seed, masks, slots])
    cost = -random.random((count, masks, slots)).astype(np.float32)
    cost[1::2] = np.round(cost[1::2] * 3) / 3
    return cost, random.random((count, masks)) < random.random((count, 1))


def _padded(cost, present):
    """The official code's square problems: float64 [B, N, N]."""
    _, masks, slots = cost.shape
    side = max(masks, slots)
    absent = -999.0 if slots >= masks else 999.0
    square = np.full((len(cost), side, side), -999.0)
    square[:, :masks, :slots] = np.where(present[..., None], cost, absent)
    return square


def _total(cost, slot):
    """What a matching costs: [B]."""
    chosen = np.take_along_axis(cost.astype(np.float64), np.maximum(slot, 0)[..., None], -1)[..., 0]
    return np.where(slot >= 0, chosen, 0).sum(-1)


def _check_rules(slot, present, slots):
    """Only masks that are there have slots, as many as can, and none has another's."""
    assert slot.dtype == np.int32 and (slot[~present] == -1).all() and (slot < slots).all()
    np.testing.assert_array_equal((slot >= 0).sum(1), np.minimum(present.sum(1), slots))
    for one in slot:
        taken = one[one >= 0]
        assert len(set(taken)) == len(taken)


def _from_permutation(permutation, present, slots):
    """The slots of masks in a solution of the square problem."""
    slot = permutation[:, : present.shape[1]]
    return np.where(present & (slot < slots), slot, -1)


def test_there_are_ten_thousand_problems():
    assert sum(count for *_, count in SMALL + LARGE) == 10_000


@pytest.mark.parametrize(("masks", "slots", "count"), SMALL)
def test_no_permutation_of_the_padded_square_is_better(masks, slots, count):
    cost, present = _problems(masks, slots, count)
    slot = match(cost, present).numpy()
    _check_rules(slot, present, slots)
    square, side = _padded(cost, present), max(masks, slots)
    permutations = np.array([*itertools.permutations(range(side))])
    totals = square[:, np.arange(side), permutations].sum(-1)
    best = _from_permutation(permutations[totals.argmin(1)], present, slots)
    np.testing.assert_allclose(_total(cost, slot), _total(cost, best), atol=1e-9)
    # Without ties there is one solution.
    np.testing.assert_array_equal(slot[::2], best[::2])


@pytest.mark.parametrize(("masks", "slots", "count"), LARGE)
def test_larger_ones_cost_as_little_as_the_padded_square(masks, slots, count):
    cost, present = _problems(masks, slots, count)
    slot = match(cost, present).numpy()
    _check_rules(slot, present, slots)
    best = np.stack([linear_sum_assignment(square)[1] for square in _padded(cost, present)])
    best = _from_permutation(best, present, slots)
    np.testing.assert_allclose(_total(cost, slot), _total(cost, best), atol=1e-9)
    np.testing.assert_array_equal(slot[::2], best[::2])


def test_a_picture_without_masks_has_no_match():
    cost, _ = _problems(5, 7, 3)
    assert (solve(cost, np.zeros((3, 5), bool)) == -1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_costs_that_are_not_finite_are_taken_last(value):
    cost = _problems(4, 6, 40)[0][::2]
    present = np.ones((20, 4), bool)
    broken = cost.copy()
    broken[:, :, :2] = value
    broken[:, 3] = value
    slot = solve(broken, present)
    _check_rules(slot, present, 6)
    np.testing.assert_array_equal(slot[:, :3], solve(cost[:, :3, 2:], present[:, :3]) + 2)


def test_a_model_that_has_diverged_is_matched_somehow():
    for value in (np.nan, np.inf, -np.inf):
        slot = solve(np.full((2, 3, 4), value, np.float32), np.ones((2, 3), bool))
        _check_rules(slot, np.ones((2, 3), bool), 4)


def test_it_runs_in_a_graph_of_unknown_sizes_and_passes_no_gradient():
    cost, present = _problems(6, 9, 4)
    signature = [tf.TensorSpec((None, None, None)), tf.TensorSpec((None, None), tf.bool)]

    @tf.function(autograph=False, input_signature=signature)
    def run(cost, present):
        with tf.GradientTape() as tape:
            tape.watch(cost)
            slot = match(cost, present)
            value = tf.reduce_sum(tf.cast(slot, tf.float32)) + tf.reduce_sum(cost) * 2
        return slot, tape.gradient(value, cost)

    slot, gradient = run(cost, present)
    np.testing.assert_array_equal(slot, solve(cost, present))
    assert (gradient.numpy() == 2).all()


def test_a_graph_knows_the_shape_of_the_answer():
    cost = tf.TensorSpec((None, 6, 9))
    run = tf.function(match, autograph=False)
    answer = run.get_concrete_function(cost, tf.TensorSpec((None, 6), tf.bool)).outputs[0]
    assert answer.shape.as_list() == [None, 6]


# Arrays as large as a training's: JAX hands them to the host while it computes.
JAX = """
import jax, numpy as np
from deeplab_tf.losses.matching import match, solve
random = np.random.default_rng(0)

@jax.jit
def run(x, present):
    def loss(x):
        cost = -(x @ x.swapaxes(1, 2))
        slot = match(cost, present)
        return ((slot >= 0) * x.sum()).sum(), (cost, slot)
    return jax.grad(loss, has_aux=True)(x)

for _ in range(3):
    present = random.random((2, 181)) < 0.3
    gradient, (cost, slot) = run(random.random((2, 181, 181), np.float32), present)
    np.testing.assert_array_equal(slot, solve(cost, present))
    assert (np.asarray(gradient) == present.sum()).all()
print("done")
"""


def test_jax_calls_it_from_compiled_code():
    result = subprocess.run(
        [sys.executable, "-c", JAX],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.strip() == "done", result.stderr
