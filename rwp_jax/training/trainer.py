"""The training loop."""

import collections
import contextlib
import itertools
import json
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from rwp_jax.data.order import epoch_indices
from rwp_jax.data.sources import Dataset
from rwp_jax.distributed import devices, processes
from rwp_jax.distributed.preemption import Interrupted, StopRequest
from rwp_jax.evaluation.accuracy import start_key
from rwp_jax.files import write_json
from rwp_jax.report.learning_curve import draw_learning_curve
from rwp_jax.runs import identity, layout, restarts
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.config import flatten
from rwp_jax.runs.metrics import MetricsWriter
from rwp_jax.runs.network_record import keep_network_record
from rwp_jax.runs.resume_point import WHICH, Position, within_epoch
from rwp_jax.training import experiment, training_data
from rwp_jax.training.divergence import check_finite
from rwp_jax.training.epoch_lines import epoch_line, gate_remark
from rwp_jax.training.profiling import Profile, check_directory
from rwp_jax.training.train_step import fetched, init_state
from rwp_jax.version import versions

LEARNING_CURVE = "learning_curve.png"
IN_FLIGHT = 3  # steps queued on the device, including the running one
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def train(
    config,
    directory: pathlib.Path,
    resume: bool = True,
    data: Dataset | None = None,
    profile: pathlib.Path | None = None,
    max_restarts: int = restarts.MOST,
) -> dict:
    """Trains as the config specifies, or continues the run in the directory if there is one.

    Args:
      config: ConfigDict with the keys of configs/default.py.
      directory: of the run; receives config.json, metrics.jsonl, TensorBoard events, checkpoints/,
        summary.json and learning_curve.png.
      resume: whether an existing run of the same config may be continued.
      data: data set to train on; by default, the one that the config names.
      profile: directory for a trace of some steps, see `profiling`; None for no trace.
      max_restarts: starts in a row that may end without a new checkpoint, see `restarts`; 0 for any number.

    Returns:
      Content of summary.json.

    Raises:
      InputError: if an input is invalid; raised before anything is compiled or written.
      NonFiniteLoss: if the loss or the weights become non-finite, see `divergence`.
      Interrupted: after SIGTERM or SIGINT, once the state is saved.
    """
    # Check all inputs.
    plain_config = json.loads(config.to_json())
    processes.check_equal("the config", flatten(plain_config))
    experiment.check_config(config, is_new=False)
    if profile:
        processes.by_first(lambda: check_directory(profile))
    resuming = processes.by_first(lambda: layout.check(directory, plain_config, resume))
    if not resuming:
        experiment.check_attack_mode(config)
    if data is None:
        data = processes.together(lambda: training_data.load_data(config))
    marks = identity.marks(plain_config, data)
    processes.check_equal("the data", marks["data"])
    experiment.check_sizes(config, data)
    with contextlib.ExitStack() as held:
        processes.by_first(lambda: held.enter_context(layout.lock(directory)))
        checkpoints = held.enter_context(contextlib.closing(Checkpoints(directory)))
        trace = held.enter_context(Profile(profile if processes.is_first() else None))
        stop = held.enter_context(StopRequest())
        processes.by_first(lambda: identity.check_records(directory, checkpoints.records(), marks))
        if processes.is_first() and not resuming:
            write_json(directory / layout.CONFIG, plain_config)  # first: this file makes it a run
        elif processes.is_first():
            layout.record_paths(directory, plain_config)
        done = max((record["step"] for record in checkpoints.records()), default=0)
        count = restarts.counted(directory, done, max_restarts)
        processes.by_first(lambda: held.enter_context(count))
        return _train(config, directory, data, marks, checkpoints, stop, trace)


