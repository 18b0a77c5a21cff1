"""Runs whose extra images are read from disk: they equal, bit for bit, runs that hold them in memory."""

import json
import os
import shutil
import signal
import threading

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.data import stream, writing
from rwp_jax.distributed.preemption import Interrupted
from rwp_jax.errors import InputError
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import epochs, experiment, trainer, training_data
from tests.small import building_once, shrink, write_two_classes

EXTRA = 40  # images, every fifth of them without a label


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A directory with data.npz, and its extra images as extra.npz and as the set `extra`."""
    directory = tmp_path_factory.mktemp("data")
    write_two_classes(directory / "data.npz", 50, 20)
    with np.load(write_two_classes(directory / "drawn.npz", EXTRA, 20)) as drawn:
        images, labels = drawn["x_train"][::-1], drawn["y_train"][::-1].copy()
    labels[::5] = -1
    np.savez(directory / "extra.npz", image=images, label=labels)
    writing.write_set(directory / "extra.npz", directory / "extra")
    return directory


def config_of(sources, extra, **changes):
    changes = {"data.path": str(sources / "data.npz"), "evaluation.train_examples": 0, **changes}
    config = shrink(digits_at_rwp.get_config("full"), **changes)
    config.extra_data.path = str(sources / extra)
    config.extra_data.weight = 0.5
    config.augment.padding = 1
    config.augment.flip = True
    return config


@pytest.fixture(scope="module")
def compiled():
    with building_once():
        yield


@pytest.fixture(scope="module")
def in_memory(sources, compiled, tmp_path_factory):
    directory = tmp_path_factory.mktemp("memory") / "run"
    trainer.train(config_of(sources, "extra.npz"), directory)
    return directory


@pytest.fixture(scope="module")
def streamed(sources, compiled, tmp_path_factory):
    directory = tmp_path_factory.mktemp("streamed") / "run"
    trainer.train(config_of(sources, "extra"), directory)
    return directory


def final_state(directory):
    checkpoints = Checkpoints(directory)
    return checkpoints.load(checkpoints.find("last"))


def assert_same_run(directory, other):
    assert read_metrics(directory) == read_metrics(other)
    for a, b in zip(*(jax.tree.leaves(final_state(d)) for d in (directory, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def threads():
    """Returns the threads that read ahead and do not end within some seconds."""
    reading = [thread for thread in threading.enumerate() if "grain" in thread.name]
    for thread in reading:
        thread.join(10)
    return [thread for thread in reading if thread.is_alive()]


def test_equals_a_run_in_memory(in_memory, streamed):
    assert_same_run(streamed, in_memory)
    assert not threads(), "the epoch's threads have ended"


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_the_step_gets_the_images_of_its_indices(sources, mode):
    """Of a batch on eight devices; shares of the batch differ in how many images are extra."""
    config = config_of(sources, "extra", parallel=mode)
    config.extra_data.unlabeled_fraction = 0.3
    data = training_data.load_data(config)
    stage = epochs.make_stage(config, epochs.Stretch(config.to_dict(), 0, 2, 0), data)
    memory = config_of(sources, "extra.npz", parallel=mode)
    whole = training_data.training_set(memory, training_data.load_data(memory))
    assert training_data.training_set(config, data).images is None
    for indices, placed in epochs._batches(stage, data, 0, 0):
        assert len(placed.array.sharding.device_set) == jax.device_count()
        images = np.asarray(placed.array).reshape(-1, *whole.images.shape[1:])
        np.testing.assert_array_equal(images, whole.images[indices])


def killed_at(step, monkeypatch):
    """Sends SIGTERM to this process before a step of the first epoch."""
    real, calls = epochs._batches, iter(range(100))

    def batches(*arguments):
        for batch in real(*arguments):
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(epochs, "_batches", batches)


def test_resumes_within_an_epoch(sources, streamed, tmp_path, monkeypatch):
    """Interrupted in the first epoch, moved, and continued."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at(2, patch)
        with pytest.raises(Interrupted, match="in epoch 1"):
            trainer.train(config_of(sources, "extra"), run)
    assert not threads()
    moved = tmp_path / "moved"
    shutil.copytree(sources, moved)
    trainer.train(config_of(moved, "extra"), run)
    assert_same_run(run, streamed)


def test_goes_on_with_the_same_images_in_memory(sources, in_memory, tmp_path, monkeypatch):
    """A set and an npz of the same images are the same data."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at(2, patch)
        with pytest.raises(Interrupted):
            trainer.train(config_of(sources, "extra"), run)
    trainer.train(config_of(sources, "extra.npz"), run)
    assert_same_run(run, in_memory)


def test_another_set_is_refused(sources, streamed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(streamed, run)
    with np.load(sources / "extra.npz") as extra:
        images = extra["image"].copy()
        images[3, 4, 5] ^= 1
        np.savez(tmp_path / "other.npz", image=images, label=extra["label"])
    writing.write_set(tmp_path / "other.npz", tmp_path / "other")
    config = config_of(sources, "extra")
    config.extra_data.path = str(tmp_path / "other")
    with pytest.raises(InputError, match=r"was trained on other data .x_extra changed."):
        trainer.train(config, run)


def test_a_changed_image_ends_training(sources, tmp_path, compiled):
    copy = tmp_path / "sources"
    shutil.copytree(sources, copy)
    with (copy / "extra/images.npy").open("r+b") as file:
        file.seek(-EXTRA * 64 + 7, os.SEEK_END)
        file.write(bytes(EXTRA * 64 - 7))
    with pytest.raises(InputError, match=r"images\.npy: image \d+ of 40 is not the one that was"):
        trainer.train(config_of(copy, "extra"), tmp_path / "run")
    assert not threads()


def test_bad_input(sources, tmp_path, monkeypatch):
    config = config_of(sources, "extra")
    data = training_data.load_data(config)
    config.extra_data.unlabeled_fraction = 1.0
    with pytest.raises(
        InputError, match="fraction=1.0 must be .* so that labelled examples are left"
    ):
        experiment.check_config(config)
    config = config_of(sources, "extra")
    config.data.name, config.data.path, config.augment.padding = "digits", "", 0
    with pytest.raises(InputError, match="has pseudo-labels up to 1 only, .* has 10 classes"):
        training_data.load_data(config)
    config.extra_data.use_labels = False
    assert training_data.load_data(config).x_extra.shape == data.x_extra.shape
    with np.load(sources / "extra.npz") as extra:
        wide = np.repeat(extra["image"], 2, 2)
        for name, images, labels in (("wide", wide, 0), ("ten", extra["image"], 10)):
            np.savez(tmp_path / f"{name}.npz", image=images, label=extra["label"] + labels)
            writing.write_set(tmp_path / f"{name}.npz", tmp_path / name)
    for name, message in (
        ("wide", r"images are \(8, 16, 1\), must be \(8, 8, 1\)"),
        ("ten", "has pseudo-label 11, the data set has labels up to 1"),
    ):
        config = config_of(sources, "extra")
        config.extra_data.path = str(tmp_path / name)
        with pytest.raises(InputError, match=message):
            training_data.load_data(config)
    monkeypatch.setattr(stream.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"config\.extra_data\.path=.* needs grain.*\[stream\]"):
        training_data.load_data(config_of(sources, "extra"))


def test_the_default_program_has_no_images(sources):
    """A run that streams nothing takes the arguments that it took before."""
    config = config_of(sources, "extra.npz")
    assert json.loads(config.to_json())["extra_data"]["path"].endswith("npz")
    parts = experiment.build(config, 2, 3)
    assert parts.train_step._split == (False, False, True, False, False)
