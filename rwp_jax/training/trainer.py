"""The training loop."""

import contextlib
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from rwp_jax.data.sources import Dataset
from rwp_jax.distributed import devices, processes
from rwp_jax.distributed.preemption import StopRequest
from rwp_jax.files import write_json
from rwp_jax.report.learning_curve import draw_learning_curve
from rwp_jax.runs import extension, history, identity, layout, restarts
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.config import flatten
from rwp_jax.runs.history import History
from rwp_jax.runs.initial_weights import InitialWeights
from rwp_jax.runs.metrics import MetricsWriter
from rwp_jax.runs.network_record import keep_network_record
from rwp_jax.runs.resume_point import WHICH, Position
from rwp_jax.training import experiment, fine_tuning, training_data
from rwp_jax.training.epochs import Run, keys_of, make_stage, read_config, train_stage
from rwp_jax.training.profiling import Profile, check_directory
from rwp_jax.training.train_step import init_state
from rwp_jax.version import commit, versions

LEARNING_CURVE = "learning_curve.png"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def check_run(
    config, directory: pathlib.Path, resume: bool, extend: bool, init_from: InitialWeights | None
) -> bool:
    """Returns whether the directory holds a run to continue; raises InputError if it may not go on."""
    plain_config = json.loads(config.to_json())
    resuming = processes.by_first(lambda: extension.check(directory, plain_config, resume, extend))
    processes.by_first(lambda: fine_tuning.check_given(directory, resuming, init_from))

    def attacks_differently() -> bool:
        held, wanted = flatten(history.read(directory)[0]), flatten(plain_config)
        return any(held.get(key) != wanted[key] for key in ("attack.bn", "objective.name"))

    if not resuming or processes.by_first(attacks_differently):
        experiment.check_attack_mode(config)
    return resuming


def train(
    config,
    directory: pathlib.Path,
    resume: bool = True,
    data: Dataset | None = None,
    profile: pathlib.Path | None = None,
    max_restarts: int = restarts.MOST,
    extend: bool = False,
    init_from: InitialWeights | None = None,
) -> dict:
    """Trains as the config specifies, or continues the run in the directory if there is one.

    Args:
      config: ConfigDict with the keys of configs/default.py.
      directory: of the run; receives config.json, metrics.jsonl, TensorBoard events, checkpoints/,
        summary.json and learning_curve.png.
      resume: whether an existing run of the same config may be continued.
      data: data set to train on; by default, the one that the config names.
      profile: directory for a trace of some steps, see `profiling`; None for no trace.
      max_restarts: restarts in a row that may end without a new checkpoint, see `restarts`; 0 for any
        number.
      extend: whether the existing run may have another config, see `extension`.
      init_from: weights that a new run begins with, read by the first process; None for drawn weights.

    Returns:
      Content of summary.json.

    Raises:
      InputError: if an input is invalid; raised before anything is compiled or written.
      NonFiniteLoss: if the loss or the weights become non-finite, see `divergence`.
      Interrupted: after SIGTERM or SIGINT, once the state is saved.
    """
    commit()

    # Check all inputs.
    plain_config = json.loads(config.to_json())
    processes.check_equal("the config", flatten(plain_config))
    experiment.check_config(config, is_new=False)
    if profile:
        processes.by_first(lambda: check_directory(profile))
    resuming = check_run(config, directory, resume, extend, init_from)
    if data is None:
        data = processes.together(lambda: training_data.load_data(config))
    marks = identity.marks(plain_config, data)
    processes.check_equal("the data", marks["data"])
    experiment.check_sizes(config, data)
    sizes = data.num_classes, data.x_train.shape[1:]
    processes.by_first(lambda: init_from and fine_tuning.check_fit(config, init_from, *sizes))
    steps = lambda flat: training_data.mixture_of(read_config(flat), data).steps
    with contextlib.ExitStack() as held:
        processes.by_first(lambda: held.enter_context(layout.lock(directory)))
        checkpoints = held.enter_context(contextlib.closing(Checkpoints(directory)))
        trace = held.enter_context(Profile(profile if processes.is_first() else None))
        stop = held.enter_context(StopRequest())
        if processes.is_first() and not resuming:  # first: this file makes it a run
            history.write(directory, plain_config, fine_tuning.history_of(init_from))
        kept = processes.by_first(
            lambda: extension.continued(directory, plain_config, checkpoints, steps).as_json()
        )
        past = History.of(kept)
        processes.by_first(
            lambda: identity.check_records(directory, checkpoints.records(), marks, past)
        )

        def count_start() -> None:
            done = (checkpoints.newest() or {"step": 0})["step"]
            held.enter_context(restarts.counted(directory, done, max_restarts))

        processes.by_first(count_start)
        return _train(config, directory, data, marks, past, checkpoints, stop, trace, init_from)


