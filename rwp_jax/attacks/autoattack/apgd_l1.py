"""Auto-PGD in L1 (Croce and Hein, 2021, arXiv:2103.01208, Algorithm 1), as the official code runs it.

A step changes only the entries with the largest gradients; their number follows from the best point so far.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.autoattack.ascent import ApgdResult, evaluate, keep, nothing_yet
from rwp_jax.attacks.autoattack.l1_projection import l1_correction
from rwp_jax.attacks.autoattack.search import Job, Outcome, Search, per_image, pick
from rwp_jax.attacks.autoattack.thresholds import ranked

LARGE_RADII = (3, 2, 1)  # radii of the phases, in units of epsilon
_SHARE = 0.2  # share of entries that a step changes after a start drawn by the search itself
_SPARSER = 1.5  # ratio of the entries changed in the best point to the entries that a step changes
_SMALLER = 1.5  # divisor of the step size at a check
_LEAST = 10  # step sizes are at least the radius / _LEAST
_EPS = 1e-10  # as in the official code


class Schedule(NamedTuple):
    """Schedule of the evaluations of points; arrays are [evaluations].

    Attributes:
      radius: radius of the ball in which the point lies, in units of epsilon.
      begins: bool, whether the point is the start of a phase.
      checked: bool, whether step size and sparsity are updated after the evaluation.
      ends: bool, whether the phase ends and the next one starts from its best point.
      final: number of evaluations before the last phase, the only one in the ball of radius epsilon.
    """

    radius: np.ndarray
    begins: np.ndarray
    checked: np.ndarray
    ends: np.ndarray
    final: int


def schedule(steps: int, large_radii: bool) -> Schedule:
    """Returns one phase of all steps, or three of 30%, 30% and 40% of them at 3, 2 and 1 epsilon."""
    phases, left = [], steps
    for radius in LARGE_RADII[:-1] if large_radii else ():
        phases.append((radius, min(math.ceil(0.3 * steps), left)))
        left -= phases[-1][1]
    phases.append((1, left))
    # The start of each phase is evaluated before its first step.
    join = lambda columns: np.concatenate(list(columns))
    radii = join(np.full(length + 1, radius) for radius, length in phases)
    index = join(np.arange(length + 1) for _, length in phases)
    lengths = join(np.full(length + 1, length) for _, length in phases)
    gaps = np.maximum((0.04 * lengths).astype(int), 1)
    checked = (index > 0) & (index % gaps == 0)
    return Schedule(radii, index == 0, checked, index == lengths, len(radii) - left - 1)


def _rank(share, entries: int):
    """Number of entries outside the `share` that a step changes, computed in the dtype of the images."""
    return np.clip((1 - share) * entries, 0, entries - 1).astype(np.int32)


class ApgdL1State(NamedTuple):
    """State of the search. Images and gradients are [B, H, W, C], all other arrays [B]."""

    iteration: jnp.ndarray  # number of points evaluated so far, over all phases
    x: jnp.ndarray  # the point to evaluate next
    step_size: jnp.ndarray
    changed: jnp.ndarray  # entries changed in the start or in the last check's best point
    rank: jnp.ndarray  # ascending rank of the smallest gradient entry that a step changes
    gradient_best: jnp.ndarray
    zero_gradient: jnp.ndarray  # whether the first gradient of a phase was zero
    result: ApgdResult  # of the current phase


def _changed(point, x):
    return jnp.sum(point != x, (1, 2, 3), dtype=jnp.int32)


def _rank_of(changed, image_shape, dtype):
    """Returns `rank` for a point in which `changed` entries differ from the clean image."""
    # Taken from a table, because compiled divisions by constants may round differently.
    entries = math.prod(image_shape)
    shares = np.arange(entries + 1, dtype=dtype) / np.asarray(entries, dtype)
    return jnp.asarray(_rank(shares / np.asarray(_SPARSER, dtype), entries))[changed]


def begin_l1(start, x, epsilon, *, given: bool = True, factor: int = 1) -> ApgdL1State:
    """Returns the state before the first evaluation.

    Args:
      start: starting points [B, H, W, C].
      x: clean images.
      epsilon: radius of the ball.
      given: whether the share of entries that a step changes follows from the start, as in the official
        code for starts that are passed to it.
      factor: radius of the first phase, in units of epsilon.
    """
    per_example = lambda value, dtype=start.dtype: jnp.full(len(start), value, dtype)
    entries = math.prod(x.shape[1:])
    if given:
        changed = _changed(start, x)
        rank = _rank_of(changed, x.shape[1:], start.dtype)
    else:
        changed = per_example(entries, jnp.int32)
        rank = per_example(_rank(np.asarray(_SHARE, start.dtype), entries), jnp.int32)
    return ApgdL1State(
        iteration=per_example(0, jnp.int32),
        x=start,
        step_size=per_example(factor * epsilon),
        changed=changed,
        rank=rank,
        gradient_best=jnp.zeros_like(start),
        zero_gradient=per_example(False, bool),
        result=nothing_yet(start),
    )


def perturbed(noise, x, epsilon, *, twice: bool = False):
    """Adds noise to images and projects them into ball and box.

    Args:
      noise: noise [B, H, W, C].
      x: clean images.
      epsilon: radius of the ball.
      twice: whether to round as the official code does with three radii: it projects the sum of image and
        noise, and projects again before the first phase. The set of changed entries depends on rounding.
    """
    if not twice:
        return jnp.clip(x + noise + l1_correction(x, noise, epsilon), 0, 1)
    point = x + noise
    for _ in range(2):
        point = point + l1_correction(x, point - x, epsilon)
    return jnp.clip(point, 0, 1)


def random_start_l1(keys, x, epsilon, *, twice: bool = False):
    """A random start from Gaussian noise for each image, see `perturbed`; keys [B]."""
    draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
    return perturbed(jax.vmap(draw)(keys), x, epsilon, twice=twice)


def make_apgd_l1(
    loss: Callable, epsilon, *, steps: int = 100, eot: int = 1, large_radii: bool = False
) -> Search:
    """APGD in L1 from a random start, as a search.

    Args:
      loss: (logits, job) -> losses [B] to maximise.
      epsilon: radius of the ball.
      steps: number of iterations, over all phases.
      eot: number of evaluations of a randomised network over which each gradient is averaged.
      large_radii: whether to search first in the balls of radius 3 epsilon and 2 epsilon; each later phase
        starts from the projected best point of the one before.
    """
    plan = schedule(steps, large_radii)
    factor = int(plan.radius[0])
    evaluations = len(plan.radius)
    radii, begins, checked, ends = (jnp.asarray(column) for column in plan[:4])

    def init(job: Job) -> ApgdL1State:
        start = random_start_l1(job.key, job.x, factor * epsilon, twice=large_radii)
        return begin_l1(start, job.x, epsilon, given=large_radii, factor=factor)

    def step(logits_fn, job: Job, state: ApgdL1State, key) -> ApgdL1State:
        losses, gradient, correct = evaluate(loss, eot, logits_fn, job, state.x, key)
        now = state.iteration
        result = pick(begins[now], nothing_yet(state.x), state.result)
        result, gradient_best = keep(
            result, state.gradient_best, state.x, losses, gradient, correct
        )

        # At a check, if the best point has become sparser by more than a twentieth, return to it with
        # the full step size; otherwise reduce the step size.
        radius = (radii[now] * epsilon).astype(state.x.dtype)
        changed = _changed(result.x_best, job.x)
        sparser = checked[now] & (20 * changed < 19 * state.changed)
        smaller = jnp.maximum(state.step_size / _SMALLER, radius / _LEAST)
        step_size = jnp.where(checked[now], jnp.where(sparser, radius, smaller), state.step_size)
        changed = jnp.where(checked[now], changed, state.changed)
        rank = jnp.where(checked[now], _rank_of(changed, job.x.shape[1:], radius.dtype), state.rank)
        origin = jnp.where(per_image(sparser), result.x_best, state.x)
        ascent = jnp.where(per_image(sparser), gradient_best, gradient)

        # Change the entries with the largest gradients, all by the same amount, and those with NaN
        # gradients, so that the caller detects them.
        size = jnp.abs(ascent)
        least = ranked(size.reshape(len(size), -1), rank)
        direction = jnp.where(size < per_image(least), 0, jnp.sign(ascent))
        moving = jnp.sum(jnp.abs(direction), (1, 2, 3))
        moved = origin + per_image(step_size) * direction / per_image(moving + _EPS)

        # At the end of a phase, start the next one from the best point instead.
        over = ends[now]
        following = (radii[jnp.minimum(now + 1, evaluations - 1)] * epsilon).astype(radius.dtype)
        radius = jnp.where(over, following, radius)
        delta = jnp.where(per_image(over), result.x_best, moved) - job.x
        base = jnp.where(per_image(over), result.x_best, job.x + delta)
        point = jnp.clip(base + l1_correction(job.x, delta, radius), 0, 1)
        changed = jnp.where(over, _changed(point, job.x), changed)
        no_gradient = jnp.all(gradient == 0, (1, 2, 3))
        return ApgdL1State(
            iteration=now + 1,
            x=point,
            step_size=jnp.where(over, radius, step_size),
            changed=changed,
            rank=jnp.where(over, _rank_of(changed, job.x.shape[1:], radius.dtype), rank),
            gradient_best=gradient_best,
            zero_gradient=state.zero_gradient | (begins[now] & no_gradient),
            result=result,
        )

    def outcome(job: Job, state: ApgdL1State) -> Outcome:
        result, ended = state.result, state.iteration >= evaluations
        fooled = ~result.robust & (state.iteration > plan.final)
        return Outcome(result.x_adv, fooled, ended, state.iteration, state.zero_gradient)

    return Search(init, step, outcome)
