"""An exponential moving average of the weights beside those that are trained (Gowal et al., 2020,
arXiv:2010.03593, Section 4.3)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
    """Averaged parameters, and the running statistics that belong to them, averaged likewise."""

    params: Any
    batch_stats: Any


def averaged(average: Average, params, batch_stats, decay: float, step) -> Average:
    """The average after the update number `step`, counted from 0.

    average <- d average + (1 - d) current, with d = min(decay, (1 + step) / (10 + step)): early on, when
    decay would keep the initial weights for long, it looks back over a part of the steps alone.
    """
    # 1 - d, not d, which float32 would round.
    dtype = jax.tree.leaves(params)[0].dtype
    share = jnp.maximum(1 - decay, 9 / (10 + step.astype(dtype)))
    mix = lambda old, new: (old + share * (new - old)).astype(old.dtype)
    return jax.tree.map(mix, average, Average(params, batch_stats))
