"""AutoAttack accuracy on a data set, recorded as JSON with the settings and versions that led to it."""

import functools
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rwp_jax.attacks.autoattack import autoattack
from rwp_jax.attacks.autoattack.checks import check_file
from rwp_jax.errors import InputError, check_integer, first_line, shown
from rwp_jax.evaluation.record import record_of
from rwp_jax.files import write_json
from rwp_jax.names import norm_name
from rwp_jax.version import commit

if TYPE_CHECKING:
    from rwp_jax.runs.finished_run import FinishedRun


_FILES = ("state_path", "log_path")


def benchmark(
    network: "Callable | FinishedRun",
    data: str | tuple | None = None,
    norm: str = "l_inf",
    epsilon: float = 8 / 255,
    *,
    name: str = "",
    examples: int = 0,
    path: str | pathlib.Path | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Measures the clean and robust accuracy of a network and records how they were measured.

    Args:
      network: a `logits_fn` as `autoattack` takes it, or a run from `load_run`.
      data: images and labels (x, y) as `autoattack` takes them; or the name of a data set, to use its test
        images (`digits`, `cifar10`, `cifar100`, `svhn_cropped`); or an npz in the format of
        `config.data.path`. Defaults to the test images of the run, if `network` is one.
      norm: `l_inf`, `l_2` or `l_1`, or another spelling such as `Linf`.
      epsilon: radius of the ball, as for `autoattack`.
      name: name of the network in the record.
      examples: number of images to use, from the first; 0 for all.
      path: JSON file to write.
      arguments: keyword arguments passed on to `autoattack`, such as `version`, `key`, `state_path`.

    Returns:
      The content of the file: `accuracy` and `by_class` in [0, 1] (clean and robust, with Wilson's 95%
      intervals), images that are robust after each attack, seconds, warnings, settings and versions, and
      the fields of RobustBench's model files, in %.

    Raises:
      InputError: if an argument is invalid, before the attack starts.
    """
    commit()
    output = check_file("path", path)
    _check_apart({"path": path, **{file: arguments.get(file) for file in _FILES}})
    if not isinstance(name, str):
        raise InputError(f"name={shown(name)} must be a text")
    examples = check_integer("examples", examples, 0)
    norm = norm_name("norm", norm)
    logits_fn = _logits_fn(network)
    data_name, x, y = _images(network, data)
    if examples > len(y):
        raise InputError(f"examples={examples}: there are only {len(y)} test images")
    count = examples or len(y)
    x, y = x[:count], y[:count]
    result = autoattack(logits_fn, x, y, norm, epsilon, **arguments)
    record = record_of(
        result,
        x,
        y,
        norm,
        epsilon,
        name=name,
        dataset=data_name,
        architecture=network.architecture() if _is_run(network) else "",
        arguments=arguments,
    )
    if output:
        write_json(output, record)
    return record


def _check_apart(paths: dict[str, Any]) -> None:
    """Raises InputError if two arguments name the same file."""
    found: dict[pathlib.Path, str] = {}
    for argument, path in paths.items():
        if isinstance(path, str | pathlib.Path):
            other = found.setdefault(pathlib.Path(path).absolute(), argument)
            if other != argument:
                raise InputError(f"{argument}={path} is the file of {other}=, must be another")


def _pair(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as arrays; raises InputError unless there are as many of both."""
    try:
        x, y = np.asarray(x), np.asarray(y)
    except Exception as error:  # ragged lists, traced arrays
        raise InputError(f"data= must be (x, y), two arrays: {first_line(error)}") from None
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y):
        raise InputError(
            f"data= is x {list(x.shape)} and y {list(y.shape)}, must be images [N, H, W, C] and labels [N]"
        )
    return x, y


def _is_run(network: Any) -> bool:
    """Checks for a FinishedRun without importing that class, which needs the extra `train`."""
    return hasattr(network, "classifier") and hasattr(type(network), "test_images")


def _logits_fn(network: Any) -> Callable:
    if _is_run(network):
        params, batch_stats = jax.device_get((network.params, network.batch_stats))
        return functools.partial(network.classifier.eval, params, batch_stats)
    if not callable(network):
        raise InputError(f"network={shown(network)} must be a function or a run from load_run")
    return network


def _images(network: Any, data: Any) -> tuple[str, Any, Any]:
    """Returns the name of a data set, its test images in [0, 1] and their labels."""
    if isinstance(data, tuple) and len(data) == 2:
        return "", *_pair(*data)
    if data is None:
        if not _is_run(network):
            raise InputError("data= is missing: give (x, y), or the name of a data set")
        name, x, y = network.config.data.name, network.test_images, network.test_labels
        return name, x.astype(np.float32) / 255, y
    if not isinstance(data, str | pathlib.Path):
        raise InputError(
            f"data={shown(data)} must be (x, y), the name of a data set or an npz file"
        )
    try:
        from rwp_jax.data.sources import load_named
    except ModuleNotFoundError as error:
        raise InputError(
            f"data={str(data)!r} needs {error.name}: pip install 'rwp-jax[train]', or give (x, y)"
        ) from None
    loaded = load_named(str(data))
    return pathlib.Path(data).stem, loaded.x_test.astype(np.float32) / 255, loaded.y_test
