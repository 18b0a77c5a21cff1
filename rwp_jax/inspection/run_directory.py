"""Inspects the directory of a run: its settings, progress, checkpoints and data."""

import json
import pathlib
from typing import Any

from rwp_jax.data import sources
from rwp_jax.errors import InputError, check_path
from rwp_jax.inspection.findings import Findings, not_finite, weights
from rwp_jax.report.titles import radius
from rwp_jax.runs import identity, layout
from rwp_jax.runs.checkpoint import DIRECTORY, Checkpoints, DamagedCheckpoint
from rwp_jax.runs.config import completed, flatten
from rwp_jax.runs.history import History
from rwp_jax.runs.loaded import read_config, read_with_history
from rwp_jax.runs.metrics import FILE, read_metrics
from rwp_jax.runs.network_record import NetworkRecord, read_network_record, record_of_params
from rwp_jax.runs.resume_point import choose


def inspect_run(directory: pathlib.Path) -> Findings:
    """Inspects a run.

    All checkpoints are read and compared with the digests that were saved with them.

    Raises:
      InputError: if its config cannot be read.
    """
    config, history = read_with_history(directory)
    problems: list[str] = []
    checkpoints = Checkpoints(directory)
    try:
        records = sorted(checkpoints.records(), key=lambda record: record["step"])
        states, damages = _read(checkpoints, records)
        problems += [*damages, *checkpoints.damages()]
    finally:
        checkpoints.close()
    newest = records[-1] if records else None
    sound = [record for record in records if record["step"] in states]
    for step, state in states.items():
        bad = not_finite(_flat(state))
        problems += [f"checkpoint {checkpoints.path(step)}: {text}" for text in bad]
    record = _record(directory, states, problems)
    rows = [
        ("network", _network(config, record)),
        ("trained", _progress(config, newest)),
        *_history(history),
        ("objective", _objective(config)),
        ("threat model", f"{config.threat.norm}, {radius(config.threat.epsilon)}"),
        ("data", _data(directory, config, newest, problems)),
        *_accuracies(config, sound),
        ("checkpoints", _checkpoints(records, states)),
        *([("weights", weights(_flat(states[sound[-1]["step"]])))] if sound else []),
        ("version", _version(directory, problems)),
    ]
    _check_metrics(directory, problems)
    usage = _usage(directory, config, record, newest, bool(sound))
    return Findings("a run", rows, problems, usage)


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    inner = tree.items() if isinstance(tree, dict) else ()
    found = {}
    for key, value in inner:
        path = f"{name}/{key}" if name else str(key)
        found |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return found


def _read(checkpoints: Checkpoints, records: list) -> tuple[dict[int, dict], list[str]]:
    """Returns step -> weights of the checkpoints that are as they were saved, and what is wrong."""
    states, damages = {}, []
    for record in records:
        try:
            saved = checkpoints.load(record)
        except DamagedCheckpoint as error:
            damages.append(str(error))
            continue
        kept = {name: saved[name] for name in ("params", "batch_stats", "ema") if saved.get(name)}
        states[record["step"]] = kept
    return states, damages


def _record(directory: pathlib.Path, states: dict, problems: list[str]) -> NetworkRecord | None:
    """Returns the network's record; None if it is damaged, or of an old version and without states."""
    try:
        record = read_network_record(directory)
        if record is None and states:  # older versions wrote none
            record = record_of_params(next(iter(states.values()))["params"])
    except InputError as error:
        problems.append(str(error))
        return None
    return record


def _network(config, record: NetworkRecord | None) -> str:
    name = config.model.name
    if record is None:
        return name
    size = "x".join(str(length or "?") for length in record.image_shape)
    own = f", registered by {record.model.file or record.model.module}" if record.model else ""
    return f"{name}{own}, {record.num_classes} classes, images {size}"


def _progress(config, newest: dict | None) -> str:
    if newest is None:
        return f"nothing saved yet, of {config.epochs} epochs"
    if newest["epoch"] < 0:
        return f"0 of {config.epochs} epochs, only the weights that it begins with are saved"
    if "within_epoch" in newest:
        return f"{newest['epoch']} of {config.epochs} epochs and a part of the next (step {newest['step']})"
    epochs = newest["epoch"] + 1
    imported = ", imported" if not newest.get("metrics") else ""
    end = ", finished" if epochs == config.epochs else ""
    return f"{epochs} of {config.epochs} epochs (step {newest['step']}){end}{imported}"


def _history(history: History) -> list[tuple[str, str]]:
    """Describes what the weights began from, and each change of the config."""
    rows = []
    if history.init_from:
        begun = history.init_from
        from_where = f"{begun.get('source')} {begun.get('checkpoint', '')}".rstrip()
        rows.append(("began with", f"weights of {from_where}, digest {begun.get('digest')}"))
    changes = [change.described() for change in history.changes]
    return rows + [("changed" if not i else "", line) for i, line in enumerate(changes)]


