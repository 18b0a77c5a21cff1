"""Square in L1, which only the official code defines: as in L_2, but projected instead of scaled."""

from collections.abc import Callable

import jax.numpy as jnp

from rwp_jax.attacks.autoattack.l1_projection import l1_correction
from rwp_jax.attacks.autoattack.windows import all_pyramids, draw_move, tiled

_INSIDE = 1 - 1e-6  # factor of epsilon, which as in the official code leaves room for rounding


def l_1(epsilon, sides) -> tuple[Callable, Callable]:
    """Returns start (key, x) and proposal (key, stage, x, x_best) for one image [H, W, C].

    Args:
      epsilon: radius of the ball.
      sides: side of the window at each stage of the schedule.
    """
    per_channel = lambda delta: jnp.sum(jnp.abs(delta), (0, 1), keepdims=True)

    def project(x, delta):
        correction = l1_correction(x[None], delta[None], epsilon * _INSIDE)[0]
        return jnp.clip(x + delta + correction, 0, 1)

    def start(key, x):
        """Tiles of pyramids of norm 1 in every channel; they are not scaled up to a larger ball."""
        return project(x, tiled(key, x.shape, "l_1", x.dtype))

    def propose(key, stage, x, x_best):
        """Moves the norm in one window, and what is left of epsilon, into pyramids in another."""
        turns = all_pyramids(x.shape, sides, "l_1")
        delta, channels = x_best - x, x.shape[2]
        move = draw_move(key, stage, delta, sides, turns, per_channel)
        left = jnp.maximum(epsilon - jnp.sum(jnp.abs(delta)), 0) / channels
        # As in the official code, each channel gets the norm for all channels; the projection reduces it.
        new = move.shape * (left + move.freed) * channels
        return project(x, jnp.where(move.here, new, jnp.where(move.there, 0, delta)))

    return start, propose
