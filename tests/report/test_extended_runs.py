"""Reports of runs whose config changed during training, or that began with given weights."""

import json

import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.report.gate import draw_gate
from rwp_jax.report.results import read_result
from rwp_jax.report.settings import histories
from rwp_jax.report.side_by_side import compare
from rwp_jax.runs import history
from rwp_jax.runs.config import flatten, unflatten
from rwp_jax.runs.history import Change, History
from tests.small import write_evaluation, write_run

KEYS = {"epochs": [2, 4], "threat.epsilon": [0.1, 0.2], "batch_size": [32, 16]}


def write_extended(directory, seed=0, finished=True, keys=KEYS, init_from=None):
    """Writes a run of two epochs, extended by two; the best accuracies are those before the change."""
    config = digits_at_rwp.get_config("full")
    config.seed = seed
    accuracies, gates = [0.6, 0.7, 0.3, 0.2], [32, 8, 16, 4]
    more = {"train_gate_open": gates, "train_perturbation_steps": [1, 1, 1, 1]}
    write_run(directory, config, accuracies, finished, **more)
    flat = flatten(json.loads((directory / "config.json").read_text()))
    flat |= {key: new for key, (_, new) in keys.items()}
    past = History((Change(2, 20, keys, "0.1.0"),), init_from)
    history.write(directory, unflatten(flat), past)
    return directory


def test_the_best_epoch_is_one_measured_as_the_newest(tmp_path):
    result = read_result(write_extended(tmp_path / "run"))
    assert result.figure("best", "epoch") == 2 and result.figure("last", "epoch") == 3
    unchanged = {key: pair for key, pair in KEYS.items() if key != "threat.epsilon"}
    result = read_result(write_extended(tmp_path / "same", keys=unchanged))
    assert result.figure("best", "epoch") == 1


def test_evaluations_are_those_of_the_best_epoch_since_the_change(tmp_path):
    directory = write_extended(tmp_path / "run")
    write_evaluation(directory, "best", {"natural": 0.5}, epoch=1)
    assert read_result(directory).evaluations == {}
    write_evaluation(directory.parent / "run2", "best", {"natural": 0.5}, epoch=2)
    (directory / "evaluation").rename(directory / "old")
    (directory.parent / "run2" / "evaluation").rename(directory / "evaluation")
    assert read_result(directory).evaluations["best"]["natural"]["accuracy"] == 0.5


def test_epochs_that_an_earlier_setting_did_not_evaluate_still_count(tmp_path):
    keys = {"epochs": [2, 4], "evaluation.every": [2, 1]}
    directory = write_extended(tmp_path / "run", keys=keys)
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"epoch": 0' not in line or '"split": "test"' not in line]
    (directory / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    assert len(read_result(directory).epochs) == 4


def test_a_summary_of_before_the_change_is_not_the_end(tmp_path):
    directory = write_extended(tmp_path / "run")
    summary = {"seconds": 60.0, "epochs_count_from": 1, "last": {"epoch": 2}}
    (directory / "summary.json").write_text(json.dumps(summary))
    result = read_result(directory)
    assert not result.finished and result.seconds is None and len(result.epochs) == 4


def test_the_gates_share_is_of_the_batch_of_the_time(tmp_path, monkeypatch):
    result = read_result(write_extended(tmp_path / "run"))
    drawn = []
    monkeypatch.setattr("rwp_jax.report.style.draw_mean", lambda *a: drawn.append(a[1:3]))
    draw_gate({"run": [result]}, "the gate", tmp_path / "gate.png")
    epochs, shares = drawn[0]
    assert epochs == [1, 2, 3, 4] and [s.mean for s in shares] == [100, 25, 100, 25]


def test_the_page_tells_what_changed(tmp_path):
    begun = {"source": "runs/a", "checkpoint": "last", "digest": "0"}
    runs = [write_extended(tmp_path / f"run{seed}", seed, init_from=begun) for seed in (0, 1)]
    runs.append(write_run(tmp_path / "plain", digits_at_rwp.get_config("full"), [0.2, 0.4]))
    compare(runs, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "begun with the weights of runs/a; from epoch 3 on config.epochs=4 (was 2)" in page
    assert "the best epoch is chosen after epoch 2" in page
    assert "settings change after 2 epochs (dashed vertical lines)" in page
    assert len(histories([read_result(run) for run in runs])) == 2
    table = (tmp_path / "report" / "accuracies.csv").read_text()
    assert table.splitlines()[1].startswith("run0,2,"), "two seeds of one setting"


@pytest.mark.parametrize("keys", [{"optimizer.weight_decay": [0.1, 0.2]}, {"seed": [0, 1]}])
def test_other_changes_are_another_setting(keys, tmp_path):
    runs = [write_extended(tmp_path / "a"), write_extended(tmp_path / "b", 1, keys=KEYS | keys)]
    compare(runs, tmp_path / "report")
    assert len((tmp_path / "report" / "accuracies.csv").read_text().splitlines()) == 3
