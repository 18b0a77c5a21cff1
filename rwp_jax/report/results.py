"""What a run's directory says about it: config, accuracies of every epoch, evaluations."""

import json
import pathlib
import zipfile
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from rwp_jax.data.sources import NAMED, size_of_named
from rwp_jax.errors import InputError
from rwp_jax.runs import layout, resume_point, zoo
from rwp_jax.runs.config import completed
from rwp_jax.runs.layout import EVALUATION, EVALUATION_JSON
from rwp_jax.runs.metrics import FILE, read_metrics

SPLITS = {
    "test": "",
    "validation": "validation_",
    "train": "train_",
}  # split: prefix of its figures


class Result(NamedTuple):
    """A run, finished or not.

    Attributes:
      directory: of the run.
      config: of the run.
      epochs: one record an epoch, in order: `epoch` (from 0), those of training as `train_...` and, after
        the epochs that were evaluated, figures on the test set by their names (`natural_accuracy`,
        `pgd_accuracy`, in [0, 1]) and on held-out images as `validation_...`.
      finished: whether all epochs are there.
      seconds: that it took, None while unfinished.
      test_images: that accuracies after epochs are of, None where that is not known any more.
      evaluations: checkpoint -> the columns of its evaluation.json, of whole test sets only.
      test_examples: images of the evaluations, None where there is none.
    """

    directory: pathlib.Path
    config: ml_collections.ConfigDict
    epochs: list[dict[str, Any]]
    finished: bool
    seconds: float | None
    test_images: int | None
    evaluations: dict[str, dict[str, dict]]
    test_examples: int | None

    def figure(self, which: str, name: str) -> float | None:
        """The figure `name` of the epoch that `which` means, None where there is none."""
        record = resume_point.choose(which, [e for e in self.epochs if "pgd_accuracy" in e])
        return record.get(name) if record else None

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs (from 1) and values of a figure, where it was measured."""
        points = [(e["epoch"] + 1, e[name]) for e in self.epochs if name in e]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def mean(self, name: str) -> float | None:
        """Mean of a figure over all epochs."""
        values = self.curve(name)[1]
        return sum(values) / len(values) if values else None


def _epochs(directory: pathlib.Path, config) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, the splits of an epoch in one, without an epoch half written."""
    every = max(1, config.get("evaluation", {}).get("every", 1))
    epochs: dict[int, dict] = {}
    for record in read_metrics(directory):
        merged = epochs.setdefault(record["epoch"], {"epoch": record["epoch"]})
        prefix = SPLITS[record["split"]]
        merged |= {
            prefix + name: float(value)
            for name, value in record.items()
            if name not in ("epoch", "step", "split")
        }
    due = lambda epoch: (epoch + 1) % every == 0 or epoch + 1 == config.epochs
    return [
        record
        for epoch, record in sorted(epochs.items())
        if "pgd_accuracy" in record or not due(epoch)
    ]


def _test_images(config) -> int | None:
    """Images of the test set, None where its file is gone."""
    if config.data.name in NAMED:
        return size_of_named(config.data).test
    try:
        with np.load(config.data.path) as arrays:
            return len(arrays["y_test"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _evaluations(directory: pathlib.Path, epochs: list[dict]) -> dict[str, dict]:
    """checkpoint -> content of its evaluation.json, where that is of the epoch that is meant now.

    Directories of evaluations on part of the test set are named WHICH_N, and left out.
    """
    found = {}
    for which in resume_point.WHICH:
        path, meant = (
            directory / EVALUATION / which / EVALUATION_JSON,
            resume_point.choose(which, epochs),
        )
        if path.exists() and meant:
            content = json.loads(path.read_text(encoding="utf-8"))
            if layout.from_0(content["epoch"], content) == meant["epoch"]:
                found[which] = content
    return found


def read_result(directory: pathlib.Path) -> Result:
    """Reads a run's directory.

    Raises:
      InputError: where it holds no run, no epoch of it, or files that are not those of a run.
    """
    zoo.refuse(directory)
    if not (directory / layout.CONFIG).is_file() or not (directory / FILE).is_file():
        lacks = FILE if (directory / layout.CONFIG).is_file() else layout.CONFIG
        raise InputError(f"workdir={directory} holds no run with metrics: there is no {lacks}")
    try:
        config = json.loads((directory / layout.CONFIG).read_text(encoding="utf-8"))
        config = ml_collections.ConfigDict(completed(config))
        _ = config.data.name, config.threat.norm, config.threat.epsilon, int(config.seed)
        epochs = _epochs(directory, config)
        evaluations = _evaluations(directory, epochs)
        columns = {which: content["columns"] for which, content in evaluations.items()}
        _ = [column["accuracy"] for run in columns.values() for column in run.values()]
        summary = directory / layout.SUMMARY
        seconds = json.loads(summary.read_text())["seconds"] if summary.exists() else None
        examples = next((content["examples"] for content in evaluations.values()), None)
        test_images = _test_images(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"workdir={directory}: its files are not those of a run ({type(error).__name__})"
        ) from None
    if not any("pgd_accuracy" in epoch for epoch in epochs):
        raise InputError(
            f"workdir={directory} holds no run with metrics: {FILE} has no epoch with a test"
        )
    finished = seconds is not None and epochs[-1]["epoch"] + 1 >= config.epochs
    return Result(directory, config, epochs, finished, seconds, test_images, columns, examples)
