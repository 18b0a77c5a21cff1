"""Exponential moving average of the trained weights (Gowal et al., 2020, arXiv:2010.03593, Section 4.3)."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
    """Averaged parameters, and running statistics averaged in the same way or copied."""

    params: Any
    batch_stats: Any


class Averaging(NamedTuple):
    """Settings of the average.

    Attributes:
      decay: largest decay per step, in [0, 1); 0 for no average.
      first_step: step, counted from 0, before whose update the average is a copy of the weights.
      copy_batch_stats: whether the average has the current running statistics instead of averaged ones.
    """

    decay: float = 0.0
    first_step: int = 0
    copy_batch_stats: bool = False


def first_step(start: float, total: int) -> int:
    """Returns the first step that averages, after which the share `start` of `total` steps is done."""
    return max(math.ceil(round(start * total, 6)) - 1, 0)


def averaged(average: Average, params, batch_stats, settings: Averaging, step) -> Average:
    """Returns the average after update number `step`, counted from 0.

    average <- d average + (1 - d) current, with d = min(decay, (1 + t) / (10 + t)), t = step - first_step,
    and d = 0 for t < 0. The smaller d of early steps keeps the first weights from dominating the average.
    Wang et al. (2023, arXiv:2302.04638) begin after 2.5% of training and copy the running statistics.
    """
    # Computes 1 - d directly: float32 would round a d close to 1.
    dtype = jax.tree.leaves(params)[0].dtype
    done = step - settings.first_step if settings.first_step else step
    share = jnp.maximum(1 - settings.decay, 9 / (10 + done.astype(dtype)))

    def mix(old, new):
        mixed = (old + share * (new - old)).astype(old.dtype)
        # A negative first step is that of an extended run, which is past it.
        return jnp.where(done < 0, new, mixed) if settings.first_step > 0 else mixed

    if settings.copy_batch_stats:
        return Average(jax.tree.map(mix, average.params, params), batch_stats)
    return jax.tree.map(mix, average, Average(params, batch_stats))
