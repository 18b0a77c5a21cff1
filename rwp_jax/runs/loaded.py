"""Loads the network of a run from its directory, or a network of the zoo."""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping

import ml_collections

from rwp_jax.distributed import devices
from rwp_jax.errors import InputError, RunWarning, check_path, first_line, named_in
from rwp_jax.models.classifier import Classifier, make_classifier
from rwp_jax.models.fingerprint import fingerprint
from rwp_jax.models.precision import require_x64
from rwp_jax.runs import layout, zoo
from rwp_jax.runs.checkpoint import DIRECTORY, Checkpoints
from rwp_jax.runs.config import PATHS, completed, flatten, network_settings, unflatten
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.history import History
from rwp_jax.runs.network_record import (
    NetworkRecord,
    check_shapes,
    read_network_record,
    record_of_params,
    require_model,
)
from rwp_jax.runs.resume_point import WHICH


def read_config(directory: pathlib.Path) -> ml_collections.ConfigDict:
    """Reads the newest config of a run; raises InputError if the directory holds no run."""
    return read_with_history(directory)[0]


def read_with_history(directory: pathlib.Path) -> tuple[ml_collections.ConfigDict, History]:
    """Reads the newest config of a run and its history; raises InputError if the directory holds no run."""
    zoo.refuse(directory)
    path = directory / layout.CONFIG
    if not path.is_file():
        raise InputError(f"workdir={directory} holds no run: {_lacking(directory)}")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"workdir={directory} holds no run: its {layout.CONFIG} cannot be read ({first_line(error)})"
        ) from None
    try:
        config, history = ml_collections.ConfigDict(completed(content)), History.of(content)
        _ = config.dtype, config.model.name, config.model.mean, config.model.std
        _ = config.seed, config.parallel, config.data.name
        _ = config.threat.norm
        numbers = config.evaluation.batch_size, config.evaluation.step_size, config.threat.epsilon
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError
        return config, history
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"workdir={directory} holds no run: in its {layout.CONFIG} a key is missing or of the wrong "
            f"type ({first_line(error)})"
        ) from None


def _lacking(directory: pathlib.Path) -> str:
    """Explains why a directory without a config is not that of a run."""
    if not directory.exists():
        return "it does not exist"
    if not directory.is_dir():
        return "it is a file, not a run's directory"
    if (directory / "runs").is_dir():
        return f"there is no {layout.CONFIG} in it; runs of --mode=reproduce are in {directory / 'runs'}"
    return f"there is no {layout.CONFIG} in it"


def config_of(workdir: pathlib.Path | str) -> ml_collections.ConfigDict:
    """Returns the config of a run's directory or of a network of the zoo, as `load_run` takes them."""
    if str(workdir).startswith(zoo.PREFIX):
        return ml_collections.ConfigDict(completed(zoo.read_card(str(workdir)).config))
    return read_config(check_path("workdir", workdir))


def _check_summary(
    directory: pathlib.Path, which: str, record: dict, damages: list[str], epochs: int
) -> None:
    """Raises InputError if the checkpoint that the finished run selected no longer exists."""
    try:
        summary = layout.finished(directory, epochs) or {}
        epoch = layout.from_0(summary[which]["epoch"], summary)
    except (KeyError, TypeError):
        return
    if epoch != record["epoch"]:
        why = f" ({damages[0]})" if damages else ""
        raise InputError(
            f"checkpoint={which} of {directory} was after epoch {epoch + 1} and is lost{why}: the "
            "training command recreates it from an earlier one"
        )


def _warn(message: str, calls: int) -> None:
    """Warns with the line that called load_run, `calls` frames above the caller, as the location."""
    warnings.warn(message, RunWarning, stacklevel=calls + 2)


