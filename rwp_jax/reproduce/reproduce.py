"""`main.py --mode reproduce`: trains and evaluates the missing runs, then writes the report."""

import pathlib
from collections.abc import Callable, Sequence

import jax

from rwp_jax.errors import InputError
from rwp_jax.evaluation import table2
from rwp_jax.hardware import cost
from rwp_jax.hardware.plan import short
from rwp_jax.hardware.topology import Hardware, find_hardware, only_compile
from rwp_jax.models.precision import enable_x64_for
from rwp_jax.report.published import read_published
from rwp_jax.report.results import read_result
from rwp_jax.report.table import MISSING, Table, as_text
from rwp_jax.reproduce import run_list
from rwp_jax.reproduce.experiments import make_experiment
from rwp_jax.reproduce.hours import check_runs, device_hours
from rwp_jax.reproduce.jobs import check_jobs, train
from rwp_jax.reproduce.output import write_report
from rwp_jax.reproduce.presentation import CURVES
from rwp_jax.reproduce.run_list import Run
from rwp_jax.reproduce.scales import SCALES
from rwp_jax.runs import layout
from rwp_jax.runs.layout import COLUMNS
from rwp_jax.training import experiment, self_training, training_data
from rwp_jax.training.divergence import NonFiniteLoss
from rwp_jax.training.jax_setup import prepare

FINISHED = "finished"


def reproduce(
    name: str,
    scale: str,
    directory: pathlib.Path,
    load_config: Callable,
    *,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    only: str = "",
    show_plan: bool = False,
    target: str | None = None,
    devices: int | None = None,
    jobs: int = 1,
    curves: pathlib.Path | None = None,
) -> None:
    """Reproduces a table or figure of the paper; skips runs that are finished or in progress elsewhere.

    Args:
      name: of the experiment, see `experiments.EXPERIMENTS`.
      scale: a key of `scales.SCALES`.
      directory: parent of runs/NAME, a run's directory, which experiments share, and of
        EXPERIMENT_SCALE/, which holds report.html, CSV and PNG files.
      load_config: maps the name of a config, such as `cifar10_at:l2`, to the config.
      seeds: number of runs per setting, from seed 0; None for the experiment's default.
      overrides: [PATTERN:]KEY=VALUE, applied to the configs of all runs or of those whose names match.
      only: comma-separated shell patterns of the runs to train now; empty for all.
      show_plan: only print the runs, their state and their cost.
      target: with show_plan, hardware to estimate device-hours for; it need not be present.
      devices: number of devices of the target.
      jobs: number of runs to train at a time, on CPUs.
      curves: CSV file of published curves to draw with the learning curves, see
        `published.read_published`.

    Raises:
      InputError: for bad input, before anything is trained.
      NonFiniteLoss: at the end, if runs diverged; the report omits them.
    """
    if target is not None and not show_plan:
        raise InputError(f"target={target} needs list=, which prints the runs' device-hours on it")
    if devices is not None and target is None:
        raise InputError(f"devices={devices} needs target=")
    check_jobs(jobs)
    if show_plan:
        only_compile()
    wanted = make_experiment(name, scale)
    if curves and wanted.layout != CURVES:
        raise InputError(f"curves= is for learning curves, experiment={name} has none")
    published = read_published(curves) if curves else []
    settings = [run_list.parse_override(text) for text in overrides]
    runs = run_list.list_runs(wanted, seeds, settings, directory, load_config)
    chosen = run_list.select(runs, only or "*")
    attacks = tuple(COLUMNS) if wanted.layout == "table2" else ()
    configure = enable_x64_for if show_plan else prepare
    configure(*(run.config.dtype for run in chosen))
    _check_configs(chosen)
    if show_plan:
        hardware = None if target is None else find_hardware(target, devices)
        if hardware:
            check_runs(chosen, hardware)
        print(f"{wanted.title}, {SCALES[scale].described}")
        table = _plan_table(chosen, attacks, hardware)
        print(as_text(table))
        print(table.note)
        return
    _check_directories(runs)
    _load_data(chosen)
    unfinished = [run for run in chosen if not run.finished]
    diverged = train(unfinished, jobs) if jobs > 1 else []
    for number, run in enumerate(chosen, 1):
        print(
            f"[{number}/{len(chosen)}] {run.name}{': finished' if run.finished else ''}", flush=True
        )
        try:
            if not run.finished and jobs == 1:
                self_training.train(run.config, run.directory)
            for which in _unevaluated(run, attacks) if run.finished else ():
                table2.evaluate(run.directory, which, ",".join(attacks), 0, False)
        except NonFiniteLoss as error:
            print(f"{run.name}: {error}", flush=True)
            diverged.append(run.name)
        except layout.InUse as error:
            print(f"{run.name} is left to another process: {error}", flush=True)
        # A run's programs take thousands of memory mappings; Linux allows 65,530 per process.
        jax.clear_caches()
    if any(run.finished for run in runs):
        write_report(wanted, runs, directory / f"{name}_{scale}", overrides, published)
    elif not diverged:
        print(f"no run of {name} is finished yet: the same command writes the report once one is")
    if diverged:
        raise NonFiniteLoss(
            f"{', '.join(diverged)}: the loss became non-finite; the report leaves them out"
        )


