"""Auto-PGD (Croce and Hein, 2020, arXiv:2003.01690, Algorithm 1), as the official code runs it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwp_jax.attacks.norms import l_2_norms

_EPS = 1e-12  # of the official code


class ApgdResult(NamedTuple):
    """What one restart found.

    Attributes:
      robust: [B] bool, whether no iterate was misclassified.
      x_adv: the last misclassified iterate; where there was none, the start.
      x_best: the iterate of the largest loss, misclassified or not.
      loss_best: [B] its loss.
    """

    robust: jnp.ndarray
    x_adv: jnp.ndarray
    x_best: jnp.ndarray
    loss_best: jnp.ndarray


class _Search(NamedTuple):
    """State of the search; images [B, H, W, C], all else [B]."""

    x: jnp.ndarray
    x_previous: jnp.ndarray
    gradient: jnp.ndarray
    step_size: jnp.ndarray
    loss: jnp.ndarray
    rises: jnp.ndarray  # iterations since the last checkpoint in which the loss rose
    loss_best_checked: jnp.ndarray  # best loss at the last checkpoint
    halved: jnp.ndarray  # whether the step was halved there
    gradient_best: jnp.ndarray
    result: ApgdResult


def checkpoints(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Which iterations are followed by a checkpoint, bool [steps], and the gap that ends there [steps].

    The first gap is 22% of the iterations; gaps shrink by 3% down to 6%.
    """
    gap, shrink, least = (
        max(int(0.22 * steps), 1),
        max(int(0.03 * steps), 1),
        max(int(0.06 * steps), 1),
    )
    ends, gaps, count = np.zeros(steps, bool), np.zeros(steps, int), 0
    for i in range(steps):
        count += 1
        gaps[i] = gap
        if count == gap:
            ends[i], count, gap = True, 0, max(gap - shrink, least)
    return ends, gaps


def _per_image(values):
    """[B] against [B, H, W, C]."""
    return values[:, None, None, None]


def _normalized(x):
    return x / (l_2_norms(x) + _EPS)


def _geometry(norm: str, epsilon: float) -> tuple[Callable, Callable, Callable]:
    """Start (key, x), direction of steepest ascent (gradient), projection (point, x) of a norm."""

    def clip(point, x):
        return jnp.clip(jnp.clip(point, x - epsilon, x + epsilon), 0, 1)

    def shorten(point, x):
        delta = point - x
        return jnp.clip(x + _normalized(delta) * jnp.minimum(epsilon, l_2_norms(delta)), 0, 1)

    def from_the_faces(key, x):
        u = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
        largest = jnp.abs(u).max((1, 2, 3), keepdims=True)
        return jnp.clip(x + epsilon * u / (largest + _EPS), 0, 1)

    def from_the_sphere(key, x):
        return jnp.clip(x + epsilon * _normalized(jax.random.normal(key, x.shape, x.dtype)), 0, 1)

    if norm == "Linf":
        return from_the_faces, jnp.sign, clip
    if norm == "L2":
        return from_the_sphere, _normalized, shorten
    raise ValueError(f"norm={norm!r} must be Linf or L2")


def random_start(key, x, norm: str, epsilon: float):
    """A point on the surface of the ball around each image, clipped to [0, 1]."""
    return _geometry(norm, epsilon)[0](key, x)


def apgd(
    logits_fn: Callable,
    loss: Callable,
    x,
    y,
    x_init,
    *,
    norm: str,
    epsilon: float,
    steps: int = 100,
    rho: float = 0.75,
) -> ApgdResult:
    """One restart of APGD.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes]; examples must not interact.
      loss: logits -> [B], maximised.
      x: clean images.
      y: labels [B].
      x_init: starting points, see `random_start`.
      norm: `Linf` or `L2`.
      epsilon: radius of the ball.
      steps: iterations.
      rho: share of iterations in which the loss must rise for a step size to be kept.
    """
    _, direction, project = _geometry(norm, epsilon)
    ends, gaps = (jnp.asarray(values) for values in checkpoints(steps))

    def evaluate(point):
        """Losses [B], their gradients, and whether each point is classified as y."""

        def total(point):
            logits = logits_fn(point)
            losses = loss(logits)
            return losses.sum(), (losses, jnp.argmax(logits, -1) == y)

        gradient, (losses, correct) = jax.grad(total, has_aux=True)(point)
        return losses, gradient, correct

    def step(i, search: _Search) -> _Search:
        # A step of the gradient, then momentum towards the last move; none at first.
        inertia = jnp.where(i > 0, 0.25, 0.0).astype(x.dtype)
        stepped = search.x + _per_image(search.step_size) * direction(search.gradient)
        move = project(stepped, x) - search.x
        moved = search.x + (1 - inertia) * move + inertia * (search.x - search.x_previous)
        point = project(moved, x)
        losses, gradient, correct = evaluate(point)

        result = search.result
        better = losses > result.loss_best
        gradient_best = jnp.where(_per_image(better), gradient, search.gradient_best)
        result = ApgdResult(
            robust=result.robust & correct,
            x_adv=jnp.where(_per_image(correct), result.x_adv, point),
            x_best=jnp.where(_per_image(better), point, result.x_best),
            loss_best=jnp.maximum(losses, result.loss_best),
        )

        # At a checkpoint: halve the step size where the loss rose too seldom, or where the last one
        # brought no better loss though it halved nothing, and go back to the best point there.
        rises = search.rises + (losses > search.loss)
        stuck = ~search.halved & (search.loss_best_checked >= result.loss_best)
        halve = ends[i] & ((rises <= rho * gaps[i]) | stuck)
        return _Search(
            x=jnp.where(_per_image(halve), result.x_best, point),
            x_previous=search.x,
            gradient=jnp.where(_per_image(halve), gradient_best, gradient),
            step_size=jnp.where(halve, search.step_size / 2, search.step_size),
            loss=losses,
            rises=jnp.where(ends[i], 0, rises),
            loss_best_checked=jnp.where(ends[i], result.loss_best, search.loss_best_checked),
            halved=jnp.where(ends[i], halve, search.halved),
            gradient_best=gradient_best,
            result=result,
        )

    start = jnp.clip(x_init, 0, 1)
    losses, gradient, correct = evaluate(start)
    search = _Search(
        x=start,
        x_previous=start,
        gradient=gradient,
        step_size=jnp.full(len(x), 2 * epsilon, x.dtype),
        loss=jnp.zeros_like(losses),  # the official code compares the first loss with zero
        rises=jnp.zeros(len(x), jnp.int32),
        loss_best_checked=losses,
        halved=jnp.ones(len(x), bool),
        gradient_best=gradient,
        result=ApgdResult(correct, start, start, losses),
    )
    return lax.fori_loop(0, steps, step, search).result