def _objective(config) -> str:
    perturbation = config.weight_perturbation
    kind = perturbation.name
    gamma = f" (gamma {perturbation.gamma:g})" if kind != "none" else ""
    return f"{config.objective.name}, weight perturbation {kind}{gamma}"


def _data(directory: pathlib.Path, config, newest: dict | None, problems: list[str]) -> str:
    data = config.data
    words = [data.name]
    if data.name in sources.NAMED:
        size = sources.size_of_named(data)
        shape = "x".join(map(str, size.image_shape))
        words.append(f"{size.train:,} train and {size.test:,} test images {shape}")
        words.append(f"{size.num_classes} classes")
    digests = (newest or {}).get("data", {})
    if data.name in ("digits", "npz"):
        words += _file(directory, config, digests, problems)
    if digests:
        words.append(f"digest of x_train {digests.get('x_train', '?')}")
    return ", ".join(words)


def _file(directory: pathlib.Path, config, digests: dict, problems: list[str]) -> list[str]:
    """Describes data that can be read at once, and compares them with those of the training."""
    path = config.data.path
    try:
        if path and not check_path("config.data.path", path).is_file():
            return [f"{path} (not there now: give --config.data.path)"]
        data = sources.load(**config.data.to_dict())
        identity.check_data("the run", digests, data)
    except InputError as error:
        problems.append(str(error))
        return [path] if path else []
    if not path:
        return []
    shape = "x".join(map(str, data.x_train.shape[1:]))
    return [
        path,
        f"{len(data.x_train):,} train and {len(data.x_test):,} test images {shape}",
        f"{data.num_classes} classes",
    ]


def _accuracies(config, records: list) -> list[tuple[str, str]]:
    """Describes the best and the last whole epoch among the intact checkpoints."""
    whole = [record for record in records if "within_epoch" not in record]
    rows = []
    for which in ("best", "last"):
        record = choose(which, whole)
        if record and "pgd_accuracy" in record:
            natural, pgd = record.get("natural_accuracy"), record["pgd_accuracy"]
            first = f"natural {natural:.2%}, " if natural is not None else ""
            steps = record.get("config", {}).get("evaluation.steps", config.evaluation.steps)
            text = f"epoch {record['epoch'] + 1}, {first}PGD-{steps} {pgd:.2%}"
            rows.append((which, text))
    return rows


def _checkpoints(records: list, states: dict) -> str:
    if not records:
        return "none"
    return ", ".join(
        f"step {record['step']}{'' if record['step'] in states else ' (damaged)'}"
        for record in records
    )


def _version(directory: pathlib.Path, problems: list[str]) -> str:
    path = directory / layout.SUMMARY
    if not path.exists():
        return "not stated before training ends"
    try:
        versions = json.loads(path.read_text()).get("versions", {})
        commit = f" (commit {versions['commit']})" if versions.get("commit") else ""
        others = ", ".join(
            f"{name} {versions[name]}" for name in ("jax", "python") if name in versions
        )
        return f"rwp-jax {versions.get('rwp-jax', 'unknown')}{commit}" + (
            f", {others}" if others else ""
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        problems.append(f"{path} cannot be read ({type(error).__name__})")
        return "unknown"


def _check_metrics(directory: pathlib.Path, problems: list[str]) -> None:
    path = directory / FILE
    if not path.exists():
        return
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    whole = len(read_metrics(directory))
    if whole < len(lines) - 1:  # a kill may cut the last line short; training repairs it
        problems.append(f"{path}: line {whole + 1} of {len(lines)} is damaged")


def _usage(
    directory: pathlib.Path,
    config,
    record: NetworkRecord | None,
    newest: dict | None,
    sound: bool,
) -> list[str]:
    lines = []
    done = newest is not None and "within_epoch" not in newest
    if not done or newest["epoch"] + 1 < config.epochs:
        lines.append(
            f"MAIN --config FILE --workdir {directory}  (continues; FILE: the run's config)"
        )
    if sound:
        lines.append(f"MAIN --mode evaluate --workdir {directory}")
        if record and not record.model:  # a registered network has no names in PyTorch
            lines.append(f"MAIN --mode export_torch --workdir {directory} --output FILE")
    return lines or [f"nothing is left in {directory / DIRECTORY}: restore it from a copy"]


def compare(directory: pathlib.Path, config) -> list[tuple[str, str]]:
    """Lists the keys in which a run's config differs from another one, with both values."""
    held, wanted = flatten(read_config(directory).to_dict()), flatten(completed(config.to_dict()))
    lines = [
        f"{key}: {held.get(key, 'missing')!r} in the run, {wanted.get(key, 'missing')!r} in --config"
        for key in sorted(held.keys() | wanted.keys())
        if _plain(held.get(key, "missing")) != _plain(wanted.get(key, "missing"))
    ]
    if not lines:
        return [("--config", "the run's own: no key differs")]
    return [("differences" if not i else "", line) for i, line in enumerate(lines)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
