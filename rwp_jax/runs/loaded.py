"""The network that a run trained, from its directory or the zoo."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections

from rwp_jax.distributed import devices
from rwp_jax.errors import InputError
from rwp_jax.models.classifier import Classifier, channels_and_classes, make_classifier
from rwp_jax.runs import layout, zoo
from rwp_jax.runs.checkpoint import DIRECTORY, Checkpoints
from rwp_jax.runs.config import completed
from rwp_jax.runs.resume_point import WHICH


class FinishedRun(NamedTuple):
    """A trained network.

    Attributes:
      config: of the run.
      epoch: after which the checkpoint was saved, counted from 0.
      classifier: the network's functions.
      params: its parameters, on all devices of this host.
      batch_stats: its running statistics, likewise.
      channels: of the images that it takes.
      num_classes: that it tells apart.
      saved: the training state as it was saved, nested dicts of NumPy arrays.
    """

    config: ml_collections.ConfigDict
    epoch: int
    classifier: Classifier
    params: Any
    batch_stats: Any
    channels: int
    num_classes: int
    saved: dict[str, Any]


def read_config(directory: pathlib.Path) -> ml_collections.ConfigDict:
    """Reads the config of a run; raises InputError where the directory holds none."""
    if str(directory).startswith(zoo.PREFIX):
        raise InputError(
            f"--workdir={directory} is a network of the zoo, which has no directory to write to: "
            "load_run takes it, and so does --mode=pseudo_label"
        )
    try:
        content = json.loads((directory / layout.CONFIG).read_text())
        config = ml_collections.ConfigDict(completed(content))
        _ = config.dtype, config.model.name, config.model.mean, config.model.std
        _ = config.seed, config.parallel, config.data.name
        _ = config.threat.norm
        numbers = config.evaluation.batch_size, config.evaluation.step_size, config.threat.epsilon
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError
        return config
    except (OSError, ValueError, TypeError, AttributeError):
        raise InputError(
            f"--workdir={directory} holds no run: no readable {layout.CONFIG}, or keys are missing in it "
            "or of another type"
        ) from None


def _check_summary(directory: pathlib.Path, which: str, record: dict, damages: list[str]) -> None:
    """Raises InputError where the run, finished, chose a checkpoint that is not there any more."""
    try:
        epoch = json.loads((directory / layout.SUMMARY).read_text())[which]["epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if epoch != record["epoch"]:
        why = f" ({damages[0]})" if damages else ""
        raise InputError(
            f"--checkpoint={which} of {directory} was after epoch {epoch + 1} and is lost{why}: the "
            "training command makes it again from the one before"
        )


def load_run(directory: pathlib.Path | str, which: str = "best") -> FinishedRun:
    """Loads a checkpoint of a run, finished or not, or a network of the zoo.

    Predictions are in float32, in float64 where the run was.

    Args:
      directory: of the run; or `zoo:NAME`, of which there is one checkpoint, whatever `which` says.
      which: one of `resume_point.WHICH`.

    Raises:
      InputError: where the directory holds no run or the run no checkpoint; for a name that is not in the
        zoo.
    """
    if which not in WHICH:
        raise InputError(f"--checkpoint={which} must be one of {', '.join(WHICH)}")
    if str(directory).startswith(zoo.PREFIX):
        return _from_zoo(str(directory))
    directory = pathlib.Path(directory)
    config = read_config(directory)
    if not (directory / DIRECTORY).is_dir():
        raise InputError(f"--workdir={directory} holds a run without checkpoints")
    if config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    checkpoints = Checkpoints(directory)
    record = checkpoints.find(which)
    if record is None and checkpoints.find("last"):
        lacks = "held no images out for validation" if "valid" in which else "averaged no weights"
        if config.data.get("validation_examples") if "valid" in which else config.get("ema_decay"):
            lacks = f"is not evaluated yet, config.evaluation.every being {config.evaluation.every}"
        raise InputError(f"--checkpoint={which}: the run in {directory} {lacks}")
    if record is None:
        why = f": {checkpoints.damages()[0]}" if checkpoints.damages() else ""
        raise InputError(f"--workdir={directory} holds a run without checkpoints{why}")
    if "pgd_accuracy" not in record and which == "best" and config.evaluation.every > 1:
        print(
            f"{directory}: no epoch is evaluated yet: the newest stands in for the best", flush=True
        )
    _check_summary(directory, which, record, checkpoints.damages())
    for why in checkpoints.damages():
        print(f"{why}: {which} is the one after epoch {record['epoch'] + 1}", flush=True)
    saved = checkpoints.load(record)
    checkpoints.close()
    weights = saved["ema"] if which.endswith("_ema") else saved
    return _finished_run(config, record["epoch"], weights, saved)


def _finished_run(config, epoch: int, weights: dict, saved: dict) -> FinishedRun:
    """The network of a config with these `params` and `batch_stats`."""
    channels, num_classes = channels_and_classes(weights["params"])
    model, dtype = config.model, "float64" if config.dtype == "float64" else "float32"
    classifier = make_classifier(
        model.name, num_classes, tuple(model.mean), tuple(model.std), dtype=dtype
    )
    params, batch_stats = devices.replicate_on_this_host(
        (weights["params"], weights["batch_stats"])
    )
    return FinishedRun(config, epoch, classifier, params, batch_stats, channels, num_classes, saved)


def _from_zoo(name: str) -> FinishedRun:
    card = zoo.read_card(name)
    network = zoo.read_network(card)
    if card.config["dtype"] == "float64":
        jax.config.update("jax_enable_x64", True)
    return _finished_run(ml_collections.ConfigDict(card.config), card.epoch, network, network)
