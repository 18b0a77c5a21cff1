"""FAB, the fast adaptive boundary attack (Croce and Hein, 2020, arXiv:1907.02044).

It follows the official code.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.apgd import random_start
from rwp_jax.attacks.autoattack.margins import logits_of, misclassified
from rwp_jax.attacks.autoattack.plane_projection import project_onto_plane
from rwp_jax.attacks.autoattack.search import (
    Job,
    Outcome,
    Search,
    averaged,
    per_image,
    tamed,
)


class FabResult(NamedTuple):
    """Result of one restart.

    Attributes:
      x_adv: the closest misclassified image found, or the clean image if there is none.
      distance: [B] distance of x_adv from the clean image, inf if no misclassified image was found.
    """

    x_adv: jnp.ndarray
    distance: jnp.ndarray


class FabSettings(NamedTuple):
    """Settings of FAB; the defaults are the official ones.

    Attributes:
      alpha_max: largest weight of the clean image's projection in a step.
      eta: factor by which a step overshoots the linearised boundary.
      beta: fraction of its distance from the clean image to which a misclassified point is moved back.
    """

    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9


def _flat(x):
    return x.reshape(len(x), -1)


def _length(delta, norm: str):
    """Norms [B] of perturbations [B, ...]."""
    return _flat_length(_flat(delta), norm)


def _flat_length(flat, norm: str):
    """Norms [...] of vectors [..., n]."""
    if norm == "l_2":
        return jnp.sqrt(jnp.square(flat).sum(-1))
    return jnp.abs(flat).max(-1) if norm == "l_inf" else jnp.abs(flat).sum(-1)


def targeted_boundary(logits_fn: Callable, y, targets) -> Callable:
    """Returns x -> (z_t - z_y [B], its gradient), for the boundary to target class t."""

    def boundary(x):
        def total(x):
            logits = logits_fn(x)
            difference = logits_of(logits, targets) - logits_of(logits, y)
            return difference.sum(), difference

        gradient, difference = jax.grad(total, has_aux=True)(x)
        return difference, gradient

    return boundary


def nearest_boundary(logits_fn: Callable, y, norm: str) -> Callable:
    """Returns x -> (z_c - z_y [B], its gradient), for the class c whose linearised boundary is nearest."""

    def boundary(x):
        logits, pullback = jax.vjp(logits_fn, x)
        classes = logits.shape[-1]
        one_hot = jax.nn.one_hot(y, classes, dtype=logits.dtype)
        cotangent = lambda c: jax.nn.one_hot(c, classes, dtype=logits.dtype) - one_hot
        gradients = lax.map(lambda c: pullback(cotangent(c))[0], jnp.arange(classes))
        differences = logits - jnp.sum(logits * one_hot, -1, keepdims=True)
        scale = tamed(jnp.moveaxis(gradients, 0, 1))  # leaves distances unchanged
        gradients, differences = gradients * per_image(scale), differences * scale[:, None]
        flat = gradients.reshape(classes, len(x), -1)
        dual = _flat_length(flat, {"l_inf": "l_1", "l_1": "l_inf"}.get(norm, norm))
        distances = jnp.where(one_hot > 0, jnp.inf, jnp.abs(differences) / (dual.T + 1e-12))
        nearest = jnp.argmin(distances, -1)
        rows = jnp.arange(len(x))
        return differences[rows, nearest], gradients[nearest, rows]

    return boundary


class FabState(NamedTuple):
    """State of the search: iterations done [B], the current point [B, H, W, C], the result so far."""

    iteration: jnp.ndarray
    x: jnp.ndarray
    result: FabResult


def _begin(start, x) -> FabState:
    nothing = FabResult(x, jnp.full(len(x), jnp.inf, x.dtype))
    return FabState(jnp.zeros(len(x), jnp.int32), start, nothing)


def _step(
    logits_fn: Callable, boundary: Callable, x, y, state: FabState, norm: str, settings: FabSettings
) -> FabState:
    """One iteration; see `fab`."""
    difference, gradient = boundary(state.x)
    scale = tamed(gradient)  # scales both sides of the plane's equation
    difference, w = scale * difference, scale[:, None] * _flat(gradient)
    offset = jnp.sum(w * _flat(state.x), -1) - difference
    # Both projections share one loop, whose number of iterations depends on the data.
    starts = jnp.stack([_flat(state.x), _flat(x)])
    d_point, d_clean = project_onto_plane(starts, w, offset, norm).reshape(2, *x.shape)
    a_point, a_clean = (jnp.maximum(_length(d, norm), 1e-8) for d in (d_point, d_clean))
    alpha = per_image(jnp.minimum(a_point / (a_point + a_clean), settings.alpha_max))
    mixed = (state.x + settings.eta * d_point) * (1 - alpha) + (x + settings.eta * d_clean) * alpha
    # Projections may drop a NaN; the image must not then count as one for which nothing was found.
    broken = per_image(~jnp.isfinite(w).all(-1))
    point = jnp.where(broken, jnp.nan, jnp.clip(mixed, 0, 1))

    fooled = misclassified(logits_fn(point), y)
    distance = _length(point - x, norm)
    closer = fooled & ~(distance >= state.result.distance)  # includes NaN, which the caller detects
    result = FabResult(
        jnp.where(per_image(closer), point, state.result.x_adv),
        jnp.where(closer, distance, state.result.distance),
    )
    back = x + settings.beta * (point - x)
    return FabState(state.iteration + 1, jnp.where(per_image(fooled), back, point), result)


def _random_start(keys, x, norm: str, radius):
    """A random point at distance `radius` from each image, clipped to [0, 1]; keys [B]."""
    if norm != "l_1":
        return random_start(keys, x, norm, radius)
    # In L1, the official code scales FAB's start but projects APGD's.
    draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
    delta = jax.vmap(draw)(keys)
    return jnp.clip(x + radius * delta / per_image(_length(delta, norm)), 0, 1)


def make_fab(
    norm: str,
    epsilon,
    *,
    targeted: bool,
    steps: int = 100,
    eot: int = 1,
    settings: FabSettings | None = None,
) -> Search:
    """FAB as a search; it starts at the clean image, in restarts at a random point at distance epsilon / 2.

    Args:
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: largest distance at which a misclassified image counts as a success.
      targeted: whether to search at the boundary to the job's target class instead of the nearest one.
      steps: number of iterations.
      eot: number of evaluations of a randomised network over which logits are averaged.
      settings: settings of FAB; default the official ones.
    """
    settings = settings or FabSettings()

    def init(job: Job) -> FabState:
        start = _random_start(job.key, job.x, norm, epsilon / 2)
        return _begin(jnp.where(per_image(job.restart > 0), start, job.x), job.x)

    def step(logits_fn, job: Job, state: FabState, key) -> FabState:
        bound = averaged(logits_fn, eot, key)
        if targeted:
            boundary = targeted_boundary(bound, job.y, job.target)
        else:
            boundary = nearest_boundary(bound, job.y, norm)
        return _step(bound, boundary, job.x, job.y, state, norm, settings)

    def outcome(job: Job, state: FabState) -> Outcome:
        fooled, ended = ~(state.result.distance > epsilon), state.iteration >= steps
        return Outcome(state.result.x_adv, fooled, ended, state.iteration, jnp.zeros_like(fooled))

    return Search(init, step, outcome)


def fab(
    logits_fn: Callable,
    boundary: Callable,
    x,
    y,
    *,
    norm: str,
    steps: int = 100,
    settings: FabSettings | None = None,
) -> FabResult:
    """Runs all iterations of one restart of FAB from the clean images.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes]; examples must not interact.
      boundary: boundary from `targeted_boundary` or `nearest_boundary`.
      x: clean images, classified as y.
      y: labels [B].
      norm: norm of the distance to minimise, `l_inf`, `l_2` or `l_1`.
      steps: number of iterations.
      settings: settings of FAB; default the official ones.
    """
    settings = settings or FabSettings()
    step = lambda _, state: _step(logits_fn, boundary, x, y, state, norm, settings)
    return lax.fori_loop(0, steps, step, _begin(x, x)).result
