"""What a run's directory says about it: config, accuracies of every epoch, evaluations."""

import json
import pathlib
from typing import Any, NamedTuple

import ml_collections

from rwp_jax import selection, workdir
from rwp_jax.errors import InputError
from rwp_jax.metrics import FILE, read_metrics
from rwp_jax.robustness import DIRECTORY, JSON

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
      epochs: one record an epoch, in order: `epoch` (from 0), figures on the test set by their names
        (`natural_accuracy`, `pgd_accuracy`, in [0, 1]), those of training as `train_...` and on held-out
        images as `validation_...`.
      finished: whether all epochs are there.
      seconds: that it took, None while unfinished.
      evaluations: checkpoint -> the columns of its evaluation.json, of whole test sets only.
      test_examples: images of the evaluations, None where there is none.
    """

    directory: pathlib.Path
    config: ml_collections.ConfigDict
    epochs: list[dict[str, Any]]
    finished: bool
    seconds: float | None
    evaluations: dict[str, dict[str, dict]]
    test_examples: int | None

    def figure(self, which: str, name: str) -> float | None:
        """The figure `name` of the epoch that `which` means, None where there is none."""
        record = selection.choose(which, self.epochs)
        return record.get(name) if record else None

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs (from 1) and values of a figure, where it was measured."""
        points = [(e["epoch"] + 1, e[name]) for e in self.epochs if name in e]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def mean(self, name: str) -> float | None:
        """Mean of a figure over all epochs."""
        values = self.curve(name)[1]
        return sum(values) / len(values) if values else None


def _read_json(path: pathlib.Path) -> Any:
    """The content of a file, None where there is none to read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _epochs(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl with a test accuracy, the splits of an epoch in one."""
    epochs: dict[int, dict] = {}
    for record in read_metrics(directory):
        merged = epochs.setdefault(record["epoch"], {"epoch": record["epoch"]})
        prefix = SPLITS[record["split"]]
        merged |= {
            prefix + name: value
            for name, value in record.items()
            if name not in ("epoch", "step", "split")
        }
    return [record for _, record in sorted(epochs.items()) if "pgd_accuracy" in record]


def read_result(directory: pathlib.Path, key: str = "--workdirs") -> Result:
    """Reads a run's directory.

    Raises:
      InputError: where it holds no run or no epoch of it; the message begins with `key`.
    """
    config = _read_json(directory / workdir.CONFIG)
    try:
        epochs = _epochs(directory)
    except (KeyError, TypeError, OSError):
        raise InputError(
            f"{key}: {directory / FILE} has lines that are no metrics of a run"
        ) from None
    if not isinstance(config, dict) or not epochs:
        lacks = FILE if isinstance(config, dict) else workdir.CONFIG
        raise InputError(f"{key}: {directory} holds no run with metrics (no readable {lacks})")
    summary = _read_json(directory / workdir.SUMMARY)
    found = {path.parent.name: _read_json(path) for path in directory.glob(f"{DIRECTORY}/*/{JSON}")}
    # Directories of evaluations on some images only are named WHICH_N.
    whole = {
        which: content for which, content in found.items() if which in selection.WHICH and content
    }
    config = ml_collections.ConfigDict(config)
    return Result(
        directory,
        config,
        epochs,
        finished=summary is not None and len(epochs) >= config.epochs,
        seconds=summary["seconds"] if summary else None,
        evaluations={which: content["columns"] for which, content in whole.items()},
        test_examples=next((content["examples"] for content in whole.values()), None),
    )
