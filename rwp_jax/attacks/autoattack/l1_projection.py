"""Exact projection onto the intersection of L1 ball and box (Croce and Hein, 2021, arXiv:2103.01208)."""

import jax.numpy as jnp

from rwp_jax.attacks.autoattack.search import per_image
from rwp_jax.attacks.autoattack.thresholds import smallest


def l1_correction(x, delta, epsilon):
    """Returns the correction that projects x + delta, in L2, into the L1 ball around x and the box [0, 1].

    Each entry of the projection lies on the same side of x as delta, at distance |delta| - t, at most the
    room up to the box and at least 0. The threshold t is the smallest number for which the L1 norm is at
    most epsilon; the paper finds it by sorting the |delta| and the rooms together.

    Callers must add from left to right: x + delta + correction equals x where an entry returns to 0, up to
    the rounding of x + delta. APGD counts the entries that differ from x and, as in the official code,
    includes those that differ only by this rounding.

    Args:
      x: centres [B, H, W, C] in [0, 1].
      delta: perturbations [B, H, W, C].
      epsilon: radius of the ball, at least 0, a scalar or [B].

    Returns:
      Correction [B, H, W, C]. Where delta is NaN, so is x + delta + correction.
    """
    size = jnp.abs(delta)
    outside = -jnp.minimum(0, jnp.minimum(1 - x - delta, x + delta))
    taken = lambda t: jnp.minimum(jnp.maximum(per_image(t), outside), size)
    enough = lambda t: jnp.sum(size - taken(t), (1, 2, 3)) <= epsilon
    return -jnp.sign(delta) * taken(smallest(enough, x.shape[:1], x.dtype))
