"""Trains the epochs of a run that have the same config: steps, evaluation, metrics and checkpoints."""

import collections
import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from rwp_jax.data.order import Mixture, epoch_indices
from rwp_jax.data.sources import Dataset
from rwp_jax.data.stored import StoredImages
from rwp_jax.data.stream import read_ahead, warm
from rwp_jax.distributed import devices, processes
from rwp_jax.distributed.preemption import Interrupted, StopRequest
from rwp_jax.evaluation.accuracy import start_key
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.config import flatten, unflatten
from rwp_jax.runs.history import Stretch
from rwp_jax.runs.metrics import MetricsWriter
from rwp_jax.runs.resume_point import Position, within_epoch
from rwp_jax.training import experiment, training_data
from rwp_jax.training.divergence import check_finite
from rwp_jax.training.epoch_lines import epoch_line, gate_remark, start_remark
from rwp_jax.training.profiling import Profile
from rwp_jax.training.train_step import TrainState, fetched

IN_FLIGHT = 3  # steps queued on the device, including the running one


class Run(NamedTuple):
    """What all stages of a run share.

    Attributes:
      data: its data set.
      digests: `data` of the marks of its checkpoints, see `identity.marks`.
      epochs: number of its epochs.
      checkpoints: its checkpoints.
      writer: writes its metrics.
      stop: tells whether it was asked to stop.
      trace: traces some of its steps.
      started: time at which it would have begun without interruptions, on the monotonic clock.
    """

    data: Dataset
    digests: dict[str, dict]
    epochs: int
    checkpoints: Checkpoints
    writer: MetricsWriter
    stop: StopRequest
    trace: Profile
    started: float


class Stage(NamedTuple):
    """Epochs of a run that have the same config.

    Attributes:
      config: their config.
      stretch: which epochs they are.
      mixture: how their batches are drawn.
      parts: parts of the run.
    """

    config: ml_collections.ConfigDict
    stretch: Stretch
    mixture: Mixture
    parts: experiment.Parts

    def steps_before(self, epoch: int) -> int:
        """Returns the number of training steps before one of these epochs."""
        return self.stretch.steps_before + (epoch - self.stretch.first) * self.mixture.steps


def keys_of(seed: int) -> tuple[jax.Array, jax.Array]:
    """Returns the random keys of a run's initial weights and of its steps."""
    init_key, step_key, _ = jax.random.split(jax.random.key(seed), 3)
    return init_key, step_key