def _check_configs(runs: Sequence[Run]) -> None:
    """Raises InputError for a run with an invalid config."""
    for run in runs:
        try:
            experiment.check_config(run.config)
        except InputError as error:
            hint = "override=PATTERN:KEY=VALUE sets keys, only= chooses runs"
            raise InputError(f"run {run.name}: {error} ({hint})") from None


def _check_directories(runs: Sequence[Run]) -> None:
    """Raises InputError if a run's directory belongs to something else.

    All runs of an experiment are checked, as its report shows every finished one.
    """
    for run in runs:
        try:
            run_list.check_directory(run)
        except InputError as error:
            hint = " (or other override=)" if "another config" in str(error) else ""
            raise InputError(f"run {run.name}: {error}{hint}") from None


def _load_data(runs: Sequence[Run]) -> None:
    """Raises InputError if a data set is missing or does not fit, before hours of training."""
    unfinished = {
        run.config.data.to_json() + run.config.extra_data.to_json(): run.config
        for run in runs
        if not run.finished
    }
    for config in unfinished.values():
        experiment.check_sizes(config, training_data.load_data(config))


def _to_evaluate(run: Run, attacks: Sequence[str]) -> list[str]:
    """Returns the checkpoints to evaluate under Table 2's attacks."""
    wanted = ["best"] + ["best_by_validation"] * bool(run.config.data.validation_examples)
    return wanted if attacks else []


def _unevaluated(run: Run, attacks: Sequence[str]) -> list[str]:
    """Returns the checkpoints of a trained run that lack some of the attacks."""
    if not attacks:
        return []
    there = read_result(run.directory).evaluations
    return [w for w in _to_evaluate(run, attacks) if not there.get(w, {}).keys() >= set(attacks)]


def _clash(run: Run) -> str:
    """Describes what a run's directory holds instead of the run; "" if it may train there."""
    try:
        run_list.check_directory(run)
    except InputError as error:
        return str(error).removeprefix(f"workdir={run.directory} ").rpartition(": ")[0]
    return ""


def _state(run: Run, attacks: Sequence[str]) -> str:
    if run.finished:
        return "trained, to evaluate" if _unevaluated(run, attacks) else FINISHED
    done = run.epochs_done
    return f"epoch {done} of {run.config.epochs}" if done else "to do"


def _plan_table(runs: Sequence[Run], attacks: tuple[str, ...], hardware: Hardware | None) -> Table:
    """Tabulates the runs with their remaining minimum device-hours on `hardware` and maximum time here.

    The maximum assumes that every gate stays open for all steps and that no attack succeeds early. It is
    known once a run of the same network is finished, from that run's operations per second. The minimum
    excludes Table 2's attacks.
    """
    clashes = {run.name: clash for run in runs if (clash := _clash(run))}
    ours = [run for run in runs if run.name not in clashes]
    hours = device_hours(ours, hardware) if hardware else [(0.0, 0.0)] * len(ours)
    rates = _rates(ours)
    rows, total, known = [], 0.0, True
    least = [0.0, 0.0]
    for run, floors in zip(ours, hours, strict=True):
        left, state = _flops_left(run, attacks), _state(run, attacks)
        least = [a + b for a, b in zip(least, floors, strict=True)]
        rate = rates.get(run.config.model.name)
        seconds = left / rate if rate else (None if left else 0.0)
        total, known = total + (seconds or 0.0), known and seconds is not None
        rows.append([run.name, state, *map(short, floors), _duration(seconds)])
    rows += [[name, clash, MISSING, MISSING, MISSING] for name, clash in clashes.items()]
    rows.append(["together", "", *map(short, least), _duration(total if known else None)])
    header = ["run", "state", "device-hours at least, k = 0", "k = K2", "time left at most"]
    if not hardware:
        rows = [[*row[:2], row[-1]] for row in rows]
        return Table(
            "", [*header[:2], header[-1]], rows, "--target, such as h100, adds device-hours"
        )
    note = (
        f"device-hours: minimum on {hardware.devices} x {hardware.chip.name}, without Table 2's "
        "attacks"
    )
    return Table("", header, rows, note)


def _flops_left(run: Run, attacks: tuple[str, ...]) -> float:
    """Returns the maximum number of operations that a run still needs."""
    config = run.config
    evaluation = cost.evaluation_flops(config, attacks)
    if run.finished:
        return evaluation * len(_unevaluated(run, attacks))
    left = cost.training_flops(config) * (1 - run.epochs_done / config.epochs)
    if not run.epochs_done:  # RST's first stage is still to run
        left += cost.teacher_flops(config)
    return left + evaluation * len(_to_evaluate(run, attacks))


def _rates(runs: Sequence[Run]) -> dict[str, float]:
    """Returns the operations per second of each network's finished runs, at the k that they took."""
    operations: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for run in (run for run in runs if run.finished):
        result = read_result(run.directory)
        k = result.mean("train_perturbation_steps")
        model = run.config.model.name
        operations[model] = operations.get(model, 0) + cost.training_flops(run.config, k)
        seconds[model] = seconds.get(model, 0) + result.seconds
    return {model: operations[model] / seconds[model] for model in operations if seconds[model]}


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
