"""What is compared of a training step, in the same form for both sides."""

from collections.abc import Iterable, Mapping

import numpy as np

# Quantity -> arrays by name, in the state dict's names and layouts where there are any.
Step = dict[str, Mapping[str, np.ndarray]]

QUANTITIES = {  # what each is called in the tables
    "logits": "logits",
    "delta": "attack delta",
    "gates": "gate counts",
    "v": "v",
    "loss": "loss",
    "weights": "weights",
    "momentum": "momentum",
    "statistics": "running statistics",
}
KEPT = 4096  # entries of a tensor of v after an ascent step; ten whole copies of a network are too many


def by_step(arrays: Iterable) -> dict[str, np.ndarray]:
    """Arrays named by their place: 0, 1, ..."""
    return {str(k): np.asarray(array) for k, array in enumerate(arrays)}


def thinned(array) -> np.ndarray:
    """At most KEPT entries of an array, evenly spread."""
    flat = np.asarray(array).ravel()
    return flat[:: -(-flat.size // KEPT)].copy() if flat.size else flat


def relative_distance(ours: Mapping, theirs: Mapping) -> float:
    """|ours - theirs| / |theirs| in L_2 over all arrays; absolute where theirs is zero."""
    square = lambda values: sum(float(np.sum(np.square(v, dtype=np.float64))) for v in values)
    difference = square(np.subtract(ours[k], theirs[k], dtype=np.float64) for k in theirs)
    scale = square(theirs.values())
    return float(np.sqrt(difference / scale if scale > 0 else difference))
