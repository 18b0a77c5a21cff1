"""What APGD, FAB and Square have in common: searches that move every example on its own, step by step.

Because examples do not interact and each counts its own iterations, a batch may hold searches that began
at different times; `packing` relies on it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_HUGE = 1e12


class Job(NamedTuple):
    """One search for each example of a batch.

    Attributes:
      x: clean images [B, H, W, C] in [0, 1].
      y: labels [B].
      target: [B] class that a targeted attack steers to; others ignore it.
      restart: [B] int32, 0 for the first search.
      key: [B] random keys, each for its example alone.
    """

    x: Any
    y: Any
    target: Any
    restart: Any
    key: Any


class Outcome(NamedTuple):
    """How far a search came.

    Attributes:
      x_adv: [B, H, W, C] the image to hand in where `fooled`.
      fooled: [B] bool, whether it is misclassified and inside the ball.
      ended: [B] bool, whether all iterations are spent.
      iteration: [B] int32, iterations done.
      zero_gradient: [B] bool, whether the loss had no gradient at the start.
    """

    x_adv: jnp.ndarray
    fooled: jnp.ndarray
    ended: jnp.ndarray
    iteration: jnp.ndarray
    zero_gradient: jnp.ndarray


class Search(NamedTuple):
    """An attack of a given norm and epsilon. States are trees of arrays [B, ...].

    Attributes:
      init: (job) -> state.
      step: (logits_fn, job, state, key) -> state one iteration on; logits_fn takes (images, key).
      outcome: (job, state) -> Outcome.
    """

    init: Callable
    step: Callable
    outcome: Callable


def per_image(values):
    """[B] against [B, H, W, C]."""
    return values[:, None, None, None]


def averaged(logits_fn: Callable, eot: int, key) -> Callable:
    """images -> logits, the mean over `eot` draws of a randomised network (images, key) -> logits."""
    if eot == 1:
        return lambda images: logits_fn(images, key)
    keys = jax.random.split(key, eot)

    def mean(images):
        # Of each draw no more than the images is kept for the backward pass.
        once = jax.checkpoint(lambda key: logits_fn(images, key))
        return lax.map(once, keys).mean(0)

    return mean


def tamed(gradient):
    """[B]: what to multiply each gradient [B, ...] by, so that squares of its entries do not overflow.

    It is 1, which changes nothing, but for networks whose logits are huge.
    """
    largest = jnp.abs(gradient).max(tuple(range(1, gradient.ndim)))
    return jnp.where(largest > _HUGE, 1 / largest, 1).astype(gradient.dtype)


def pick(mask, these, those):
    """Of two trees of arrays [B, ...]: examples of the first where mask [B], else of the second."""
    choose = lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(choose, these, those)
