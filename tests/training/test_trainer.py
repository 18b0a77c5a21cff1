import itertools
import json
import os
import shutil
import signal

import jax
import ml_collections
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.distributed.preemption import Interrupted
from rwp_jax.errors import InputError
from rwp_jax.runs import layout
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import experiment, trainer, training_data
from rwp_jax.training.divergence import NonFiniteLoss
from tests.small import shrink, write_two_classes

FILES = {"config.json", "metrics.jsonl", "summary.json", "learning_curve.png", "checkpoints"}


def small_config(**changes) -> ml_collections.ConfigDict:
    """Returns a config of two epochs of three steps on generated images of two easy classes."""
    return shrink(digits_at_rwp.get_config(), **changes)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", train=50, test=20)


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
    """Returns the directory and summary of a complete run."""
    directory = tmp_path_factory.mktemp("run") / "run"
    return directory, trainer.train(small_config(**{"data.path": npz}), directory)


@pytest.fixture(scope="module")
def compiled(npz):
    """Returns the parts of the run, whose functions are compiled once for all tests."""
    config = small_config(**{"data.path": npz})
    data = training_data.load_data(config)
    return experiment.build(config, data.num_classes, training_data.mixture_of(config, data).steps)


def final_state(directory):
    checkpoints = Checkpoints(directory)
    return checkpoints.load(checkpoints.find("last"))


def assert_same_run(directory, undisturbed):
    """Checks that the metrics of all epochs and the final states are bit-identical."""
    assert read_metrics(directory) == read_metrics(undisturbed)
    states = (jax.tree.leaves(final_state(d)) for d in (directory, undisturbed))
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_writes_what_it_promises(finished):
    directory, summary = finished
    assert {path.name for path in directory.iterdir()} >= FILES
    assert any(path.name.startswith("events.out.tfevents") for path in directory.iterdir())
    assert json.loads((directory / "summary.json").read_text()) == summary
    assert summary["last"]["epoch"] == 2 and summary["epochs_count_from"] == 1
    assert summary["devices"]["count"] == 8
    assert {"rwp-jax", "python", "jax"} <= summary["versions"].keys()
    records = read_metrics(directory)
    assert [(r["epoch"], r["step"], r["split"]) for r in records] == [
        (0, 3, "train"),
        (0, 3, "test"),
        (1, 6, "train"),
        (1, 6, "test"),
    ]
    for r in records[::2]:
        assert {"loss", "robust_accuracy", "gate_open", "perturbation_steps"} <= r.keys()
        assert {"perturbation_norm", "learning_rate", "pgd_accuracy"} <= r.keys()
    best = max(records[1::2], key=lambda r: r["pgd_accuracy"])
    assert summary["best"]["pgd_accuracy"] == best["pgd_accuracy"]


