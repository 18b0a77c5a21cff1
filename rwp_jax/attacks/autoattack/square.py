"""Square Attack (Andriushchenko et al., 2020, arXiv:1912.00049), with the official schedule.

The official code draws one window (and, in L_inf, one sign) per iteration for the whole batch. Here each
image has its own draws, so that its result does not depend on its batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.margins import margin
from rwp_jax.attacks.autoattack.search import Job, Outcome, Search, averaged, per_image, pick
from rwp_jax.attacks.autoattack.square_l1 import l_1
from rwp_jax.attacks.autoattack.windows import (
    EPS,
    HALVINGS,
    all_pyramids,
    corner_of,
    draw_move,
    signs,
    tiled,
    window,
    window_sizes,
)
from rwp_jax.attacks.threat_model import l_2_norms
from rwp_jax.errors import InputError


class SquareState(NamedTuple):
    """State of the search; images are [B, H, W, C].

    Attributes:
      iteration: [B] number of points evaluated so far; the first is the start.
      x: the point to evaluate next.
      x_best: the point with the smallest margin so far.
      margin: [B] margin of x_best.
    """

    iteration: jnp.ndarray
    x: jnp.ndarray
    x_best: jnp.ndarray
    margin: jnp.ndarray


# Start and proposal of each norm, for one image [H, W, C].


def _l_inf(epsilon, sides) -> tuple[Callable, Callable]:
    def start(key, x):
        """Vertical stripes of +-epsilon."""
        return jnp.clip(x + epsilon * signs(key, (1, *x.shape[1:]), x.dtype), 0, 1)

    def propose(key, stage, x, x_best):
        """Pushes each channel of a window to one side of the ball."""
        where, which = jax.random.split(key)
        side = jnp.asarray(sides)[stage]
        inside = window(x.shape, corner_of(where, x.shape, side), side)
        push = 2 * epsilon * signs(which, (1, 1, x.shape[2]), x.dtype)
        pushed = jnp.clip(x_best + jnp.where(inside, push, 0), x - epsilon, x + epsilon)
        return jnp.clip(pushed, 0, 1)

    return start, propose


def _l_2(epsilon, sides) -> tuple[Callable, Callable]:
    norm = lambda delta: l_2_norms(delta[None])[0]
    per_channel = lambda delta: jnp.sqrt(jnp.sum(jnp.square(delta), (0, 1), keepdims=True))

    def onto_the_sphere(x, delta):
        return jnp.clip(x + epsilon * delta / (norm(delta) + EPS), 0, 1)

    def start(key, x):
        """Tiles of pyramids."""
        return onto_the_sphere(x, tiled(key, x.shape, "l_2", x.dtype))

    def propose(key, stage, x, x_best):
        """Moves the norm in one window, and what is left of epsilon, into pyramids in another."""
        turns = all_pyramids(x.shape, sides, "l_2")
        delta = x_best - x
        move = draw_move(key, stage, delta, sides, turns, per_channel)
        left = jnp.maximum(epsilon**2 - norm(delta) ** 2, 0) / x.shape[2]
        new = move.shape * jnp.sqrt(left + move.freed**2)
        return onto_the_sphere(x, jnp.where(move.here, new, jnp.where(move.there, 0, delta)))

    return start, propose


_GEOMETRIES = {"l_inf": _l_inf, "l_2": _l_2, "l_1": l_1}


def make_square(
    norm: str, epsilon, image_shape, *, queries: int = 5000, p: float = 0.8, eot: int = 1
) -> Search:
    """Square as a search.

    Args:
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball.
      image_shape: (H, W, C).
      queries: number of iterations after the evaluation of the start, one query of the network each.
      p: share of the image that the first windows cover.
      eot: number of evaluations of a randomised network over which logits are averaged.

    Raises:
      InputError: for another norm.
    """
    if norm not in _GEOMETRIES:
        raise InputError(f"norm={norm!r} must be l_inf, l_2 or l_1")
    height, width = image_shape[:2]
    start, propose = _GEOMETRIES[norm](epsilon, window_sizes(height, width, p, norm))
    keys_of = jax.vmap(jax.random.fold_in)

    def init(job: Job) -> SquareState:
        count = jnp.zeros(len(job.x), jnp.int32)
        x = jax.vmap(start)(keys_of(job.key, count), job.x)
        return SquareState(count, x, x, jnp.full(len(x), jnp.inf, x.dtype))

    def step(logits_fn, job: Job, state: SquareState, key) -> SquareState:
        logits = averaged(logits_fn, eot, key)(state.x)
        margins = margin(logits, job.y).astype(state.x.dtype)
        better = (margins < state.margin) | ~(margins > 0)  # includes NaN, which the caller detects
        x_best = jnp.where(per_image(better), state.x, state.x_best)
        stage = jnp.sum(state.iteration[:, None] > jnp.array(HALVINGS), -1)
        keys = keys_of(job.key, state.iteration + 1)
        return SquareState(
            state.iteration + 1,
            jax.vmap(propose)(keys, stage, job.x, x_best),
            x_best,
            jnp.where(better, margins, state.margin),
        )

    def outcome(job: Job, state: SquareState) -> Outcome:
        fooled, ended = ~(state.margin > 0), state.iteration > queries
        return Outcome(state.x_best, fooled, ended, state.iteration, jnp.zeros_like(fooled))

    return Search(init, step, outcome)


def square(
    logits_fn: Callable, x, y, keys, *, norm: str, epsilon, queries: int = 5000, p: float = 0.8
) -> SquareState:
    """Runs one restart of Square on a batch until all images are misclassified or all queries are used.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes]; examples must not interact.
      x: clean images.
      y: labels [B].
      keys: [B] random keys.
      norm, epsilon, queries, p: see `make_square`.

    Returns:
      The final state; `margin` is negative or 0 where `x_best` is misclassified.
    """
    search = make_square(norm, epsilon, x.shape[1:], queries=queries, p=p)
    job = Job(x, y, None, None, keys)
    bound = lambda points, _: logits_fn(points)

    def running(state):
        return (state.margin > 0) & (state.iteration <= queries)

    def step(state):
        return pick(running(state), search.step(bound, job, state, None), state)

    return lax.while_loop(lambda state: running(state).any(), step, search.init(job))
