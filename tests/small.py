"""Runs that are small enough for a test."""

import contextlib
import json

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.training import experiment, trainer


def write_two_classes(path, train: int, test: int) -> str:
    """Writes an npz of dark and bright images: two classes that a network separates at once."""
    rng = np.random.default_rng(0)
    y = np.arange(train + test) % 2
    x = np.clip(rng.normal(60 + 120 * y[:, None, None, None], 30, (len(y), 8, 8, 1)), 0, 255)
    x = x.astype(np.uint8)
    np.savez(path, x_train=x[:train], y_train=y[:train], x_test=x[train:], y_test=y[train:])
    return str(path)


def shrink(config, **changes):
    """Sets two epochs in float64 on an npz with two steps per attack, then applies `changes`."""
    config.epochs = 2
    config.batch_size = 16
    config.dtype = "float64"
    config.data.name = "npz"
    config.data.train_examples = 0
    config.model.name = "wrn-10-1"
    config.evaluation.every = 1
    config.attack.steps = 2
    config.weight_perturbation.steps = 2
    config.evaluation.batch_size = 16
    config.evaluation.steps = 2
    config.evaluation.train_examples = 10
    config.update_from_flattened_dict(changes)
    return config


def train_on_two_classes(tmp_path_factory, test: int, **changes):
    """Trains on 64 images at epsilon 0.2 and step size 0.05; returns the run's directory."""
    path = write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", 64, test)
    changes = {
        "data.path": path,
        "threat.epsilon": 0.2,
        "evaluation.step_size": 0.05,
        **changes,
    }
    directory = tmp_path_factory.mktemp("run") / "run"
    trainer.train(shrink(digits_at_rwp.get_config("full"), **changes), directory)
    return directory


def write_run(directory, config, pgd, finished=True, **splits):
    """Writes the files of a run that reports read, with made-up figures.

    Args:
      directory: the run's directory.
      config: the run's config; its epochs become the length of `pgd`.
      pgd: PGD accuracy on the test set after each epoch; natural accuracy is 0.1 above it.
      finished: whether to write a summary.
      splits: other figures, one per epoch, named SPLIT_FIGURE: train_perturbation_steps=[1, 2].
    """
    directory.mkdir(parents=True)
    config.epochs = len(pgd)
    (directory / "config.json").write_text(config.to_json())
    lines = []
    for epoch, accuracy in enumerate(pgd):
        figures = {"test": {"natural_accuracy": accuracy + 0.1, "pgd_accuracy": accuracy}}
        for name, values in splits.items():
            split, _, figure = name.partition("_")
            figures.setdefault(split, {})[figure] = values[epoch]
        for split, values in figures.items():
            lines.append(json.dumps({"epoch": epoch, "step": epoch, "split": split, **values}))
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if finished:
        (directory / "summary.json").write_text(json.dumps({"seconds": 60.0}))
    return directory


def write_evaluation(directory, which, accuracies, examples=100, epoch=0):
    """Writes the evaluation.json of a checkpoint with the given accuracy of each column."""
    path = directory / "evaluation" / which / "evaluation.json"
    path.parent.mkdir(parents=True)
    columns = {name: {"accuracy": accuracy} for name, accuracy in accuracies.items()}
    path.write_text(json.dumps({"epoch": epoch, "examples": examples, "columns": columns}))


@contextlib.contextmanager
def building_once():
    """Builds, and so compiles, the parts of equal configs once within the context."""
    build, built = experiment.build, {}

    def build_once(config, *arguments, **keywords):
        key = config.to_json(), arguments, tuple(keywords.items())
        if key not in built:
            built[key] = build(config, *arguments, **keywords)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build", build_once)
        yield


@contextlib.contextmanager
def lowerings():
    """Yields a list that grows by the name of each program lowered within the context."""
    events = []

    def listen(event, duration, **_):
        if event.endswith("jaxpr_to_mlir_module_duration"):
            events.append(_.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
