"""Auto-PGD (Croce and Hein, 2020, arXiv:2003.01690, Algorithm 1), as the official code runs it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwp_jax.attacks.autoattack.apgd_l1 import begin_l1, make_apgd_l1, random_start_l1
from rwp_jax.attacks.autoattack.ascent import ApgdResult, evaluate, keep, nothing_yet
from rwp_jax.attacks.autoattack.search import Job, Outcome, Search, per_image
from rwp_jax.attacks.threat_model import l_2_norms
from rwp_jax.errors import InputError

_EPS = 1e-12  # as in the official code


class ApgdState(NamedTuple):
    """State of the search. Images and gradients are [B, H, W, C], all other arrays [B]."""

    iteration: jnp.ndarray  # number of points evaluated so far
    x: jnp.ndarray  # the point to evaluate next
    x_previous: jnp.ndarray  # the point from which the step to x began
    step_size: jnp.ndarray
    loss: jnp.ndarray
    rises: jnp.ndarray  # number of iterations since the last checkpoint in which the loss rose
    loss_best_checked: jnp.ndarray  # best loss at the last checkpoint
    halved: jnp.ndarray  # whether the step size was halved at the last checkpoint
    gradient_best: jnp.ndarray
    zero_gradient: jnp.ndarray  # whether the first gradient was zero
    result: ApgdResult


def checkpoints(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether a checkpoint follows each iteration, bool [steps], and the current gap [steps].

    The first gap between checkpoints is 22% of all iterations. Each gap is shorter than the one before by
    3% of all iterations, down to 6%.
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


def _normalized(x):
    return x / (l_2_norms(x) + _EPS)


def _geometry(norm: str, epsilon) -> tuple[Callable, Callable, Callable]:
    """Returns start (keys [B], x), steepest-ascent direction (gradient) and projection (point, x)."""

    def clip(point, x):
        return jnp.clip(jnp.clip(point, x - epsilon, x + epsilon), 0, 1)

    def shorten(point, x):
        delta = point - x
        return jnp.clip(x + _normalized(delta) * jnp.minimum(epsilon, l_2_norms(delta)), 0, 1)

    def from_the_faces(keys, x):
        draw = lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -1, 1)
        u = jax.vmap(draw)(keys)
        largest = jnp.abs(u).max((1, 2, 3), keepdims=True)
        return jnp.clip(x + epsilon * u / (largest + _EPS), 0, 1)

    def from_the_sphere(keys, x):
        draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
        return jnp.clip(x + epsilon * _normalized(jax.vmap(draw)(keys)), 0, 1)

    if norm == "l_inf":
        return from_the_faces, jnp.sign, clip
    if norm == "l_2":
        return from_the_sphere, _normalized, shorten
    raise InputError(f"norm={norm!r} must be l_inf, l_2 or l_1")


def random_start(keys, x, norm: str, epsilon):
    """A random point on the surface of the ball around each image, clipped to [0, 1]; keys [B].

    In L1, the projection of a Gaussian perturbation.
    """
    if norm == "l_1":
        return random_start_l1(keys, x, epsilon)
    return _geometry(norm, epsilon)[0](keys, x)


def _begin(start, epsilon) -> ApgdState:
    per_example = lambda value, dtype=start.dtype: jnp.full(len(start), value, dtype)
    return ApgdState(
        iteration=per_example(0, jnp.int32),
        x=start,
        x_previous=start,
        step_size=per_example(2 * epsilon),
        loss=per_example(0),
        rises=per_example(0, jnp.int32),
        loss_best_checked=per_example(0),
        halved=per_example(True, bool),
        gradient_best=jnp.zeros_like(start),
        zero_gradient=per_example(False, bool),
        result=nothing_yet(start),
    )


def make_apgd(
    loss: Callable,
    norm: str,
    epsilon,
    *,
    steps: int = 100,
    eot: int = 1,
    rho: float = 0.75,
    large_radii: bool = False,
) -> Search:
    """APGD from a random start, as a search.

    Args:
      loss: (logits, job) -> losses [B] to maximise.
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball.
      steps: number of iterations.
      eot: number of evaluations of a randomised network over which each gradient is averaged.
      rho: share of iterations; the step size is halved unless the loss rises in more of them; not for L1.
      large_radii: for L1 only, see `make_apgd_l1`.
    """
    if norm == "l_1":
        return make_apgd_l1(loss, epsilon, steps=steps, eot=eot, large_radii=large_radii)
    _, direction, project = _geometry(norm, epsilon)
    # The start is evaluated before the first iteration.
    ends, gaps = (jnp.asarray(np.insert(values, 0, 0)) for values in checkpoints(steps))

    def init(job: Job) -> ApgdState:
        return _begin(random_start(job.key, job.x, norm, epsilon), epsilon)

    def step(logits_fn, job: Job, state: ApgdState, key) -> ApgdState:
        losses, gradient, correct = evaluate(loss, eot, logits_fn, job, state.x, key)
        first = state.iteration == 0

        result, gradient_best = keep(
            state.result, state.gradient_best, state.x, losses, gradient, correct
        )

        # At a checkpoint, halve the step size and return to the best point if the loss rose too rarely,
        # or if the best loss did not improve since the last checkpoint, which did not halve.
        check, gap = ends[state.iteration], gaps[state.iteration]
        rises = jnp.where(first, 0, state.rises + (losses > state.loss))
        loss_best_checked = jnp.where(first, losses, state.loss_best_checked)
        stuck = ~state.halved & (loss_best_checked >= result.loss_best)
        halve = check & ((rises <= rho * gap) | stuck)
        origin = jnp.where(per_image(halve), result.x_best, state.x)
        ascent = jnp.where(per_image(halve), gradient_best, gradient)
        step_size = jnp.where(halve, state.step_size / 2, state.step_size)

        # A gradient step, then momentum along the last step, except in the first iteration.
        inertia = per_image(jnp.where(first, 0.0, 0.25).astype(origin.dtype))
        move = project(origin + per_image(step_size) * direction(ascent), job.x) - origin
        moved = origin + (1 - inertia) * move + inertia * (origin - state.x_previous)
        no_gradient = jnp.all(gradient == 0, (1, 2, 3))
        return ApgdState(
            iteration=state.iteration + 1,
            x=project(moved, job.x),
            x_previous=origin,
            step_size=step_size,
            loss=jnp.where(first, 0, losses),  # the official code compares the first loss with zero
            rises=jnp.where(check, 0, rises),
            loss_best_checked=jnp.where(check, result.loss_best, loss_best_checked),
            halved=jnp.where(check, halve, state.halved),
            gradient_best=gradient_best,
            zero_gradient=jnp.where(first, no_gradient, state.zero_gradient),
            result=result,
        )

    def outcome(job: Job, state: ApgdState) -> Outcome:
        result, ended = state.result, state.iteration > steps
        return Outcome(result.x_adv, ~result.robust, ended, state.iteration, state.zero_gradient)

    return Search(init, step, outcome)


def apgd(
    logits_fn: Callable, loss: Callable, x, y, x_init, *, norm: str, epsilon, steps: int = 100
) -> ApgdResult:
    """Runs all iterations of one restart of APGD on a batch.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes]; examples must not interact.
      loss: logits -> losses [B] to maximise.
      x: clean images.
      y: labels [B].
      x_init: starting points, see `random_start`.
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball.
      steps: number of iterations.

    Raises:
      InputError: for another norm.
    """
    search = make_apgd(lambda logits, _: loss(logits), norm, epsilon, steps=steps)
    job = Job(x, y, None, None, None)
    step = lambda _, state: search.step(lambda points, _: logits_fn(points), job, state, None)
    start = jnp.clip(x_init, 0, 1)
    begin = begin_l1(start, x, epsilon) if norm == "l_1" else _begin(start, epsilon)
    return lax.fori_loop(0, steps + 1, step, begin).result
