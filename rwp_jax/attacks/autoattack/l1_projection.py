"""The exact projection onto an L1 ball inside the box (Croce and Hein, 2021, arXiv:2103.01208)."""

import jax.numpy as jnp

from rwp_jax.attacks.autoattack.search import per_image
from rwp_jax.attacks.autoattack.thresholds import smallest


def l1_correction(x, delta, epsilon):
    """What takes x + delta to the closest point, in L2, of the L1 ball around x inside the box [0, 1].

    That point lies within |delta| of x, on the same side: |delta| - t, or the room up to the box where that
    is less, but not below 0. The threshold t is the smallest number that leaves no more than epsilon; the
    paper finds it by sorting the |delta| and the rooms together.

    The sum counts: x + delta + correction, from left to right, is x again where an entry goes back to 0,
    up to the rounding of x + delta. APGD counts entries that differ from x, and as the official code those
    that differ by this rounding too.

    Args:
      x: centres [B, H, W, C] in [0, 1].
      delta: perturbations [B, H, W, C].
      epsilon: radius of the ball, at least 0, for all or [B].

    Returns:
      [B, H, W, C]. Where delta is NaN, so is x + delta + correction.
    """
    size = jnp.abs(delta)
    outside = -jnp.minimum(0, jnp.minimum(1 - x - delta, x + delta))
    taken = lambda t: jnp.minimum(jnp.maximum(per_image(t), outside), size)
    enough = lambda t: jnp.sum(size - taken(t), (1, 2, 3)) <= epsilon
    return -jnp.sign(delta) * taken(smallest(enough, x.shape[:1], x.dtype))