def _train(
    config,
    directory: pathlib.Path,
    data: Dataset,
    marks: dict[str, Any],
    past: History,
    checkpoints: Checkpoints,
    stop: StopRequest,
    trace: Profile,
    init_from: InitialWeights | None,
) -> dict:
    """Continues the run in the directory, or begins it if there is no checkpoint."""
    # Set up the run.
    stretches = list(past.stretches(marks["config"]))
    newest = make_stage(config, stretches[-1], data)
    init_key, _ = keys_of(stretches[0].config["seed"])
    # Weights drawn on different kinds of hosts may differ in the last bit.
    state = processes.broadcast(init_state(newest.parts.recipe, init_key, data.x_train.shape[1:]))
    saved = _restore(checkpoints, state)
    if not saved:
        processes.by_first(lambda: identity.check_not_lost(directory))
    network = experiment.network_record(config, data)
    if processes.by_first(lambda: keep_network_record(directory, network)):
        processes.say(f"{directory}: the network's code has changed since the run began")
    position = Position.after(saved[1]) if saved else Position()
    remaining = [stretch for stretch in stretches if position.epoch < stretch.end]
    stages = [newest if s is stretches[-1] else make_stage(config, s, data) for s in remaining]
    for line in processes.by_first(lambda: history.record(directory, marks["config"], past)):
        processes.say(line)
    if saved:
        state = devices.replicate(saved[0])
        processes.say(f"resuming {position.described(config.epochs)} in {directory}")
    else:
        begun = marks | {"config": past.config_at(marks["config"], -1)}
        state = _begin(config, data, state, checkpoints, begun, init_from)
    began, shared = time.monotonic() - position.seconds, {"data": marks["data"]}
    with contextlib.closing(MetricsWriter(directory, position.metrics, position.epoch)) as writer:
        run = Run(data, shared, config.epochs, checkpoints, writer, stop, trace, began)
        for stage in stages:
            state = train_stage(run, stage, state, position)

    # Write the summary.
    found = processes.by_first(lambda: {which: checkpoints.find(which) for which in WHICH})
    records = {which: record for which, record in found.items() if record}
    chosen = {which: _summary_record(record) for which, record in records.items()}
    summary = {
        **chosen,
        layout.COUNTED_FROM: layout.FIRST_EPOCH,
        "seconds": round(records["last"]["seconds"], 1),
        "devices": {"count": jax.device_count(), "kind": jax.devices()[0].device_kind},
        "versions": versions(PACKAGES),
    }
    checkpoints.close()
    if processes.is_first():
        write_json(directory / layout.SUMMARY, summary)
        picture = directory / LEARNING_CURVE
        draw_learning_curve(writer.records, newest.config, directory.name, picture, past)
    for which, record in chosen.items():
        accuracies = "imported, not evaluated"
        prefix = "ema_" if which.endswith("_ema") else ""
        if "pgd_accuracy" in record:
            accuracies = (
                f"natural {record[f'{prefix}natural_accuracy']:.2%}, "
                f"PGD-{newest.config.evaluation.steps} {record[f'{prefix}pgd_accuracy']:.2%}"
            )
        if which.startswith("best_by_validation") and "validation_attack" in record:
            accuracies += f", chosen by {record['validation_attack']} on held-out images"
        processes.say(f"{which}: epoch {record['epoch']}, {accuracies}")
    processes.say(f"wrote {directory / layout.SUMMARY} and {directory / LEARNING_CURVE}")
    return summary


def _begin(config, data: Dataset, state, checkpoints: Checkpoints, marks, init_from):
    """Returns the state that a run begins with, on all devices, from the drawn one.

    Given weights are saved before the first step, so that the run does not depend on their source.
    """
    if not processes.by_first(lambda: init_from is not None):
        return devices.replicate(state)
    if processes.is_first():
        state = fine_tuning.begun_with(config, init_from, state, data)
    state = devices.replicate(processes.broadcast(jax.device_get(state)))
    record = {"step": 0, "epoch": -1, "within_epoch": {}, "seconds": 0.0, "metrics": [], **marks}
    if processes.is_first():
        checkpoints.save(state, record)
        checkpoints.wait()
    return state


def _restore(checkpoints: Checkpoints, like) -> tuple[Any, dict] | None:
    """Returns the newest undamaged checkpoint, read by the first process; None if there is none."""
    state = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)

    def read() -> dict | None:
        nonlocal state
        state, record = checkpoints.restore_newest(like) or (state, None)
        return record

    record = processes.by_first(read)
    if record is None:
        return None
    return processes.broadcast(state), record


def _summary_record(record: dict) -> dict:
    left_out = ("seconds", "step", "metrics", "digests", "files", "config", "data")
    return {key: value for key, value in record.items() if key not in left_out} | {
        "epoch": record["epoch"] + layout.FIRST_EPOCH
    }
