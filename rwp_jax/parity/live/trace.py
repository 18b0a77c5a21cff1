"""Compared quantities of a training step, in the same form for both sides."""

from collections.abc import Iterable, Mapping

import numpy as np

# Maps quantities to arrays by name; parameters have the state dict's names and layouts.
Step = dict[str, Mapping[str, np.ndarray]]

QUANTITIES = {  # quantity: its name in the tables
    "logits": "logits",
    "delta": "attack delta",
    "gates": "gate counts",
    "v": "v",
    "loss": "loss",
    "weights": "weights",
    "momentum": "momentum",
    "statistics": "running statistics",
}
NORM = "norm"
KEPT = 4096  # entries kept per tensor of v; ten whole copies of a network would be too large


def by_step(arrays: Iterable) -> dict[str, np.ndarray]:
    """Names arrays by their index: 0, 1, ..."""
    return {str(k): np.asarray(array) for k, array in enumerate(arrays)}


def thinned(array) -> np.ndarray:
    """Returns at most KEPT entries of an array, evenly spread."""
    flat = np.asarray(array).ravel()
    return flat[:: -(-flat.size // KEPT)].copy() if flat.size else flat


def ascent(steps: Iterable[Mapping]) -> dict[str, np.ndarray]:
    """Returns v after each ascent step and its norms; `steps` holds the results of `thin`."""
    steps = list(steps)
    named = {f"{k} {n}": a for k, v in enumerate(steps, 1) for n, a in v.items() if n != NORM}
    return named | {NORM: np.array([v[NORM] for v in steps])} if steps else {}


def thin(v: Mapping) -> dict[str, np.ndarray]:
    """Thins the tensors of v and adds their norm before thinning."""
    return {name: thinned(array) for name, array in v.items()} | {NORM: l_2(v)}


def l_2(arrays: Mapping) -> float:
    """Returns the L_2 norm over all arrays together."""
    squares = (np.sum(np.square(array, dtype=np.float64)) for array in arrays.values())
    return float(np.sqrt(sum(squares)))


def relative_distance(ours: Mapping, theirs: Mapping) -> float:
    """Returns |ours - theirs| / |theirs| in L_2 over all arrays; absolute if theirs is zero."""
    difference = l_2({k: np.subtract(ours[k], theirs[k], dtype=np.float64) for k in theirs})
    scale = l_2(theirs)
    return difference / scale if scale > 0 else difference
