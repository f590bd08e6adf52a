"""Bipartite matching: which slot learns which mask (MaX-DeepLab, https://arxiv.org/abs/2012.00759,
Sec. 3.2).

The official code pads the costs to a square and solves that; here only the rows of masks that are
there are solved. Both find the same matchings, since the costs of masks lie in [-1, 0]:

- With at least as many slots as masks, absent masks and padded rows cost -999 in every column. A
  perfect matching takes each of these rows once, so they add a constant wherever they go; and any
  choice of distinct slots for the present rows can be completed by them. What is left to minimise
  is the cost of the present rows.
- With fewer slots, padded columns cost -999 in every row, again a constant, and absent masks cost
  999 in a slot. A slot that goes to an absent mask while a present one sits in a padded column
  can be given to it for at least 999 less. So as many present masks as possible get a slot, and
  among those choices the absent masks add a constant: what is minimised is the cost of the
  present rows, of all of them or, if they outnumber the slots, of as many as there are slots.
"""

import keras
import numpy as np
from keras import ops
from scipy.optimize import linear_sum_assignment


def match(cost, present):
    """The slot of each mask such that the sum of costs is least, a slot being of one mask only.

    Runs on the host, in C++ by SciPy, whatever the backend; no gradient passes. TensorFlow's XLA
    has no such calls: a training step with it can't be compiled with `jit_compile=True`.

    Args:
        cost: float32 [B, masks, slots]. What isn't finite counts as worse than all that is, so
            that a model that has diverged is matched somehow and the loss can say so.
        present: bool [B, masks]: the masks that are there.

    Returns:
        int32 [B, masks]: -1 for masks that aren't there, or that get none because there are more
        masks than slots.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        slots = tf.numpy_function(solve, [cost, present], tf.int32, stateful=False)
        return tf.ensure_shape(slots, present.shape)
    if backend == "jax":
        import jax

        shape = jax.ShapeDtypeStruct(present.shape, "int32")
        return jax.pure_callback(solve, shape, ops.stop_gradient(cost), present)
    return ops.convert_to_tensor(solve(*map(ops.convert_to_numpy, (cost, present))))


def solve(cost, present) -> np.ndarray:
    """`match` of arrays."""
    cost, present = np.asarray(cost), np.asarray(present)
    slots = np.full(present.shape, -1, np.int32)
    for picture, there in enumerate(present):
        masks = np.flatnonzero(there)
        rows, columns = linear_sum_assignment(_finite(cost[picture, masks]))
        slots[picture, masks[rows]] = columns
    return slots


def _finite(cost: np.ndarray) -> np.ndarray:
    """Costs [masks, slots] as float64, those that aren't finite one above the worst that are."""
    finite = np.isfinite(cost)
    worst = cost.max(where=finite, initial=0.0).astype(np.float64)
    return np.where(finite, cost, worst + 1.0)
