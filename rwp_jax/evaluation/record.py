"""The record of an AutoAttack evaluation: its accuracies and all that led to them, as JSON."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rwp_jax.attacks.autoattack import AutoAttackResult
from rwp_jax.errors import shown
from rwp_jax.evaluation.intervals import wilson
from rwp_jax.files import raw_bytes
from rwp_jax.version import versions

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def share(correct: np.ndarray) -> dict[str, Any]:
    """How many of the verdicts [N] are True, with the 95% interval of their share."""
    right, count = int(correct.sum()), len(correct)
    return {
        "correct": right,
        "images": count,
        "accuracy": right / count,
        "interval_95": list(wilson(right, count)),
    }


def record_of(
    result: AutoAttackResult,
    x: np.ndarray,
    y: np.ndarray,
    norm: str,
    epsilon: float,
    *,
    name: str,
    dataset: str,
    architecture: str,
    arguments: Mapping[str, Any],
    split: str = "test",
) -> dict[str, Any]:
    """Makes the record.

    Args:
      result: of AutoAttack.
      x: images that were attacked.
      y: their labels [N].
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball.
      name: of the network.
      dataset: name of the images' data set.
      architecture: of the network.
      arguments: others that `autoattack` was called with.
      split: part of the data set that the images are.

    Returns:
      `dataset`, `architecture`, `eps`, `clean_acc`, `autoattack_acc`, `reported` and `unreliable` as in
      RobustBench's model files, accuracies in % as text; `accuracy` has them in [0, 1] with 95% intervals
      (Wilson), `by_class` the same for each class, `robust_after` the images left after each attack.
    """
    clean, robust = result.robust_after["clean"], result.robust
    percent = lambda correct: f"{100 * correct.mean():.2f}"
    return {
        "name": name,
        "dataset": dataset,
        "split": split,
        "architecture": architecture,
        "eps": f"{float(epsilon):.6g}",
        "norm": norm,
        "clean_acc": percent(clean),
        "autoattack_acc": percent(robust),
        "reported": percent(robust),
        "unreliable": bool(result.warnings),
        "accuracy": {"clean": share(clean), "robust": share(robust)},
        "by_class": {
            str(c): {"clean": share(clean[y == c]), "robust": share(robust[y == c])}
            for c in np.unique(y)
        },
        "robust_after": {name: int(left.sum()) for name, left in result.robust_after.items()},
        "seconds": {name: round(seconds, 1) for name, seconds in result.seconds.items()}
        | {"all": round(sum(result.seconds.values()), 1)},
        "warnings": result.warnings,
        "settings": {
            "version": arguments.get("version", "standard"),
            "key": shown(arguments.get("key", 0)),
            "attacks": shown(arguments.get("attacks")),
            "precision": arguments.get("precision", "default"),
        },
        "images_sha256": hashlib.sha256(raw_bytes(np.asarray(x))).hexdigest(),
        "device": jax.devices()[0].device_kind,
        "versions": versions(_PACKAGES),
    }
