"""Square Attack (Andriushchenko et al., 2020, arXiv:1912.00049), with the official schedule.

Unlike the official code, which draws one window (and, in L_inf, one sign) for the whole batch in each
iteration, every image has draws of its own: what is found for it does not depend on its batch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwp_jax.attacks.autoattack.margins import margin
from rwp_jax.attacks.autoattack.search import Job, Outcome, Search, per_image, pick
from rwp_jax.attacks.threat_model import l_2_norms
from rwp_jax.errors import InputError

# Iterations after which the window's share of the image is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_EPS = 1e-12  # of the official code


class SquareState(NamedTuple):
    """State of the search; images [B, H, W, C].

    Attributes:
      iteration: [B] points evaluated so far; the first is the start.
      x: the point to evaluate next.
      x_best: the point of the smallest margin.
      margin: [B] its margin.
    """

    iteration: jnp.ndarray
    x: jnp.ndarray
    x_best: jnp.ndarray
    margin: jnp.ndarray


def window_sizes(height: int, width: int, share: float, norm: str) -> np.ndarray:
    """Side of the square window at each stage of the schedule, int [10]; odd and at least 3 for L_2."""
    sides = []
    for stage in range(len(HALVINGS) + 1):
        side = round(math.sqrt(share / 2**stage * height * width))
        side = max(side, 1) if norm == "Linf" else max(side, 3) + (max(side, 3) % 2 == 0)
        sides.append(min(side, height, width))
    return np.array(sides)


def _pyramid(height: int, width: int) -> np.ndarray:
    """[height, width] of unit L_2 norm, falling off from the middle by Chebyshev distance."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    distance = np.maximum(abs(rows - height // 2), abs(columns - width // 2))
    terms = 1 / np.arange(1, max(height, width) // 2 + 2) ** 2
    heights = terms[::-1].cumsum()[::-1]  # at each distance, the terms from there on
    values = heights[distance]
    return values / np.sqrt((values**2).sum())


def pyramids(side: int) -> np.ndarray:
    """A square of two pyramids of opposite sign, [side, side] of unit L_2 norm (eta in the paper)."""
    halves = [-_pyramid(side - side // 2, side)]
    if side > 1:
        halves.insert(0, _pyramid(side // 2, side))
    values = np.concatenate(halves)
    return values / np.sqrt((values**2).sum())


def _signs(key, shape, dtype):
    return jax.random.rademacher(key, shape, dtype)


def _corner(key, image_shape, side):
    """Upper left corner of a random window; as in the official code it never touches the last edges."""
    room = jnp.maximum(jnp.array(image_shape[:2]) - side, 1)
    return jax.random.randint(key, (2,), 0, room)


def _window(image_shape, corner, side):
    """Mask [H, W, 1] of a square window."""
    rows, columns = jnp.arange(image_shape[0])[:, None], jnp.arange(image_shape[1])
    inside = (rows >= corner[0]) & (rows < corner[0] + side)
    return (inside & (columns >= corner[1]) & (columns < corner[1] + side))[..., None]


# Start and proposal of each norm, for one image [H, W, C].


def _l_inf(epsilon, sides) -> tuple[Callable, Callable]:
    def start(key, x):
        """Vertical stripes of +-epsilon."""
        return jnp.clip(x + epsilon * _signs(key, (1, *x.shape[1:]), x.dtype), 0, 1)

    def propose(key, stage, x, x_best):
        """A window in which every channel is pushed to one side of the ball."""
        where, which = jax.random.split(key)
        side = jnp.asarray(sides)[stage]
        window = _window(x.shape, _corner(where, x.shape, side), side)
        push = 2 * epsilon * _signs(which, (1, 1, x.shape[2]), x.dtype)
        pushed = jnp.clip(x_best + jnp.where(window, push, 0), x - epsilon, x + epsilon)
        return jnp.clip(pushed, 0, 1)

    return start, propose


def _tiles(height: int, width: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The start in L_2: pyramids in tiles, turned both ways [2, H, W]; each pixel's tile; how many."""
    side = max(min(height // 5, width), 1)  # the official code makes no tile of a narrower image
    offset = (height - side * 5) // 2 if height >= 5 else 0
    patch = pyramids(side)
    patterns, tile_of = np.zeros((2, height, width)), np.zeros((height, width), int)
    corners = [
        (offset + i * side, offset + j * side)
        for i in range(height // side)
        for j in range(width // side)
    ]
    for tile, (top, left) in enumerate(corners):
        area = np.s_[top : top + side, left : left + side]
        shape = patterns[0][area].shape  # tiles that stand out at the last edges are cut off
        patterns[0][area] = patch[: shape[0], : shape[1]]
        patterns[1][area] = patch.T[: shape[0], : shape[1]]
        tile_of[area] = tile
    return patterns, tile_of, len(corners)


def _l_2(epsilon, sides) -> tuple[Callable, Callable]:
    norm = lambda delta: l_2_norms(delta[None])[0]
    per_channel = lambda delta: jnp.sqrt(jnp.sum(jnp.square(delta), (0, 1), keepdims=True))

    def onto_the_sphere(x, delta):
        return jnp.clip(x + epsilon * delta / (norm(delta) + _EPS), 0, 1)

    def start(key, x):
        """Tiles of pyramids, each turned and signed at random."""
        patterns, tile_of, count = _tiles(*x.shape[:2])
        turn, sign = jax.random.split(key)
        turned = jax.random.bernoulli(turn, shape=(count,))[tile_of]
        pattern = jnp.where(turned, patterns[1], patterns[0]).astype(x.dtype)
        signs = _signs(sign, (count, x.shape[2]), x.dtype)[tile_of]
        return onto_the_sphere(x, pattern[..., None] * signs)

    def propose(key, stage, x, x_best):
        """Moves the norm in one window, and what the ball has left, into pyramids in another."""
        where, other, turn, sign = jax.random.split(key, 4)
        height, width, channels = x.shape
        turns = np.zeros((len(sides), 2, height, width))
        for both, side in zip(turns, sides, strict=True):
            both[:, :side, :side] = pyramids(side), pyramids(side).T
        side = jnp.asarray(sides)[stage]
        corner = _corner(where, x.shape, side)
        here = _window(x.shape, corner, side)
        there = _window(x.shape, _corner(other, x.shape, side), side)

        delta = x_best - x
        freed = per_channel(jnp.where(here | there, delta, 0))
        left = jnp.maximum(epsilon**2 - norm(delta) ** 2, 0) / channels
        turned = jax.random.bernoulli(turn).astype(int)
        eta = jnp.roll(jnp.asarray(turns, x.dtype)[stage, turned], corner, (0, 1))[..., None]
        eta = eta * _signs(sign, (1, 1, channels), x.dtype)
        old = jnp.where(here, delta, 0)
        new = eta + old / (_EPS + per_channel(old))
        new = new / (_EPS + per_channel(new)) * jnp.sqrt(left + freed**2)
        return onto_the_sphere(x, jnp.where(here, new, jnp.where(there, 0, delta)))

    return start, propose


_GEOMETRIES = {"Linf": _l_inf, "L2": _l_2}


def make_square(norm: str, epsilon, image_shape, *, queries: int = 5000, p: float = 0.8) -> Search:
    """Square as a search.

    Args:
      norm: `Linf` or `L2`.
      epsilon: radius of the ball.
      image_shape: (H, W, C).
      queries: iterations, one forward pass each, after the one of the start.
      p: share of the image that the first windows cover.

    Raises:
      InputError: for another norm.
    """
    if norm not in _GEOMETRIES:
        raise InputError(f"norm={norm!r} must be Linf or L2")
    height, width = image_shape[:2]
    start, propose = _GEOMETRIES[norm](epsilon, window_sizes(height, width, p, norm))
    keys_of = jax.vmap(jax.random.fold_in)

    def init(job: Job) -> SquareState:
        count = jnp.zeros(len(job.x), jnp.int32)
        x = jax.vmap(start)(keys_of(job.key, count), job.x)
        return SquareState(count, x, x, jnp.full(len(x), jnp.inf, x.dtype))

    def step(logits_fn, job: Job, state: SquareState, key) -> SquareState:
        margins = margin(logits_fn(state.x, key), job.y).astype(state.x.dtype)
        better = (margins < state.margin) | ~(margins > 0)  # NaN too, for the caller to find
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
    """One restart of Square on a batch, until every image is misclassified or the queries are spent.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes]; examples must not interact.
      x: clean images.
      y: labels [B].
      keys: [B] random keys.
      norm, epsilon, queries, p: see `make_square`.

    Returns:
      The last state: `x_best`, and `margin`, negative (or 0) where it is misclassified.
    """
    search = make_square(norm, epsilon, x.shape[1:], queries=queries, p=p)
    job = Job(x, y, None, None, keys)
    bound = lambda points, _: logits_fn(points)

    def running(state):
        return (state.margin > 0) & (state.iteration <= queries)

    def step(state):
        return pick(running(state), search.step(bound, job, state, None), state)

    return lax.while_loop(lambda state: running(state).any(), step, search.init(job))
