"""The common interface of APGD, FAB and Square: searches that advance each example independently.

Because examples do not interact and each counts its own iterations, a batch may hold searches that began
at different times; `packing` relies on this.
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
      target: [B] target class of a targeted attack; other attacks ignore it.
      restart: [B] int32, index of the restart, 0 for the first search.
      key: [B] random keys, one per example.
    """

    x: Any
    y: Any
    target: Any
    restart: Any
    key: Any


class Outcome(NamedTuple):
    """Outcome of a search so far.

    Attributes:
      x_adv: [B, H, W, C] adversarial image where `fooled`.
      fooled: [B] bool, whether x_adv is misclassified and inside the ball.
      ended: [B] bool, whether all iterations are done.
      iteration: [B] int32, number of iterations done.
      zero_gradient: [B] bool, whether the loss had no gradient at the start.
    """

    x_adv: jnp.ndarray
    fooled: jnp.ndarray
    ended: jnp.ndarray
    iteration: jnp.ndarray
    zero_gradient: jnp.ndarray


class Search(NamedTuple):
    """An attack for a given norm and epsilon. States are trees of arrays [B, ...].

    Attributes:
      init: (job) -> state.
      step: (logits_fn, job, state, key) -> state after one more iteration; logits_fn takes (images, key).
      outcome: (job, state) -> Outcome.
    """

    init: Callable
    step: Callable
    outcome: Callable


def per_image(values):
    """Reshapes [B] to [B, 1, 1, 1], which broadcasts against images."""
    return values[:, None, None, None]


def averaged(logits_fn: Callable, eot: int, key) -> Callable:
    """Returns images -> logits, averaged over `eot` draws of a network (images, key) -> logits."""
    if eot == 1:
        return lambda images: logits_fn(images, key)
    keys = jax.random.split(key, eot)

    def mean(images):
        # The backward pass recomputes each draw, so that memory does not grow with `eot`.
        once = jax.checkpoint(lambda key: logits_fn(images, key))
        return lax.map(once, keys).mean(0)

    return mean


def tamed(gradient):
    """Factors [B] that scale gradients [B, ...] so that the squares of their entries do not overflow.

    A factor is 1, which changes nothing, except for networks with huge logits.
    """
    largest = jnp.abs(gradient).max(tuple(range(1, gradient.ndim)))
    return jnp.where(largest > _HUGE, 1 / largest, 1).astype(gradient.dtype)


def pick(mask, these, those):
    """Selects examples from two trees of arrays [B, ...]: the first where mask [B], else the second."""
    choose = lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(choose, these, those)
