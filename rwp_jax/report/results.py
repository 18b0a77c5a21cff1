"""Reads the results in a run's directory: config, accuracies of every epoch, evaluations."""

import contextlib
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from rwp_jax.data.sources import NAMED, size_of_named
from rwp_jax.errors import InputError, first_line
from rwp_jax.runs import layout, resume_point, zoo
from rwp_jax.runs.config import completed, flatten
from rwp_jax.runs.history import History
from rwp_jax.runs.layout import EVALUATION, EVALUATION_JSON
from rwp_jax.runs.metrics import FILE, read_metrics

SPLITS = {
    "test": "",
    "validation": "validation_",
    "train": "train_",
}  # split -> prefix of its metrics
_ACCURACIES = ("natural_accuracy", "pgd_accuracy")


class Result(NamedTuple):
    """A run, finished or not.

    Attributes:
      directory: directory of the run.
      config: newest config of the run.
      epochs: one record per epoch, in order: `epoch` (from 0), training metrics as `train_...` and, for
        epochs that were evaluated, test metrics under their own names (`natural_accuracy`, `pgd_accuracy`,
        in [0, 1]) and metrics on held-out images as `validation_...`.
      finished: whether all epochs are done.
      seconds: duration of the run; None while unfinished.
      test_images: number of test images behind the accuracies after epochs; None if no longer known.
      evaluations: checkpoint -> columns of its evaluation.json, only for whole test sets.
      test_examples: number of images of the evaluations; None if there is no evaluation.
      history: changes of the config during the run.
    """

    directory: pathlib.Path
    config: ml_collections.ConfigDict
    epochs: list[dict[str, Any]]
    finished: bool
    seconds: float | None
    test_images: int | None
    evaluations: dict[str, dict[str, dict]]
    test_examples: int | None
    history: History = History()

    def figure(self, which: str, name: str) -> float | None:
        """Returns the metric `name` of the epoch that `which` selects, or None."""
        evaluated = [e for e in _comparable(self.epochs, self.history) if "pgd_accuracy" in e]
        record = resume_point.choose(which, evaluated)
        return record.get(name) if record else None

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Returns the epochs (from 1) at which a metric was measured, and its values."""
        points = [(e["epoch"] + 1, e[name]) for e in self.epochs if name in e]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def mean(self, name: str) -> float | None:
        """Returns the mean of a metric over the epochs at which it was measured, or None."""
        values = self.curve(name)[1]
        return sum(values) / len(values) if values else None


def measured_since(epochs: list[dict], history: History) -> int:
    """Returns how many epochs were not measured in the way in which the newest evaluated one was."""
    measured = [epoch["epoch"] + 1 for epoch in epochs if "pgd_accuracy" in epoch]
    return history.measured_since(max(measured, default=0))


def _comparable(epochs: list[dict], history: History) -> list[dict]:
    """Returns the records of the epochs whose accuracies are comparable with the newest ones."""
    since = measured_since(epochs, history)
    return [epoch for epoch in epochs if epoch["epoch"] >= since]


def _epochs(directory: pathlib.Path, config, history: History) -> list[dict[str, Any]]:
    """Reads metrics.jsonl, merges the splits of an epoch into one record and drops incomplete epochs."""
    flat = flatten(config.to_dict())
    epochs: dict[int, dict] = {}
    for record in read_metrics(directory):
        merged = epochs.setdefault(record["epoch"], {"epoch": record["epoch"]})
        prefix = SPLITS[record["split"]]
        merged |= {
            prefix + name: float(value)
            for name, value in record.items()
            if name not in ("epoch", "step", "split")
        }

    def due(epoch: int) -> bool:
        then = history.config_at(flat, epoch)
        return (epoch + 1) % max(1, then["evaluation.every"]) == 0 or epoch + 1 == then["epochs"]

    kept = [
        record
        for epoch, record in sorted(epochs.items())
        if "pgd_accuracy" in record or not due(epoch)
    ]
    for record in kept:
        for name, value in record.items():
            if name.endswith(_ACCURACIES) and not 0 <= value <= 1:
                raise InputError(f"{name}={value} of epoch {record['epoch'] + 1} must be in [0, 1]")
    return kept


def _test_images(config) -> int | None:
    """Returns the number of test images, None if their file cannot be read."""
    if config.data.name in NAMED:
        return size_of_named(config.data).test
    try:
        with np.load(config.data.path) as arrays:
            return len(arrays["y_test"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _evaluations(directory: pathlib.Path, epochs: list[dict]) -> dict[str, dict]:
    """Reads checkpoint -> content of its evaluation.json, if that is of the epoch now selected.

    Evaluations on part of the test set are left out; their directories are named WHICH_N.
    """
    found = {}
    for which in resume_point.WHICH:
        path, meant = (
            directory / EVALUATION / which / EVALUATION_JSON,
            resume_point.choose(which, epochs),
        )
        if path.exists() and meant:
            with _reading(directory, str(path.relative_to(directory))):
                content = json.loads(path.read_text(encoding="utf-8"))
                if layout.from_0(content["epoch"], content) == meant["epoch"]:
                    _ = [column["accuracy"] for column in content["columns"].values()]
                    _ = content["examples"]
                    found[which] = content
    return found


def _seconds(directory: pathlib.Path, epochs: list[dict]) -> float | None:
    """Reads how long a run took; raises InputError if `epochs` end before those of its summary."""
    if not (directory / layout.SUMMARY).exists():
        return None
    with _reading(directory, layout.SUMMARY):
        summary = json.loads((directory / layout.SUMMARY).read_text(encoding="utf-8"))
        seconds = float(summary["seconds"])
        last = layout.from_0(summary["last"]["epoch"], summary) if "last" in summary else -1
    if last > epochs[-1]["epoch"]:
        raise InputError(
            f"workdir={directory}: {last + 1} epochs are done, by its {layout.SUMMARY}, but its {FILE} "
            f"is damaged after epoch {epochs[-1]['epoch'] + 1}"
        )
    return seconds


@contextlib.contextmanager
def _reading(directory: pathlib.Path, name: str) -> Iterator[None]:
    """Makes errors of the `with` block name the run's file that it reads."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = first_line(error) if isinstance(error, InputError) else type(error).__name__
        raise InputError(f"workdir={directory}: its {name} is not that of a run ({why})") from None