def _train(
    config,
    directory: pathlib.Path,
    data: Dataset,
    marks: dict[str, Any],
    checkpoints: Checkpoints,
    stop: StopRequest,
    trace: Profile,
) -> dict:
    """Continues the run in the directory, or begins it if there is no checkpoint."""
    # Set up the run.
    mixture = training_data.mixture_of(config, data)
    parts = experiment.build(config, data.num_classes, mixture.steps)
    init_key, step_key, _ = jax.random.split(jax.random.key(config.seed), 3)
    # Weights drawn on different kinds of hosts may differ in the last bit.
    state = processes.broadcast(init_state(parts.recipe, init_key, data.x_train.shape[1:]))
    saved = _restore(checkpoints, state)
    if not saved:
        processes.by_first(lambda: identity.check_not_lost(directory))
    network = experiment.network_record(config, data)
    if processes.by_first(lambda: keep_network_record(directory, network)):
        processes.say(f"{directory}: the network's code has changed since the run began")
    position = Position.after(saved[1]) if saved else Position()
    state = devices.replicate(saved[0] if saved else state)
    if saved:
        processes.say(f"resuming {position.described(config.epochs)} in {directory}")
    started = time.monotonic() - position.seconds
    training_set = devices.replicate(training_data.training_set(config, data))
    if data.x_extra is not None:
        used = len(training_set.labels) - len(data.y_train)
        processes.say(
            f"using {len(data.y_train)} training images, {used} of {len(data.x_extra)} extra images"
        )
    evaluated = {"test": (data.x_test, data.y_test)}
    if data.x_validation is not None and data.y_validation is not None:
        evaluated["validation"] = data.x_validation, data.y_validation
    if config.evaluation.train_examples:  # at random: files may be sorted by class
        part = np.random.default_rng(0).permutation(len(data.y_train))
        part = part[: config.evaluation.train_examples]
        evaluated["train"] = data.x_train[part], data.y_train[part]
    evaluated = devices.replicate(evaluated)
    constants = devices.replicate((step_key, parts.numbers))
    attack = devices.replicate((start_key(config.seed), parts.evaluation_sizes))
    this_host = jax.process_index(), jax.process_count()
    writer = MetricsWriter(directory, position.metrics, position.epoch)

    def save_within(epoch: int, state, steps) -> dict:
        """Saves a checkpoint after these steps of an epoch; returns its record."""
        check_finite(steps, state, epoch, mixture.steps, checkpoints)
        record = {
            "step": epoch * mixture.steps + len(steps),
            "epoch": epoch,
            "seconds": time.monotonic() - started,
            "within_epoch": within_epoch(steps),
            "metrics": list(writer.records),
            **marks,
        }
        if processes.is_first():
            checkpoints.save(state, record)
        return record

    for epoch in range(position.epoch, config.epochs):
        # Train for an epoch; metrics stay on the device until its end or until a checkpoint.
        steps = list(position.steps) if epoch == position.epoch else []
        order = epoch_indices(mixture, config.seed, epoch, *this_host)
        order = itertools.islice(order, len(steps), None)
        answers: collections.deque[jax.Array] = collections.deque(maxlen=IN_FLIGHT)
        for indices in _progress(order, mixture.steps, f"epoch {epoch + 1}", len(steps)):
            sent = devices.with_flag(indices, stop.signal is not None)
            with trace.step(state):
                state, metrics, answer = parts.train_step(state, training_set, sent, *constants)
            steps.append(metrics)
            answers.append(answer)
            # Wait for the oldest of IN_FLIGHT queued steps, so that the progress shown is accurate.
            stopping = stop.asked(answers[0])
            step = epoch * mixture.steps + len(steps)
            due = config.checkpoint_steps and step % config.checkpoint_steps == 0
            if stopping or (due and len(steps) < mixture.steps):
                steps = fetched(steps)
                record = save_within(epoch, state, steps)
                if stopping:
                    _stop(stop, checkpoints, record)
        steps = fetched(steps)
        check_finite(steps, state, epoch, mixture.steps, checkpoints)

        # Evaluate on the test and validation sets, and on part of the training set for the curve.
        figures = {}
        due = (epoch + 1) % config.evaluation.every == 0 or epoch + 1 == config.epochs
        for split, (images, labels) in evaluated.items() if due else ():
            if stop.asked_anywhere():
                _stop(stop, checkpoints, save_within(epoch, state, steps))
            figures[split] = _evaluate(parts, state, images, labels, *attack)
        train_figures = {
            name: float(np.stack([step[name] for step in steps]).mean()) for name in steps[0]
        }
        train_figures["learning_rate"] = float(steps[-1]["learning_rate"])
        train_figures |= figures.pop("train", {})

        # Write metrics and a checkpoint.
        step = (epoch + 1) * mixture.steps
        seconds = time.monotonic() - started
        writer.write(epoch, step, "train", train_figures)
        for split, values in figures.items():
            writer.write(epoch, step, split, values)
        test_figures, held_figures = figures.get("test", {}), figures.get("validation", {})
        held_figures = {f"validation_{name}": value for name, value in held_figures.items()}
        record = {"step": step, "epoch": epoch, "seconds": seconds, "metrics": list(writer.records)}
        record |= test_figures | held_figures | marks
        if processes.is_first():
            checkpoints.save(state, record)
        accuracy = parts.recipe.objective.accuracy
        line = epoch_line(epoch, config, accuracy, train_figures, test_figures, seconds)
        processes.say(line)
        remark = gate_remark(config, writer.records)
        if remark:
            processes.say(remark)
        if epoch + 1 < config.epochs and stop.asked_anywhere():
            _stop(stop, checkpoints, record)

    # Write the summary.
    writer.close()
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
        draw_learning_curve(writer.records, config, directory.name, directory / LEARNING_CURVE)
    for which, record in chosen.items():
        accuracies = "imported, not evaluated"
        prefix = "ema_" if which.endswith("_ema") else ""
        if "pgd_accuracy" in record:
            accuracies = (
                f"natural {record[f'{prefix}natural_accuracy']:.2%}, "
                f"PGD-{config.evaluation.steps} {record[f'{prefix}pgd_accuracy']:.2%}"
            )
        processes.say(f"{which}: epoch {record['epoch']}, {accuracies}")
    processes.say(f"wrote {directory / layout.SUMMARY} and {directory / LEARNING_CURVE}")
    return summary


def _evaluate(parts: experiment.Parts, state, *arguments) -> dict[str, float]:
    """Returns accuracies of the weights and, if they are averaged, of the average as `ema_...`."""
    figures = parts.evaluate(state.params, state.batch_stats, *arguments)
    if state.ema is None:
        return figures
    average = parts.evaluate(state.ema.params, state.ema.batch_stats, *arguments)
    return figures | {f"ema_{name}": value for name, value in average.items()}


def _progress(iterable, total: int, description: str, done: int):
    """Wraps the iterable in a progress bar, shown only on a terminal."""
    hidden = not (processes.is_first() and sys.stderr.isatty())
    return tqdm(
        iterable, description, total, leave=False, unit="step", disable=hidden, initial=done
    )


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


def _stop(stop: StopRequest, checkpoints: Checkpoints, record: dict) -> None:
    """Raises Interrupted once all checkpoints are written."""
    processes.by_first(checkpoints.close)
    raise Interrupted(
        f"{stop.signal or 'signal to another process'}: saved {checkpoints.path(record['step'])}, after "
        f"step {record['step']} in epoch {record['epoch'] + 1}; the same command continues the run"
    )


def _summary_record(record: dict) -> dict:
    left_out = ("seconds", "step", "metrics", "digests", "files", "config", "data")
    return {key: value for key, value in record.items() if key not in left_out} | {
        "epoch": record["epoch"] + layout.FIRST_EPOCH
    }
