"""One number that others can check: AutoAttack on a data set, with all that led to it, as JSON."""

import functools
import hashlib
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rwp_jax.attacks.autoattack import AutoAttackResult, autoattack
from rwp_jax.attacks.autoattack.checks import check_file
from rwp_jax.errors import InputError, check_choice, check_integer, renamed, shown
from rwp_jax.evaluation.intervals import wilson
from rwp_jax.files import raw_bytes, write_json
from rwp_jax.version import __version__

if TYPE_CHECKING:
    from rwp_jax.runs.finished_run import FinishedRun

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def benchmark(
    network: "Callable | FinishedRun",
    data: str | tuple | None = None,
    norm: str = "Linf",
    epsilon: float = 8 / 255,
    *,
    name: str = "",
    examples: int = 0,
    path: str | pathlib.Path | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Clean and robust accuracy of a network, as a record of how they were found.

    Args:
      network: a `logits_fn` as `autoattack` takes it, or a run from `load_run`.
      data: images and labels (x, y) as `autoattack` takes them, or the name of a data set whose test images
        are taken (`digits`, `cifar10`, `cifar100`, `svhn_cropped`), or an npz as `config.data.path` has it;
        of a run by default its own test images.
      norm: `Linf`, `L2` or `L1`.
      epsilon: radius of the ball.
      name: of the network, in the record.
      examples: how many images, the first ones; 0 for all.
      path: JSON file to write.
      arguments: further ones of `autoattack` by name, such as `version`, `key`, `state_path`.

    Returns:
      What the file holds. `dataset`, `architecture`, `eps`, `clean_acc`, `autoattack_acc`, `reported` and
      `unreliable` are as in RobustBench's model files, accuracies in % as text; `accuracy` has them in
      [0, 1] with 95% intervals (Wilson), `by_class` the same for each class, `robust_after` the images left
      after each attack.

    Raises:
      InputError: for arguments that are not so, before anything is attacked.
    """
    output = check_file("path", path)
    examples = check_integer("examples", examples, 0)
    logits_fn = _logits_fn(network)
    data_name, x, y = _images(network, data)
    if examples > len(y):
        raise InputError(f"examples={examples}: there are only {len(y)} test images")
    count = examples or len(y)
    x, y = x[:count], y[:count]
    began = time.monotonic()
    result = autoattack(logits_fn, x, y, norm, epsilon, **arguments)
    record = _record(result, np.asarray(y), norm, epsilon, arguments)
    record["seconds"]["all"] = round(time.monotonic() - began, 1)
    record |= {
        "name": name,
        "dataset": data_name,
        "architecture": network.config.model.name if _is_run(network) else "",
        "images_sha256": hashlib.sha256(raw_bytes(np.asarray(x))).hexdigest(),
    }
    if output:
        write_json(output, record)
    return record


def _is_run(network: Any) -> bool:
    """Whether it is a FinishedRun, whose module needs the extra `train`."""
    return hasattr(network, "classifier") and hasattr(type(network), "test_images")


def _logits_fn(network: Any) -> Callable:
    if _is_run(network):
        params, batch_stats = jax.device_get((network.params, network.batch_stats))
        return functools.partial(network.classifier.eval, params, batch_stats)
    if not callable(network):
        raise InputError(f"network={shown(network)} must be a function or a run of load_run")
    return network


def _images(network: Any, data: Any) -> tuple[str, Any, Any]:
    """A data set's name, its test images in [0, 1] and labels."""
    if isinstance(data, tuple) and len(data) == 2:
        return "", *data
    if data is None:
        if not _is_run(network):
            raise InputError("data= is missing: give (x, y), or the name of a data set")
        name, x, y = network.config.data.name, network.test_images, network.test_labels
        return name, x.astype(np.float32) / 255, y
    if not isinstance(data, str | pathlib.Path):
        raise InputError(
            f"data={shown(data)} must be (x, y), the name of a data set or an npz file"
        )
    return _named(str(data))


def _named(data: str) -> tuple[str, np.ndarray, np.ndarray]:
    try:
        from rwp_jax.data import sources
    except ModuleNotFoundError as error:
        raise InputError(
            f"data={data!r} needs {error.name}: pip install 'rwp-jax[train]', or give (x, y)"
        ) from None
    file = data.endswith(".npz")
    if not file:
        check_choice("data", data, [name for name in sources.NAMES if name != "npz"])
    with renamed("config.data.path", "data"):
        loaded = sources.load("npz", data) if file else sources.load(data)
    return pathlib.Path(data).stem, loaded.x_test.astype(np.float32) / 255, loaded.y_test


def _share(correct: np.ndarray) -> dict[str, Any]:
    right, count = int(correct.sum()), len(correct)
    return {
        "correct": right,
        "images": count,
        "accuracy": right / count,
        "interval_95": list(wilson(right, count)),
    }


def _record(
    result: AutoAttackResult, y: np.ndarray, norm: str, epsilon: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    clean, robust = result.robust_after["clean"], result.robust
    percent = lambda correct: f"{100 * correct.mean():.2f}"
    return {
        "eps": f"{float(epsilon):.6g}",
        "norm": norm,
        "clean_acc": percent(clean),
        "autoattack_acc": percent(robust),
        "reported": percent(robust),
        "unreliable": bool(result.warnings),
        "accuracy": {"clean": _share(clean), "robust": _share(robust)},
        "by_class": {
            str(c): {"clean": _share(clean[y == c]), "robust": _share(robust[y == c])}
            for c in np.unique(y)
        },
        "robust_after": {name: int(left.sum()) for name, left in result.robust_after.items()},
        "seconds": {name: round(seconds, 1) for name, seconds in result.seconds.items()},
        "warnings": result.warnings,
        "settings": {
            "version": arguments.get("version", "standard"),
            "key": shown(arguments.get("key", 0)),
            "attacks": shown(arguments.get("attacks")),
            "precision": arguments.get("precision", "default"),
        },
        "device": jax.devices()[0].device_kind,
        "versions": {"rwp-jax": __version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