def load_run(
    workdir: pathlib.Path | str,
    checkpoint: str | None = None,
    paths: Mapping[str, str] | None = None,
) -> FinishedRun:
    """Loads a checkpoint of a run, finished or not, or a network of the zoo.

    Predictions are in float32, or float64 if the run was trained in float64. A user-defined network is
    imported from the module that registered it. If the config changed during the run, the loaded run has
    that of the checkpoint's epoch.

    Args:
      workdir: directory of the run; or `zoo:NAME`, which has only the checkpoint that its card names.
      checkpoint: `best` (the default for a run), `last` or `best_by_validation`; `best_ema`, `last_ema` or
        `best_by_validation_ema` for averaged weights.
      paths: where the run's data are now, by the config's keys: {"data.path": "new.npz"}.

    Returns:
      `FinishedRun`, which reads the data set when it is first used.

    Raises:
      InputError: if the directory holds no run, the run or the zoo has no such checkpoint, the name is not
        in the zoo, the run is in float64 without jax_enable_x64, or the network's module cannot be
        imported.
      RunWarning: a warning, issued if another epoch replaces a damaged one, no epoch has been evaluated
        yet, or the code of the network has changed.
    """
    if checkpoint is not None and (not isinstance(checkpoint, str) or checkpoint not in WHICH):
        raise InputError(f"checkpoint={checkpoint} must be one of {', '.join(WHICH)}")
    if str(workdir).startswith(zoo.PREFIX):
        return _from_zoo(str(workdir), checkpoint)
    checkpoint = checkpoint or "best"
    directory = check_path("workdir", workdir)
    config, history = read_with_history(directory)
    strange = sorted((paths or {}).keys() - PATHS)
    if strange:
        raise InputError(f"paths= has {strange[0]!r}, must have some of {', '.join(PATHS)}")
    config.update_from_flattened_dict(dict(paths or {}))
    if not (directory / DIRECTORY).is_dir():
        raise InputError(f"workdir={directory} holds a run without checkpoints")
    if config.dtype == "float64":
        require_x64(f"workdir={directory}, trained in float64,")
    network = read_network_record(directory)
    require_model(directory, config.model.name, network)
    record, saved = read_checkpoint(directory, checkpoint, config)
    weights = saved["ema"] if checkpoint.endswith("_ema") else saved
    if history.changes:
        flat = history.config_at(flatten(config.to_dict()), record["epoch"])
        config = ml_collections.ConfigDict(unflatten(flat))
    return dataclasses.replace(
        _finished_run(config, record["epoch"], weights, saved, network),
        history=history,
        source=f"workdir={directory}",
        data_digests=record.get("data", {}),
    )


def read_checkpoint(directory: pathlib.Path, which: str, config) -> tuple[dict, dict]:
    """Returns record and arrays of a checkpoint; raises InputError if the run has none of that name.

    `config` is the run's newest config.
    """
    checkpoints = Checkpoints(directory)
    record = checkpoints.find(which)
    if record is None and checkpoints.find("last"):
        lacks = (
            "has no held-out images for validation" if "valid" in which else "averaged no weights"
        )
        if config.data.get("validation_examples") if "valid" in which else config.get("ema_decay"):
            lacks = (
                f"has not been evaluated yet (config.evaluation.every={config.evaluation.every})"
            )
        raise InputError(f"checkpoint={which}: the run in {directory} {lacks}")
    if record is None:
        why = f": {checkpoints.damages()[0]}" if checkpoints.damages() else ""
        raise InputError(f"workdir={directory} holds a run without checkpoints{why}")
    if "pgd_accuracy" not in record and which == "best" and config.evaluation.every > 1:
        _warn(f"{directory}: no epoch has been evaluated yet: best is the newest", calls=2)
    _check_summary(directory, which, record, checkpoints.damages(), config.epochs)
    for why in checkpoints.damages():
        _warn(f"{why}: {which} is the one after epoch {record['epoch'] + 1}", calls=2)
    saved = checkpoints.load(record)
    checkpoints.close()
    return record, saved


def _finished_run(
    config, epoch: int, weights: dict, saved: dict, network: NetworkRecord | None = None
) -> FinishedRun:
    """Builds the network of a config with the `params` and `batch_stats` of `weights`."""
    if network is None:
        network = record_of_params(weights["params"])
    settings = network_settings(config.model)
    dtype = "float64" if config.dtype == "float64" else "float32"
    with named_in("config.model", " ".join(settings), dtype="config"):
        classifier = make_classifier(num_classes=network.num_classes, dtype=dtype, **settings)
    # Checkpoints of networks without batch statistics have none.
    variables = weights["params"], weights.get("batch_stats", {})
    code = ""
    if network.model:
        check_shapes(classifier, network, variables)
        code = _code(config.model.name, classifier, network)
    params, batch_stats = devices.replicate_on_this_host(variables)
    return FinishedRun(
        config,
        epoch,
        classifier,
        params,
        batch_stats,
        network.image_shape,
        network.num_classes,
        saved,
        code,
    )


def _code(name: str, classifier: Classifier, network: NetworkRecord) -> str:
    """Returns the digest of a user-defined network; warns if it changed since training began."""
    now, begun = fingerprint(classifier, network.image_shape), network.program
    if begun is None:
        return now.sha256
    if begun.differs(now):
        where = network.model.file or network.model.module if network.model else ""
        _warn(
            f"the network {name!r} of {where} has changed since the run began: it computes something else "
            "from the same weights",
            calls=3,
        )
        return now.sha256
    return begun.sha256  # also if other versions trace the same code to another program


def _from_zoo(name: str, checkpoint: str | None) -> FinishedRun:
    card = zoo.read_card(name)
    if checkpoint not in (None, card.checkpoint):
        raise InputError(f"checkpoint={checkpoint}: {name} has only {card.checkpoint}")
    config = ml_collections.ConfigDict(completed(card.config))
    if config.dtype == "float64":
        require_x64(f"{name}, trained in float64,")
    network = zoo.read_weights(card)
    return _finished_run(config, card.epoch, network, network)
