"""Auto-PGD in L1 (Croce and Hein, 2021, arXiv:2103.01208, Algorithm 1), as the official code runs it.

Steps move few entries, those of the largest gradient; how many follows from the best point so far.
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

LARGE_RADII = (3, 2, 1)  # of the phases, in epsilons
_SHARE = 0.2  # of entries that step from a start of our own
_SPARSER = 1.5  # the best point has so many times the entries that step
_SMALLER = 1.5  # by which a step size is divided
_LEAST = 10  # no step size is below epsilon / _LEAST
_EPS = 1e-10  # of the official code


class Schedule(NamedTuple):
    """What follows each evaluation of a point, [evaluations].

    Attributes:
      radius: of the ball in which the point lies, in epsilons.
      begins: bool, whether it is the start of a phase.
      checked: bool, whether step size and sparsity are set anew.
      ends: bool, whether the next phase follows, from the best point of this one.
      final: evaluations before the last phase, whose points alone lie in the ball.
    """

    radius: np.ndarray
    begins: np.ndarray
    checked: np.ndarray
    ends: np.ndarray
    final: int


def schedule(steps: int, large_radii: bool) -> Schedule:
    """One phase of all steps, or three of 30%, 30% and 40% at 3, 2 and 1 epsilon."""
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
    """Entries with less gradient than any of the `share` that steps; rounded in the dtype of the images."""
    return np.clip((1 - share) * entries, 0, entries - 1).astype(np.int32)


class ApgdL1State(NamedTuple):
    """State of the search; images [B, H, W, C], all else [B]."""

    iteration: jnp.ndarray  # points evaluated so far, over all phases
    x: jnp.ndarray  # the point to evaluate next
    step_size: jnp.ndarray
    changed: (
        jnp.ndarray
    )  # entries of the start, or of the best point at the last check, that differ from x
    rank: jnp.ndarray  # of the smallest gradient entry that steps, ascending
    gradient_best: jnp.ndarray
    zero_gradient: jnp.ndarray  # whether the first gradient of a phase was zero
    result: ApgdResult  # of the phase


def _changed(point, x):
    return jnp.sum(point != x, (1, 2, 3), dtype=jnp.int32)


def _rank_of(changed, image_shape, dtype):
    """`rank` of a state in which a point has so many `changed` entries."""
    # From a table, as compilers divide by constants otherwise than the official code rounds.
    entries = math.prod(image_shape)
    shares = np.arange(entries + 1, dtype=dtype) / np.asarray(entries, dtype)
    return jnp.asarray(_rank(shares / np.asarray(_SPARSER, dtype), entries))[changed]


def begin_l1(start, x, epsilon, *, given: bool = True, factor: int = 1) -> ApgdL1State:
    """The state before the first evaluation.

    Args:
      start: [B, H, W, C] where the search begins.
      x: clean images.
      epsilon: radius of the ball.
      given: whether the share of entries that step follows from the start, as in the official code for
        starts that it did not draw.
      factor: of epsilon, in the first phase.
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
    """Images with noise [B, H, W, C], projected onto ball and box.

    Args:
      noise: what is added.
      x: clean images.
      epsilon: radius of the ball.
      twice: whether to round as the official code does before three radii, where it projects the sum of
        image and noise, and once more before the first phase: which entries are changed depends on it.
    """
    if not twice:
        return jnp.clip(x + noise + l1_correction(x, noise, epsilon), 0, 1)
    point = x + noise
    for _ in range(2):
        point = point + l1_correction(x, point - x, epsilon)
    return jnp.clip(point, 0, 1)


def random_start_l1(keys, x, epsilon, *, twice: bool = False):
    """A Gaussian perturbation of each image, see `perturbed`; keys [B]."""
    draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
    return perturbed(jax.vmap(draw)(keys), x, epsilon, twice=twice)


def make_apgd_l1(
    loss: Callable, epsilon, *, steps: int = 100, eot: int = 1, large_radii: bool = False
) -> Search:
    """APGD in L1 from a random start, as a search.

    Args:
      loss: (logits, job) -> [B], maximised.
      epsilon: radius of the ball.
      steps: iterations, over all phases.
      eot: evaluations of a randomised network that a gradient is averaged over.
      large_radii: whether to search in the balls of radius 3 epsilon and 2 epsilon first, each of the
        following phases from the best point of the last, projected.
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

        # At a check: where the best point became sparser by more than a twentieth, go back to it
        # with the full step size; elsewhere the step size shrinks.
        radius = (radii[now] * epsilon).astype(state.x.dtype)
        changed = _changed(result.x_best, job.x)
        sparser = checked[now] & (20 * changed < 19 * state.changed)
        smaller = jnp.maximum(state.step_size / _SMALLER, radius / _LEAST)
        step_size = jnp.where(checked[now], jnp.where(sparser, radius, smaller), state.step_size)
        changed = jnp.where(checked[now], changed, state.changed)
        rank = jnp.where(checked[now], _rank_of(changed, job.x.shape[1:], radius.dtype), state.rank)
        origin = jnp.where(per_image(sparser), result.x_best, state.x)
        ascent = jnp.where(per_image(sparser), gradient_best, gradient)

        # A step of the entries with the largest gradient, all by the same amount; and of those without
        # a number for a gradient, for the caller to find.
        size = jnp.abs(ascent)
        least = ranked(size.reshape(len(size), -1), rank)
        direction = jnp.where(size < per_image(least), 0, jnp.sign(ascent))
        moving = jnp.sum(jnp.abs(direction), (1, 2, 3))
        moved = origin + per_image(step_size) * direction / per_image(moving + _EPS)

        # Or the next phase, from the best point.
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
