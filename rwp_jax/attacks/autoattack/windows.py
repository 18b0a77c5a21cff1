"""Windows of Square (Andriushchenko et al., 2020, arXiv:1912.00049) and the patterns that fill them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Iterations after which the window's share of the image is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
EPS = 1e-12  # as in the official code


def window_sizes(height: int, width: int, share: float, norm: str) -> np.ndarray:
    """Side of the square window at each stage of the schedule, int [10].

    In L_2 and L1, sides are odd and at least 3 unless the image's height or width limits them.
    """
    sides = []
    for stage in range(len(HALVINGS) + 1):
        side = round(math.sqrt(share / 2**stage * height * width))
        side = max(side, 1) if norm == "l_inf" else max(side, 3) + (max(side, 3) % 2 == 0)
        sides.append(min(side, height, width))
    return np.array(sides)


def _unit(values: np.ndarray, norm: str) -> np.ndarray:
    return values / (np.abs(values).sum() if norm == "l_1" else np.sqrt((values**2).sum()))


def _pyramid(height: int, width: int, norm: str) -> np.ndarray:
    """A pattern [height, width] of unit norm that falls off with the Chebyshev distance from the middle."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    distance = np.maximum(abs(rows - height // 2), abs(columns - width // 2))
    # As in the official code, steeper in L1.
    terms = 1 / np.arange(1, max(height, width) // 2 + 2) ** (4 if norm == "l_1" else 2)
    heights = terms[::-1].cumsum()[::-1]  # at each distance, the sum of the terms from there on
    return _unit(heights[distance], norm)


def pyramids(side: int, norm: str = "l_2") -> np.ndarray:
    """A square [side, side] of two pyramids of opposite sign, of unit norm in `l_2` or `l_1`.

    It is eta in the paper, which defines it for L_2.
    """
    halves = [-_pyramid(side - side // 2, side, norm)]
    if side > 1:
        halves.insert(0, _pyramid(side // 2, side, norm))
    return _unit(np.concatenate(halves), norm)


def signs(key, shape, dtype):
    return jax.random.rademacher(key, shape, dtype)


def corner_of(key, image_shape, side):
    """Upper left corner of a random window, which as in the official code never touches the last edges."""
    room = jnp.maximum(jnp.array(image_shape[:2]) - side, 1)
    return jax.random.randint(key, (2,), 0, room)


def window(image_shape, corner, side):
    """Mask [H, W, 1] of a square window."""
    rows, columns = jnp.arange(image_shape[0])[:, None], jnp.arange(image_shape[1])
    inside = (rows >= corner[0]) & (rows < corner[0] + side)
    return (inside & (columns >= corner[1]) & (columns < corner[1] + side))[..., None]


def _tiles(height: int, width: int, norm: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Tiles of pyramids in both orientations [2, height, width], each pixel's tile, and their number."""
    side = max(min(height // 5, width), 1)  # the official code has no tiles in narrower images
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
        shape = patterns[0][area].shape  # tiles that extend past the last edges are cut off
        patterns[0][area] = patch[: shape[0], : shape[1]]
        patterns[1][area] = patch.T[: shape[0], : shape[1]]
        tile_of[area] = tile
    return patterns, tile_of, len(corners)


def tiled(key, image_shape, norm: str, dtype):
    """Start of the search in L_2 and L1: tiles of pyramids, each with random orientation and signs."""
    height, width, channels = image_shape
    patterns, tile_of, count = _tiles(height, width, norm)
    turn, sign = jax.random.split(key)
    turned = jax.random.bernoulli(turn, shape=(count,))[tile_of]
    pattern = jnp.where(turned, patterns[1], patterns[0]).astype(dtype)
    return pattern[..., None] * signs(sign, (count, channels), dtype)[tile_of]


def all_pyramids(image_shape, sides: np.ndarray, norm: str) -> np.ndarray:
    """Pyramids of every stage in both orientations, in the upper left corner: [stages, 2, H, W]."""
    turns = np.zeros((len(sides), 2, *image_shape[:2]))
    for both, side in zip(turns, sides, strict=True):
        both[:, :side, :side] = pyramids(side, norm), pyramids(side, norm).T
    return turns


class Move(NamedTuple):
    """A move of norm between two windows of a perturbation [H, W, C].

    Attributes:
      here: mask of the window to which pyramids are added.
      there: mask of the window that loses its norm.
      freed: norm of both windows together, by channel.
      shape: new pattern in `here` (old pattern plus pyramids), of unit norm in each channel.
    """

    here: Any
    there: Any
    freed: Any
    shape: Any


def draw_move(key, stage, delta, sides: np.ndarray, turns: np.ndarray, per_channel) -> Move:
    """Draws the windows and the pyramids of a stage.

    Args:
      key: random key.
      stage: index of the stage in the schedule.
      delta: perturbation [H, W, C].
      sides: side of the window in each stage.
      turns: pyramids from `all_pyramids`.
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
