"""Exact projection onto a hyperplane within the box, in L_inf, L_2 and L1: the step of FAB."""

import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.thresholds import smallest


def project_onto_plane(x, w, b, norm: str):
    """Projects points exactly onto hyperplanes within the box [0, 1]^n.

    Args:
      x: points [..., B, n] in [0, 1].
      w: normals of the planes [B, n].
      b: offsets of the planes [B].
      norm: norm of d, `l_inf`, `l_2` or `l_1`.

    Returns:
      The shortest d [..., B, n] with w . (x + d) = b and x + d in [0, 1]; if the box does not meet the
      plane, one that reaches as close to the plane as the box allows.
    """
    gap = b - jnp.sum(w * x, -1)
    upwards = (w > 0) == (gap[..., None] > 0)  # the direction in which a coordinate closes the gap
    # As in the official code, which ignores coordinates with negligible weights.
    matters = w != 0 if norm == "l_inf" else jnp.abs(w) > 1e-8
    size = jnp.where(matters, jnp.abs(w), 0)
    room = jnp.where(matters, jnp.where(upwards, 1 - x, x), 0)
    needed = jnp.abs(gap)[..., None]
    if norm == "l_1":
        distance = _fewest(size, room, needed)
    else:
        slope = jnp.where(matters, 1.0, 0.0) if norm == "l_inf" else size
        distance = _evenly(size, room, needed, slope)
    return jnp.where(upwards, distance, -distance)


def _evenly(size, room, needed, slope):
    """Returns the distance that each coordinate moves in L_inf and L_2: min(lambda slope_i, room_i).

    slope_i = 1 gives the smallest L_inf norm, slope_i = |w_i| the smallest L_2 norm. The part of the gap
    that is closed is concave and piecewise linear in lambda, with a bend where a coordinate meets the box.
    Newton's method from lambda = 0 therefore increases lambda to the exact solution in finitely many steps,
    in practice a few, much cheaper than sorting the bends as the paper does.

    Args:
      size: |w_i| [B, n].
      room: distance up to the box [..., B, n].
      needed: size of the gap [..., B, 1].
      slope: slopes [B, n].
    """

    def newton(scale):
        met = room <= scale * slope  # coordinates that have met the box
        spent = jnp.sum(jnp.where(met, size * room, 0), -1, keepdims=True)
        rate = jnp.sum(jnp.where(met, 0, size * slope), -1, keepdims=True)
        new = jnp.where(rate > 0, (needed - spent) / jnp.where(rate > 0, rate, 1), jnp.inf)
        return jnp.maximum(new, scale)

    def improve(carry):
        scale, _ = carry
        new = newton(scale)
        return new, jnp.any(new > scale)

    start = jnp.zeros_like(needed), jnp.array(True)
    scale, _ = lax.while_loop(lambda carry: carry[1], improve, start)
    reached = jnp.isfinite(scale)
    return jnp.where(reached, jnp.minimum(jnp.where(reached, scale, 0) * slope, room), room)


def _fewest(size, room, needed):
    """Returns the distance that each coordinate moves in L1.

    Coordinates with the largest |w_i| move up to the box, and the next one moves as far as needed. Several
    next ones with equal |w_i| share the distance: every split has the same length, and the official code
    takes them in the order of its sort.

    Args:
      size: |w_i| [B, n].
      room: distance up to the box [..., B, n].
      needed: size of the gap [..., B, 1].
    """
    spent = size * room

    def of_larger(least):
        return jnp.sum(jnp.where(size > least, spent, 0), -1, keepdims=True)

    least = smallest(lambda t: of_larger(t) <= needed, needed.shape, room.dtype)
    next_ones = size == least
    total = jnp.sum(jnp.where(next_ones, spent, 0), -1, keepdims=True)
    share = jnp.where(total > 0, (needed - of_larger(least)) / jnp.where(total > 0, total, 1), 0)
    return jnp.where(size > least, room, jnp.where(next_ones, jnp.minimum(share, 1) * room, 0))
