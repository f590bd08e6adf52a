"""Learning rates over steps, as the official training code has them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from deeplab_tf.errors import InputError

POLICIES = ("poly", "step", "cosine", "multi_steps", "constant")


@keras.saving.register_keras_serializable(package="deeplab_tf")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """One of the official policies, after a slow start.

    Every policy counts from the end of the slow start. During it the rate is `slow_start_rate`
    ("none": then it jumps to the base rate) or grows from there to the base rate ("linear").

    Args:
        policy: "poly", "step" (a staircase), "cosine", "multi_steps" or "constant".
        base_rate: the rate at the start of the policy.
        steps: of the whole training.
        power: of "poly".
        end_rate: where "poly" and "cosine" end and stay.
        decay_steps: of "poly"; None takes the steps after the slow start.
        decay_step, decay_factor: of "step".
        boundaries, boundary_rates: of "multi_steps"; the rate changes after a boundary.
        slow_start_step, slow_start_rate, burn_in: the slow start.
    """

    def __init__(
        self,
        policy: str = "poly",
        *,
        base_rate: float,
        steps: int,
        power: float = 0.9,
        end_rate: float = 0.0,
        decay_steps: float | None = None,
        decay_step: int = 2000,
        decay_factor: float = 0.1,
        boundaries: Sequence[int] = (),
        boundary_rates: Sequence[float] = (),
        slow_start_step: int = 0,
        slow_start_rate: float = 1e-4,
        burn_in: str = "none",
    ):
        if policy not in POLICIES:
            raise InputError(f"policy is one of {', '.join(POLICIES)}; got {policy!r}.")
        if burn_in not in ("none", "linear"):
            raise InputError(f"burn_in is none or linear; got {burn_in!r}.")
        if policy == "multi_steps" and len(boundary_rates) != len(boundaries) + 1:
            raise InputError("multi_steps needs one more boundary_rates than boundaries.")
        self._config: dict[str, Any] = dict(
            policy=policy,
            base_rate=base_rate,
            steps=steps,
            power=power,
            end_rate=end_rate,
            decay_steps=decay_steps,
            decay_step=decay_step,
            decay_factor=decay_factor,
            boundaries=list(boundaries),
            boundary_rates=list(boundary_rates),
            slow_start_step=slow_start_step,
            slow_start_rate=slow_start_rate,
            burn_in=burn_in,
        )

    def __call__(self, step):
        c = self._config
        step = ops.cast(step, "float32")
        rate = self._after_start(ops.maximum(step - c["slow_start_step"], 0.0))
        if not c["slow_start_step"]:
            return rate
        slow = ops.cast(c["slow_start_rate"], "float32")
        if c["burn_in"] == "linear":
            slow = slow + (c["base_rate"] - slow) * step / c["slow_start_step"]
        return ops.where(step < c["slow_start_step"], slow, rate)

    def _after_start(self, step):
        c = self._config
        remaining = max(1.0, float(c["steps"] - c["slow_start_step"]))
        base, end = c["base_rate"], c["end_rate"]
        if c["policy"] == "poly":
            total = float(c["decay_steps"] or remaining)
            left = 1.0 - ops.minimum(step, total) / total
            return (base - end) * ops.power(left, c["power"]) + end
        if c["policy"] == "cosine":
            done = ops.minimum(step, remaining) / remaining
            return end + (base - end) * 0.5 * (1.0 + ops.cos(math.pi * done))
        if c["policy"] == "step":
            return base * ops.power(c["decay_factor"], ops.floor(step / c["decay_step"]))
        if c["policy"] == "multi_steps":
            rate = ops.cast(c["boundary_rates"][0], "float32")
            for boundary, value in zip(c["boundaries"], c["boundary_rates"][1:], strict=True):
                rate = ops.where(step > boundary, value, rate)
            return rate
        return ops.cast(base, "float32") + 0.0 * step

    def get_config(self):
        return dict(self._config)
