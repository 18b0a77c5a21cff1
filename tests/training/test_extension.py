"""Runs that go on with a changed config: what is exact, what is recorded and what is refused."""

import itertools
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from rwp_jax.distributed.preemption import Interrupted
from rwp_jax.errors import InputError
from rwp_jax.evaluation import table2
from rwp_jax.runs import extension, history
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import experiment, trainer
from rwp_jax.training.schedules import make_schedule
from tests.small import building_once, write_two_classes
from tests.training.test_trainer import assert_same_run, small_config

pytestmark = pytest.mark.usefixtures("one_device")

CONSTANT = {"optimizer.schedule": "constant"}
# After the first epoch, epochs have six steps instead of three.
OTHER = {
    "epochs": 3,
    "epoch_examples": 96,
    "optimizer.schedule": "cosine",
    "weight_perturbation.c_min": 5.0,
    "threat.epsilon": 0.1,
}


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with building_once():
        yield


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", train=50, test=20)


@pytest.fixture(scope="module")
def config(npz):
    return lambda **changes: small_config(**{"data.path": npz} | CONSTANT | changes)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Returns the directories of runs of two and of three epochs with a constant learning rate."""
    root = tmp_path_factory.mktemp("runs")
    trainer.train(config(), root / "two")
    trainer.train(config(epochs=3), root / "three")
    return root / "two", root / "three"


def interrupted(monkeypatch, after, call):
    """Calls a function that trains, and sends SIGTERM during the step `after`, counted from 1."""
    build, steps = experiment.build, itertools.count(1)

    def build_stopping(*arguments, **keywords):
        parts = build(*arguments, **keywords)

        def train_step(*inputs):
            if next(steps) == after:
                os.kill(os.getpid(), signal.SIGTERM)
            return parts.train_step(*inputs)

        train_step.place = getattr(parts.train_step, "place", None)  # that of streamed images
        return parts._replace(train_step=train_step)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "build", build_stopping)
        with pytest.raises(Interrupted):
            call()


def test_more_epochs_are_those_of_a_longer_run(config, finished, tmp_path, monkeypatch, capsys):
    """The run is moved, extended, interrupted, moved again and continued without the flag."""
    two, three = finished
    shutil.copytree(two, tmp_path / "moved")
    longer = config(epochs=3)
    call = lambda: trainer.train(longer, tmp_path / "moved", extend=True)
    interrupted(monkeypatch, 2, call)
    assert "from epoch 3 on config.epochs=3 (was 2)" in capsys.readouterr().out
    (tmp_path / "moved").rename(tmp_path / "again")
    trainer.train(longer, tmp_path / "again")
    assert "resuming in epoch 3 of 3, after 2 steps of it, in" in capsys.readouterr().out
    assert_same_run(tmp_path / "again", three)

    content, past = history.read(tmp_path / "again")
    assert content == json.loads((three / "config.json").read_text())
    (change,) = past.changes
    assert (change.after_epochs, change.after_steps, change.keys) == (2, 6, {"epochs": [2, 3]})
    (summary,) = table2.evaluate(tmp_path / "again", "last", "natural", 0, False)
    assert summary["epoch"] == 3
    natural = [r["natural_accuracy"] for r in read_metrics(three) if r["split"] == "test"][-1]
    assert summary["columns"]["natural"]["accuracy"] == natural
    trainer.train(longer, tmp_path / "again", extend=True)  # nothing has changed any more
    assert history.read(tmp_path / "again")[1] == past


@pytest.fixture(scope="module")
def grown(config, tmp_path_factory):
    """Returns a run that was interrupted in its first epoch and extended by OTHER."""
    directory = tmp_path_factory.mktemp("grown") / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 2, lambda: trainer.train(config(), directory))
    shutil.copytree(directory, directory.with_name("begun"))
    trainer.train(config(**OTHER), directory, extend=True)
    return directory


def test_an_epoch_in_progress_is_finished_as_it_began(grown, finished):
    records = read_metrics(grown)
    assert records[:2] == read_metrics(finished[0])[:2]
    assert [(r["epoch"], r["step"]) for r in records[::2]] == [(0, 3), (1, 9), (2, 15)]
    (change,) = history.read(grown)[1].changes
    assert (change.after_epochs, change.after_steps, len(change.keys)) == (1, 3, len(OTHER))
    assert change.keys["epoch_examples"] == [0, 96]


def test_the_new_schedule_goes_on_where_the_epochs_are(grown):
    schedule = make_schedule("cosine", 0.1, epochs=3, steps_per_epoch=6)
    rates = [r["learning_rate"] for r in read_metrics(grown) if r["split"] == "train"]
    np.testing.assert_allclose(rates, [0.1, schedule(11), schedule(17)], rtol=1e-12)


def test_the_best_epoch_is_one_measured_as_the_last(grown, config):
    records = [r for r in read_metrics(grown) if r["split"] == "test"]
    best = max(records[1:], key=lambda r: r["pgd_accuracy"])
    run = load_run(grown, "best")
    assert run.epoch == best["epoch"] and run.config.threat.epsilon == 0.1
    kept = {r["epoch"]: r["config"]["threat.epsilon"] for r in Checkpoints(grown).records()}
    assert kept.pop(0) == config().threat.epsilon, "the best epoch before the change is kept"
    assert set(kept.values()) == {0.1}


def test_a_changed_run_that_is_interrupted_goes_on_to_the_same_weights(
    grown, config, tmp_path, monkeypatch
):
    """The first signal comes in the epoch that is finished as it began, the second after the change."""
    directory = tmp_path / "run"
    shutil.copytree(grown.with_name("begun"), directory)
    call = lambda: trainer.train(config(**OTHER), directory, extend=True)
    interrupted(monkeypatch, 1, call)
    interrupted(monkeypatch, 2, lambda: trainer.train(config(**OTHER), directory))
    call()
    assert_same_run(directory, grown)
    assert history.read(directory) == history.read(grown)


def test_epochs_before_a_change_are_repeated_as_they_were(grown, config, tmp_path, capsys):
    """Of the checkpoints, only one of before the change is left."""
    directory = tmp_path / "run"
    shutil.copytree(grown.with_name("begun"), directory)
    shutil.copy(grown / "config.json", directory)
    shutil.copy(grown / "metrics.jsonl", directory)
    trainer.train(config(**OTHER), directory)
    assert "resuming in epoch 1 of 3, after 2 steps of it" in capsys.readouterr().out
    assert_same_run(directory, grown)


def test_a_loaded_network_has_the_config_of_its_epoch(grown, config, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(grown, directory)
    for path in (directory / "checkpoints").glob("*"):
        if path.name not in ("3", "3.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (directory / "summary.json").unlink()
    run = load_run(directory, "last")
    assert run.epoch == 0 and run.config.epochs == 2 and run.config.epoch_examples == 0
    assert run.config.threat.epsilon == config().threat.epsilon
    assert run.history.changes[0].keys["threat.epsilon"] == [config().threat.epsilon, 0.1]


def test_what_only_evaluation_uses_changes_without_the_flag(
    grown, config, finished, tmp_path, capsys
):
    directory = tmp_path / "run"
    shutil.copytree(grown.with_name("begun"), directory)
    trainer.train(config(**{"evaluation.steps": 1}), directory)
    states = (jax.tree.leaves(load_run(d, "last").saved) for d in (directory, finished[0]))
    for ours, theirs in zip(*states, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    (change,) = history.read(directory)[1].changes
    assert (change.after_epochs, change.keys) == (1, {"evaluation.steps": [2, 1]})
    assert load_run(directory, "best").epoch == 1, "the first was measured in another way"


def test_a_finished_run_keeps_the_settings_that_it_was_evaluated_with(config, finished, capsys):
    directory = finished[0]
    before = (directory / "config.json").read_bytes()
    trainer.train(config(**{"evaluation.steps": 1}), directory)
    said = capsys.readouterr().out
    assert f"{directory}: no epoch is left for the new config.evaluation.steps" in said
    assert "PGD-2 " in said and (directory / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1}, "config.epochs=1: it must be more than the 2 epochs that are done"),
        ({"seed": 1, "epochs": 2}, "config.epochs=2: it must be more than the 2 epochs that are"),
        (
            {"model.name": "wrn-16-1"},
            r"config.model.name='wrn-16-1' \(was 'wrn-10-1'\): its weights",
        ),
        (
            {"model.per_device_batch_norm": True},
            "config.model.per_device_batch_norm=True .was False",
        ),
        (
            {"model.mean": (0.5,), "model.std": (0.5,)},
            r"config.model.mean=\[0.5\] \(was \[\]\): its",
        ),
        ({"optimizer.momentum": 0.0}, "momentum=0.0 .was 0.9.: its checkpoints hold a momentum"),
        ({"ema_decay": 0.9}, "ema_decay=0.9 .was 0.0.: its checkpoints hold no average"),
        ({"dtype": "float32"}, "config.dtype='float32' .was 'float64'.: its weights have another"),
        (
            {"data.validation_examples": 10},
            r"x_validation.* by config.data.validation_examples=10 .was 0",
        ),
        (
            {"data.train_examples": 20},
            r"other data \(x_train, y_train changed by config.data.train_ex",
        ),
        ({"attack.bn": "none"}, "config.attack.bn='none' must be one of"),
        ({"objective.name": "trades"}, "config.attack.bn='train' must be one of eval, batch for"),
        ({"batch_size": 0}, "config.batch_size=0 must be a positive multiple"),
    ],
)
def test_what_the_saved_state_cannot_serve(changes, message, config, finished):
    directory = finished[0]
    before = (directory / "config.json").read_bytes()
    with pytest.raises(InputError, match=message) as error:
        trainer.train(config(**{"epochs": 4} | changes), directory, extend=True)
    assert "\n" not in str(error.value) and (directory / "config.json").read_bytes() == before


def test_the_flag_is_suggested_where_it_helps(config, finished):
    with pytest.raises(InputError, match="epochs=2 there, 4 here.*with these changes by extend=$"):
        trainer.train(config(epochs=4), finished[0])
    for changes in ({"epochs": 1}, {"epochs": 4, "model.name": "wrn-16-1"}):
        with pytest.raises(InputError, match="choose another directory$"):
            trainer.train(config(**changes), finished[0])


def test_a_momentum_that_cycles_is_one(config, finished, tmp_path):
    """Checkpoints hold a momentum whether it is constant or cycles."""
    cycle = {"optimizer.cycle_momentum": (0.85, 0.95), "optimizer.schedule": "one_cycle"}
    wanted = config(epochs=4, **{"optimizer.momentum": 0.0, "optimizer.warmup": 0.3} | cycle)
    plain = json.loads(wanted.to_json())
    assert extension.check(finished[0], plain, True, extend=True)
    shutil.copytree(finished[0], tmp_path / "run")
    without = config(**{"optimizer.momentum": 0.0})
    (tmp_path / "run/config.json").write_text(without.to_json())
    with pytest.raises(
        InputError, match="cycle_momentum=.0.85, 0.95. .was ...: its check.* no mom"
    ):
        extension.check(tmp_path / "run", plain, True, extend=True)


def test_an_average_may_begin_at_another_time(config, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run/config.json").write_text(config(ema_decay=0.9).to_json())
    changes = {"epochs": 4, "ema_decay": 0.99, "ema_start": 0.5, "ema_copy_batch_stats": True}
    plain = json.loads(config(**changes).to_json())
    assert extension.check(tmp_path / "run", plain, True, extend=True)
    with pytest.raises(InputError, match="with these changes by extend=$"):
        extension.check(tmp_path / "run", plain, True)
