"""The windows of Square (Andriushchenko et al., 2020, arXiv:1912.00049) and the patterns that fill them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Iterations after which the window's share of the image is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
EPS = 1e-12  # of the official code


def window_sizes(height: int, width: int, share: float, norm: str) -> np.ndarray:
    """Side of the square window at each stage of the schedule, int [10]; odd, at least 3, but in L_inf."""
    sides = []
    for stage in range(len(HALVINGS) + 1):
        side = round(math.sqrt(share / 2**stage * height * width))
        side = max(side, 1) if norm == "l_inf" else max(side, 3) + (max(side, 3) % 2 == 0)
        sides.append(min(side, height, width))
    return np.array(sides)


def _unit(values: np.ndarray, norm: str) -> np.ndarray:
    return values / (np.abs(values).sum() if norm == "l_1" else np.sqrt((values**2).sum()))


def _pyramid(height: int, width: int, norm: str) -> np.ndarray:
    """[height, width] of unit norm, falling off from the middle by Chebyshev distance."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    distance = np.maximum(abs(rows - height // 2), abs(columns - width // 2))
    # As the official code, steeper in L1.
    terms = 1 / np.arange(1, max(height, width) // 2 + 2) ** (4 if norm == "l_1" else 2)
    heights = terms[::-1].cumsum()[::-1]  # at each distance, the terms from there on
    return _unit(heights[distance], norm)


def pyramids(side: int, norm: str = "l_2") -> np.ndarray:
    """A square of two pyramids of opposite sign, [side, side] of unit norm in `l_2` or `l_1`.

    It is eta in the paper, which has it for L_2.
    """
    halves = [-_pyramid(side - side // 2, side, norm)]
    if side > 1:
        halves.insert(0, _pyramid(side // 2, side, norm))
    return _unit(np.concatenate(halves), norm)


def signs(key, shape, dtype):
    return jax.random.rademacher(key, shape, dtype)


def corner_of(key, image_shape, side):
    """Upper left corner of a random window; as in the official code it never touches the last edges."""
    room = jnp.maximum(jnp.array(image_shape[:2]) - side, 1)
    return jax.random.randint(key, (2,), 0, room)


def window(image_shape, corner, side):
    """Mask [H, W, 1] of a square window."""
    rows, columns = jnp.arange(image_shape[0])[:, None], jnp.arange(image_shape[1])
    inside = (rows >= corner[0]) & (rows < corner[0] + side)
    return (inside & (columns >= corner[1]) & (columns < corner[1] + side))[..., None]


def _tiles(height: int, width: int, norm: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Pyramids in tiles, turned both ways [2, height, width]; each pixel's tile; how many."""
    side = max(min(height // 5, width), 1)  # the official code makes no tile of a narrower image
    offset = (height - side * 5) // 2 if height >= 5 else 0
    patch = pyramids(side, norm)
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


def tiled(key, image_shape, norm: str, dtype):
    """Where the search starts in L_2 and L1: tiles of pyramids, each turned and signed at random."""
    height, width, channels = image_shape
    patterns, tile_of, count = _tiles(height, width, norm)
    turn, sign = jax.random.split(key)
    turned = jax.random.bernoulli(turn, shape=(count,))[tile_of]
    pattern = jnp.where(turned, patterns[1], patterns[0]).astype(dtype)
    return pattern[..., None] * signs(sign, (count, channels), dtype)[tile_of]


def all_pyramids(image_shape, sides: np.ndarray, norm: str) -> np.ndarray:
    """Pyramids of every stage, turned both ways, in the upper left corner: [stages, 2, H, W]."""
    turns = np.zeros((len(sides), 2, *image_shape[:2]))
    for both, side in zip(turns, sides, strict=True):
        both[:, :side, :side] = pyramids(side, norm), pyramids(side, norm).T
    return turns


class Move(NamedTuple):
    """Of norm within a perturbation [H, W, C].

    Attributes:
      here: mask of the window that pyramids are added to.
      there: of the window that loses its norm.
      freed: norms of both windows together, by channel.
      shape: perturbation in `here` of unit norm in each channel, what was there with pyramids added.
    """

    here: Any
    there: Any
    freed: Any
    shape: Any


def draw_move(key, stage, delta, sides: np.ndarray, turns: np.ndarray, per_channel) -> Move:
    """Draws windows and pyramids of a stage.

    Args:
      key: random key.
      stage: of the schedule.
      delta: perturbation [H, W, C].
      sides: of the window in each stage.
      turns: see `all_pyramids`.
      per_channel: [H, W, C] -> norms that broadcast against it.
    """
    where, other, turn, sign = jax.random.split(key, 4)
    side = jnp.asarray(sides)[stage]
    corner = corner_of(where, delta.shape, side)
    here = window(delta.shape, corner, side)
    there = window(delta.shape, corner_of(other, delta.shape, side), side)
    turned = jax.random.bernoulli(turn).astype(int)
    eta = jnp.roll(jnp.asarray(turns, delta.dtype)[stage, turned], corner, (0, 1))[..., None]
    eta = eta * signs(sign, (1, 1, delta.shape[2]), delta.dtype)
    old = jnp.where(here, delta, 0)
    new = eta + old / (EPS + per_channel(old))
    freed = per_channel(jnp.where(here | there, delta, 0))
    return Move(here, there, freed, new / (EPS + per_channel(new)))
