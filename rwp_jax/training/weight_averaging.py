"""Exponential moving average of the trained weights (Gowal et al., 2020, arXiv:2010.03593, Section 4.3)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
    """Averaged parameters, and running statistics averaged in the same way."""

    params: Any
    batch_stats: Any


def averaged(average: Average, params, batch_stats, decay: float, step) -> Average:
    """Returns the average after update number `step`, counted from 0.

    average <- d average + (1 - d) current, with d = min(decay, (1 + step) / (10 + step)). The
    smaller d of early steps keeps the initial weights from dominating the average.
    """
    # Computes 1 - d directly: float32 would round a d close to 1.
    dtype = jax.tree.leaves(params)[0].dtype
    share = jnp.maximum(1 - decay, 9 / (10 + step.astype(dtype)))
    mix = lambda old, new: (old + share * (new - old)).astype(old.dtype)
    return jax.tree.map(mix, average, Average(params, batch_stats))