def read_result(directory: pathlib.Path) -> Result:
    """Reads a run's directory.

    Raises:
      InputError: if it holds no run, no evaluated epoch, or invalid files.
    """
    zoo.refuse(directory)
    if not (directory / layout.CONFIG).is_file() or not (directory / FILE).is_file():
        lacks = FILE if (directory / layout.CONFIG).is_file() else layout.CONFIG
        raise InputError(f"workdir={directory} holds no run with metrics: there is no {lacks}")
    with _reading(directory, layout.CONFIG):
        content = json.loads((directory / layout.CONFIG).read_text(encoding="utf-8"))
        config, history = ml_collections.ConfigDict(completed(content)), History.of(content)
        _ = config.data.name, config.threat.norm, config.threat.epsilon, int(config.seed)
        test_images = _test_images(config)
    with _reading(directory, FILE):
        epochs = _epochs(directory, config, history)
    if not any("pgd_accuracy" in epoch for epoch in epochs):
        raise InputError(
            f"workdir={directory} holds no run with metrics: {FILE} has no epoch with test accuracy"
        )
    seconds = _seconds(directory, epochs)
    seconds = seconds if layout.finished(directory, config.epochs) else None
    evaluations = _evaluations(directory, _comparable(epochs, history))
    columns = {which: content["columns"] for which, content in evaluations.items()}
    examples = next((content["examples"] for content in evaluations.values()), None)
    finished = seconds is not None and epochs[-1]["epoch"] + 1 >= config.epochs
    read = directory, config, epochs, finished, seconds, test_images, columns, examples, history
    return Result(*read)
