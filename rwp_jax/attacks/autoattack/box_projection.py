"""Exact projection onto a hyperplane inside the box [0, 1]^n (Croce and Hein, 2020, arXiv:1907.02044)."""

import jax.numpy as jnp


def project_onto_plane(x, w, b, norm: str):
    """Shortest d with w . (x + d) = b and x + d in [0, 1]; as close to the plane as the box lets.

    Towards the plane every coordinate moves against the sign of the gap, by min(lambda s_i, room_i):
    s_i = 1 gives the smallest L_inf norm, s_i = |w_i| the smallest L_2 norm. What that achieves is
    piecewise linear in lambda, with a bend where a coordinate meets the box; sorting the bends finds it.

    Args:
      x: points [B, n] in [0, 1].
      w: normals of the planes [B, n].
      b: their offsets [B].
      norm: `Linf` or `L2`, in which d is measured.
    """
    gap = b - jnp.sum(w * x, -1)
    upwards = (w > 0) == (gap[:, None] > 0)  # the way in which a coordinate closes the gap
    # As the official code, which leaves out coordinates that hardly matter.
    matters = w != 0 if norm == "Linf" else jnp.abs(w) > 1e-8
    size = jnp.where(matters, jnp.abs(w), 0)
    room = jnp.where(matters, jnp.where(upwards, 1 - x, x), 0)
    slope = jnp.where(matters, 1.0, 0.0) if norm == "Linf" else size

    bends = jnp.where(matters, room / jnp.where(matters, slope, 1), jnp.inf)
    order = jnp.argsort(bends, -1)
    sort = lambda values: jnp.take_along_axis(values, order, -1)
    before = lambda sums: jnp.pad(sums, ((0, 0), (1, 0)))[:, :-1]
    bends = sort(bends)
    spent = before(jnp.cumsum(sort(size * room), -1))  # by the coordinates that met the box already
    rate = jnp.sum(size * slope, -1, keepdims=True) - before(jnp.cumsum(sort(size * slope), -1))
    closed = spent + jnp.where(
        jnp.isfinite(bends), bends * rate, jnp.inf
    )  # of the gap, at each bend

    first = jnp.sum(closed < jnp.abs(gap)[:, None], -1, keepdims=True)  # the bend that is too far
    at_first = lambda values: jnp.take_along_axis(values, jnp.minimum(first, x.shape[1] - 1), -1)
    reached = (first < x.shape[1]) & jnp.isfinite(at_first(bends))
    scale = (jnp.abs(gap)[:, None] - at_first(spent)) / jnp.where(reached, at_first(rate), 1)
    distance = jnp.where(reached, jnp.minimum(scale * slope, room), room)
    return jnp.where(upwards, distance, -distance)