def test_no_other_checkpoint_stands_in_for_a_lost_one(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (copy / "checkpoints/6.json").unlink()
    with pytest.raises(InputError, match="=last of .* was after epoch 2 and is lost .*no record"):
        load_run(copy, "last")
    for record in (copy / "checkpoints").glob("*.json"):
        record.write_text("")
    with pytest.raises(InputError, match="without checkpoints: .*json is damaged"):
        load_run(copy, "last")


def test_held_out_images_select_an_epoch_of_their_own(npz, tmp_path, monkeypatch, capsys):
    """With the accuracies used here, best, best_by_validation and last are three different epochs."""
    scores, on_held_out = iter([0.9, 0.2, 0.3]), iter([0.1, 0.8, 0.4])  # of each epoch

    original = experiment.build

    def build(*arguments, **keywords):
        parts = original(*arguments, **keywords)
        score = lambda *_: {"natural_accuracy": 0.5, "pgd_accuracy": next(scores)}
        held_out = lambda *_: {"natural_accuracy": 0.5, "pgd_accuracy": next(on_held_out)}
        assert parts.validate is not None
        return parts._replace(evaluate=score, validate=held_out)

    config = small_config(
        **{
            "data.path": npz,
            "data.validation_examples": 10,
            "epochs": 3,
            "evaluation.train_examples": 0,
            "evaluation.validation_attack": "cw3",
        }
    )
    data = training_data.load_data(config)
    assert (len(data.y_train), len(data.y_validation)) == (40, 10)
    monkeypatch.setattr(experiment, "build", build)
    summary = trainer.train(config, tmp_path / "run")
    chosen = {name: record["epoch"] for name, record in summary.items() if "best" in name}
    assert chosen | {"last": summary["last"]["epoch"]} == {
        "best": 1,
        "best_by_validation": 2,
        "last": 3,
    }
    record = summary["best_by_validation"]
    assert (record["pgd_accuracy"], record["validation_pgd_accuracy"]) == (0.2, 0.8)
    assert record["validation_attack"] == "cw3"
    assert "best_by_validation: epoch 2, " in (said := capsys.readouterr().out)
    assert "chosen by cw3 on held-out images" in said
    assert {r["split"] for r in read_metrics(tmp_path / "run")} == {"train", "test", "validation"}
    assert load_run(tmp_path / "run", "best_by_validation").epoch == 1


def test_epochs_that_are_not_evaluated_change_nothing_else(
    finished, compiled, npz, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(experiment, "build", lambda *_, **__: compiled)
    config = small_config(**{"data.path": npz, "evaluation.every": 5})
    summary = trainer.train(config, tmp_path / "run")
    assert summary["best"] == summary["last"] == finished[1]["last"]
    before, after = (read_metrics(d) for d in (finished[0], tmp_path / "run"))
    assert after[1:] == before[2:], "the last epoch is evaluated, whatever its number"
    assert "pgd_accuracy" not in after[0] and after[0].items() <= before[0].items()
    first, last = (line for line in capsys.readouterr().out.splitlines() if "|v|/|w|" in line)
    assert "PGD" not in first and "PGD" in last


def test_a_killed_run_resumes_to_the_same_weights(finished, npz, tmp_path, monkeypatch, capsys):
    """The run is killed during the second epoch, after its first metrics were written."""
    write = trainer.MetricsWriter.write

    def dies(self, epoch, step, split, figures):
        write(self, epoch, step, split, figures)
        if epoch == 1:
            raise KeyboardInterrupt

    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer.MetricsWriter, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(small_config(**{"data.path": npz}), directory)
    summary = trainer.train(small_config(**{"data.path": npz}), directory)
    assert "resuming after epoch 1 of 2" in capsys.readouterr().out
    undisturbed, expected = finished
    assert (summary["best"], summary["last"]) == (expected["best"], expected["last"])
    assert_same_run(directory, undisturbed)


@pytest.mark.parametrize("after", range(1, 7))
def test_a_run_that_is_asked_to_stop_saves_and_continues_to_the_same_weights(
    after, finished, compiled, npz, tmp_path, monkeypatch, capsys
):
    """SIGTERM comes during one of the six steps; epochs end after the third and the sixth."""
    steps = itertools.count(1)

    def train_step(*arguments):
        if next(steps) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return compiled.train_step(*arguments)

    directory, config = tmp_path / "run", small_config(**{"data.path": npz})
    stopping = compiled._replace(train_step=train_step)
    monkeypatch.setattr(experiment, "build", lambda *_, **__: stopping)
    with pytest.raises(Interrupted, match=f"SIGTERM: saved .*/{after}, after step {after} in"):
        trainer.train(config, directory)
    trainer.train(config, directory)
    assert f"resuming in epoch {1 + (after - 1) // 3} of 2, after" in capsys.readouterr().out
    undisturbed, _ = finished
    assert_same_run(directory, undisturbed)


def test_a_signal_during_evaluation_costs_no_step(
    finished, compiled, npz, tmp_path, monkeypatch, capsys
):
    def evaluate(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return compiled.evaluate(*arguments)

    directory, config = tmp_path / "run", small_config(**{"data.path": npz})
    stopping = compiled._replace(evaluate=evaluate)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "build", lambda *_, **__: stopping)
        with pytest.raises(Interrupted, match="saved .*/3, after step 3 in epoch 1"):
            trainer.train(config, directory)
    monkeypatch.setattr(experiment, "build", lambda *_, **__: compiled)
    trainer.train(config, directory)
    assert "resuming in epoch 1 of 2, after 3 steps of it, in" in capsys.readouterr().out
    assert_same_run(directory, finished[0])


def test_checkpoints_within_epochs_change_nothing(finished, compiled, npz, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(experiment, "build", lambda *_, **__: compiled)
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *a: saved.append(a[2]["step"]) or save(*a))
    config = small_config(**{"data.path": npz, "checkpoint_steps": 2})
    summary = trainer.train(config, tmp_path / "run")
    assert saved == [2, 3, 4, 6]
    assert summary["last"] == finished[1]["last"]
    assert_same_run(tmp_path / "run", finished[0])


def test_a_run_in_use_is_left_alone(finished, npz):
    directory, _ = finished
    with layout.lock(directory), pytest.raises(InputError, match="is in use by process"):
        trainer.train(small_config(**{"data.path": npz}), directory)


def test_a_finished_run_is_left_as_it_is(finished, npz):
    directory, summary = finished
    before = read_metrics(directory)
    again = trainer.train(small_config(**{"data.path": npz}), directory)
    assert again == summary and read_metrics(directory) == before


def test_a_run_does_not_go_on_with_other_data(npz, tmp_path):
    path = tmp_path / "data.npz"
    shutil.copy(npz, path)
    config = small_config(**{"data.path": str(path), "epochs": 1})
    trainer.train(config, tmp_path / "run")
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"y_test": 1 - arrays["y_test"]})
    before = read_metrics(tmp_path / "run")
    with pytest.raises(InputError, match=r"step 3 was trained on other data .y_test changed."):
        trainer.train(config, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("key", "value", "there"), [("seed", 1, "0"), ("model.name", "wrn-16-1", "'wrn-10-1'")]
)
def test_a_run_goes_on_from_its_own_checkpoints_alone(key, value, there, finished, npz, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished[0], directory)
    config = small_config(**{"data.path": npz, key: value})
    (directory / "config.json").write_text(config.to_json())
    with pytest.raises(
        InputError, match=rf"belongs to another run .{key}={there} there, {value!r} here."
    ):
        trainer.train(config, directory)


def test_a_run_that_lost_its_checkpoints_keeps_its_metrics(finished, npz, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished[0], directory)
    shutil.rmtree(directory / "checkpoints")
    with pytest.raises(
        InputError, match="holds the metrics of a run, but its checkpoints are gone"
    ):
        trainer.train(small_config(**{"data.path": npz}), directory)
    assert read_metrics(directory) == read_metrics(finished[0])


def test_a_non_finite_loss_stops_the_run(npz, tmp_path):
    changes = {"data.path": npz, "optimizer.learning_rate": 1e30, "epochs": 1, "dtype": "float32"}
    with pytest.raises(NonFiniteLoss, match=r"at step \d+ .*there is no checkpoint yet"):
        trainer.train(small_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