def read_config(flat: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns a config stored by dotted key."""
    return ml_collections.ConfigDict(unflatten(flat))


def make_stage(config, stretch: Stretch, data: Dataset) -> Stage:
    """Builds the parts of a stretch of epochs; nothing is compiled.

    Args:
      config: newest config of the run.
      stretch: the epochs.
      data: data set of the run.

    Raises:
      InputError: if a config that the run had earlier does not fit the devices.
    """
    if stretch.config != flatten(json.loads(config.to_json())):
        config = read_config(stretch.config)
        experiment.check_values(config)
    mixture = training_data.mixture_of(config, data)
    # Schedules count steps as if all epochs had as many as these.
    shift = stretch.first * mixture.steps - stretch.steps_before
    streamed = training_data.is_streamed(config, data)
    parts = experiment.build(config, data.num_classes, mixture.steps, None, shift, streamed)
    return Stage(config, stretch, mixture, parts)


def _batches(
    stage: Stage, data: Dataset, epoch: int, done: int
) -> Generator[tuple[np.ndarray, Any] | tuple[np.ndarray], None, None]:
    """Yields this host's indices of each batch of an epoch after the first `done`, and streamed images."""
    config, _, mixture, parts = stage
    hosts = jax.process_count()
    order = epoch_indices(mixture, config.seed, epoch, jax.process_index(), hosts)
    order = itertools.islice(order, done, None)
    if not training_data.is_streamed(config, data):
        yield from ((indices,) for indices in order)
        return
    size = mixture.batch_size // hosts * math.prod(data.x_train.shape[1:])
    read, place = training_data.batch_reader(config, data), parts.train_step.place
    ahead = read_ahead(order, mixture.steps - done, read, place, size)
    with contextlib.closing(ahead):
        yield from ahead


def _evaluated(config, data: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the images and labels of each split that is evaluated after epochs."""
    evaluated = {"test": (data.x_test, data.y_test)}
    if data.x_validation is not None and data.y_validation is not None:
        evaluated["validation"] = data.x_validation, data.y_validation
    if config.evaluation.train_examples:  # at random: files may be sorted by class
        part = np.random.default_rng(0).permutation(len(data.y_train))
        part = part[: config.evaluation.train_examples]
        evaluated["train"] = data.x_train[part], data.y_train[part]
    return evaluated


def train_stage(run: Run, stage: Stage, state: TrainState, position: Position) -> TrainState:
    """Trains the epochs of a stage that are not done; returns the state after them.

    Args:
      run: what all stages share.
      stage: the stage.
      state: state to begin with, on all devices; its buffers are reused.
      position: where the run goes on, in this stage or before it.

    Raises:
      NonFiniteLoss: if the loss or the weights become non-finite, see `divergence`.
      Interrupted: after SIGTERM or SIGINT, once the state is saved.
    """
    config, stretch, mixture, parts = stage
    checkpoints, writer, stop = run.checkpoints, run.writer, run.stop
    marks = {"config": stretch.config, **run.digests}
    training_set = devices.replicate(training_data.training_set(config, run.data))
    if run.data.x_extra is not None:
        labelled = len(run.data.y_train)
        used = len(training_set.labels) - labelled
        streamed = (
            f", streamed from {config.extra_data.path}" if training_set.images is None else ""
        )
        processes.say(
            f"using {labelled} training images, {used} of {len(run.data.x_extra)} extra images{streamed}"
        )
    if remark := start_remark(config):
        processes.say(remark)
    if isinstance(run.data.x_extra, StoredImages) and training_set.images is None:
        warm(run.data.x_extra.path)
    evaluated = devices.replicate(_evaluated(config, run.data))
    _, step_key = keys_of(config.seed)
    constants = devices.replicate((step_key, parts.numbers))
    attack = devices.replicate((start_key(config.seed), parts.evaluation_sizes))

    def save_within(epoch: int, state, steps) -> dict:
        """Saves a checkpoint after these steps of an epoch; returns its record."""
        check_finite(steps, state, epoch, stage.steps_before(epoch), checkpoints)
        record = {
            "step": stage.steps_before(epoch) + len(steps),
            "epoch": epoch,
            "seconds": time.monotonic() - run.started,
            "within_epoch": within_epoch(steps),
            "metrics": list(writer.records),
            **marks,
        }
        if processes.is_first():
            checkpoints.save(state, record)
        return record

    for epoch in range(max(position.epoch, stretch.first), stretch.end):
        # Train for an epoch; metrics stay on the device until its end or until a checkpoint.
        steps = list(position.steps) if epoch == position.epoch else []
        answers: collections.deque[jax.Array] = collections.deque(maxlen=IN_FLIGHT)
        with contextlib.closing(_batches(stage, run.data, epoch, len(steps))) as batches:
            for indices, *images in _progress(
                batches, mixture.steps, f"epoch {epoch + 1}", len(steps)
            ):
                sent = devices.with_flag(indices, stop.signal is not None)
                with run.trace.step(state):
                    state, metrics, answer = parts.train_step(
                        state, training_set, sent, *constants, *images
                    )
                steps.append(metrics)
                answers.append(answer)
                # Wait for the oldest of IN_FLIGHT queued steps, so that the progress shown is accurate.
                stopping = stop.asked(answers[0])
                step = stage.steps_before(epoch) + len(steps)
                due = config.checkpoint_steps and step % config.checkpoint_steps == 0
                if stopping or (due and len(steps) < mixture.steps):
                    steps = fetched(steps)
                    record = save_within(epoch, state, steps)
                    if stopping:
                        _stop(stop, checkpoints, record)
        steps = fetched(steps)
        check_finite(steps, state, epoch, stage.steps_before(epoch), checkpoints)

        # Evaluate on the test and validation sets, and on part of the training set for the curve.
        figures = {}
        due = (epoch + 1) % config.evaluation.every == 0 or epoch + 1 == config.epochs
        for split, (images, labels) in evaluated.items() if due else ():
            if stop.asked_anywhere():
                _stop(stop, checkpoints, save_within(epoch, state, steps))
            evaluate = (split == "validation" and parts.validate) or parts.evaluate
            figures[split] = _evaluate(evaluate, state, images, labels, *attack)
        train_figures = {
            name: float(np.stack([step[name] for step in steps]).mean()) for name in steps[0]
        }
        train_figures["learning_rate"] = float(steps[-1]["learning_rate"])
        train_figures |= figures.pop("train", {})

        # Write metrics and a checkpoint.
        step = stage.steps_before(epoch + 1)
        seconds = time.monotonic() - run.started
        writer.write(epoch, step, "train", train_figures)
        for split, values in figures.items():
            writer.write(epoch, step, split, values)
        test_figures, held_figures = figures.get("test", {}), figures.get("validation", {})
        held_figures = {f"validation_{name}": value for name, value in held_figures.items()}
        chosen_by = {"validation_attack": validation_attack(config)} if held_figures else {}
        record = {"step": step, "epoch": epoch, "seconds": seconds, "metrics": list(writer.records)}
        record |= test_figures | held_figures | chosen_by | marks
        if processes.is_first():
            checkpoints.save(state, record)
        accuracy = parts.recipe.objective.accuracy
        line = epoch_line(epoch, config, accuracy, train_figures, test_figures, seconds)
        processes.say(line)
        remark = gate_remark(config, [r for r in writer.records if r["epoch"] >= stretch.first])
        if remark:
            processes.say(remark)
        if epoch + 1 < run.epochs and stop.asked_anywhere():
            _stop(stop, checkpoints, record)
    return state


def validation_attack(config) -> str:
    """Returns the name of the attack on held-out images, such as `pgd20`."""
    return config.evaluation.validation_attack or f"pgd{config.evaluation.steps}"


def _evaluate(evaluate: Callable, state, *arguments) -> dict[str, float]:
    """Returns accuracies of the weights and, if they are averaged, of the average as `ema_...`."""
    figures = evaluate(state.params, state.batch_stats, *arguments)
    if state.ema is None:
        return figures
    average = evaluate(state.ema.params, state.ema.batch_stats, *arguments)
    return figures | {f"ema_{name}": value for name, value in average.items()}


def _progress(iterable, total: int, description: str, done: int):
    """Wraps the iterable in a progress bar, shown only on a terminal."""
    hidden = not (processes.is_first() and sys.stderr.isatty())
    return tqdm(
        iterable, description, total, leave=False, unit="step", disable=hidden, initial=done
    )


def _stop(stop: StopRequest, checkpoints: Checkpoints, record: dict) -> None:
    """Raises Interrupted once all checkpoints are written."""
    processes.by_first(checkpoints.close)
    raise Interrupted(
        f"{stop.signal or 'signal to another process'}: saved {checkpoints.path(record['step'])}, after "
        f"step {record['step']} in epoch {record['epoch'] + 1}; the same command continues the run"
    )
