"""The JSON record of an AutoAttack evaluation: its accuracies and how they were obtained."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rwp_jax.attacks.arguments import check_key
from rwp_jax.attacks.autoattack import AutoAttackResult
from rwp_jax.attacks.autoattack.suite import attacks_of
from rwp_jax.errors import shown
from rwp_jax.evaluation.intervals import wilson
from rwp_jax.files import sha256
from rwp_jax.version import versions

_KNOWN = ("version", "key", "attacks", "precision")
_NO_SETTINGS = ("state_path", "log_path", "progress", "reuse")  # which change no number
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def share(correct: np.ndarray) -> dict[str, Any]:
    """Counts the verdicts [N] that are True and computes the 95% interval of their share."""
    right, count = int(correct.sum()), len(correct)
    return {
        "correct": right,
        "images": count,
        "accuracy": right / count,
        "interval_95": list(wilson(right, count)),
    }


def _described(value: Any) -> Any:
    """Returns what JSON can hold of an argument: a number or text, the name of a function, a digest."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', shown(value))}"
    try:
        array = np.asarray(value)
        return f"{array.dtype}{list(array.shape)}, SHA-256 {sha256(array)}"
    except (TypeError, ValueError):
        return shown(value)


def _settings(norm: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attacks that ran, the key, and every argument that has another value than its default."""
    version = arguments.get("version", "standard")
    attacks = attacks_of(version, arguments.get("attacks"), norm)
    others = {k: _described(v) for k, v in arguments.items() if k not in (*_KNOWN, *_NO_SETTINGS)}
    key = arguments.get("key", 0)
    is_seed = isinstance(key, int)
    return {
        "version": version,
        "key": key if is_seed else jax.random.key_data(check_key(key)).tolist(),
        "attacks": [repr(attack) for attack in attacks],
        "precision": arguments.get("precision", "default"),
        **others,
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
    """Returns the record of an evaluation.

    Args:
      result: result of AutoAttack.
      x: images that were attacked.
      y: their labels [N].
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball.
      name: name of the network.
      dataset: name of the data set.
      architecture: architecture of the network.
      arguments: other arguments that `autoattack` was called with.
      split: split of the data set that the images belong to.

    Returns:
      `dataset`, `architecture`, `eps`, `clean_acc`, `autoattack_acc`, `reported` and `unreliable` as in
      RobustBench's model files, with accuracies in % as text. `accuracy` has them in [0, 1] with 95%
      intervals (Wilson), `by_class` the same for each class. `robust_after` has the number of images that
      are still classified correctly after each attack.
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
        "settings": _settings(norm, arguments),
        "images_sha256": sha256(np.asarray(x, np.float32)),
        "labels_sha256": sha256(np.asarray(y, np.int32)),
        "device": jax.devices()[0].device_kind,
        "versions": versions(_PACKAGES),
    }
