"""`--mode reproduce`, from the command to the report."""

import csv
import importlib
import json

import numpy as np
import pytest
from scipy import stats

from rwp_jax.errors import InputError
from rwp_jax.evaluation import table2
from rwp_jax.report import paper
from rwp_jax.reproduce.experiments import make_experiment
from rwp_jax.reproduce.reproduce import reproduce
from rwp_jax.reproduce.run_list import list_runs, parse_override
from rwp_jax.runs import layout
from rwp_jax.runs.layout import COLUMNS
from rwp_jax.training import self_training
from rwp_jax.training.divergence import NonFiniteLoss
from tests.small import write_evaluation, write_run, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


def load_config(name):
    module, _, argument = name.partition(":")
    return importlib.import_module(f"rwp_jax.configs.{module}").get_config(
        *filter(None, [argument])
    )


SMALL = (
    "epochs=2",
    "dtype=float64",
    "batch_size=16",
    "data.name=npz",
    "data.train_examples=0",
    "model.name=wrn-10-1",
    "evaluation.every=1",
    "data.validation_examples=16",
    "attack.steps=2",
    "evaluation.steps=2",
    "evaluation.batch_size=16",
    "evaluation.train_examples=10",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Returns overrides for runs of two epochs of two steps on two easy classes."""
    path = write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", train=50, test=20)
    return [*SMALL, f"data.path={path}"]


def with_std(row, name):
    return f"{row[name]}±{row[f'{name}, std']}"


def with_interval(row, name):
    return tuple(float(row[f"{name}{end}"]) for end in ("", ", low", ", high"))


def read_csv(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_trains_what_is_missing_and_reports_it(small, tmp_path, capsys, monkeypatch):
    reproduce("fig2c", "digits", tmp_path, load_config, overrides=small, only="*_at_seed0,*awp*")
    report = tmp_path / "fig2c_digits"
    written = {"fig2c.csv", "fig2c_differences.csv", "fig2c.png", "fig2c_gate.png"}
    assert {path.name for path in report.iterdir()} == {"report.html", *written}
    assert list(read_csv(report / "fig2c.csv")) == ["AT", "AT-AWP"]
    assert "2 of 3 runs are finished" in (report / "report.html").read_text()
    capsys.readouterr()

    reproduce("fig2c", "digits", tmp_path, load_config, overrides=small, show_plan=True)
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line for line in lines[2:]}
    assert " finished " in states["digits_at_seed0"] and " to do " in states["digits_at_rwp_seed0"]
    assert "min" in states["digits_at_rwp_seed0"], "finished runs tell how long the others take"

    trained = []
    train = self_training.train
    monkeypatch.setattr(self_training, "train", lambda *a: trained.append(a[1].name) or train(*a))
    reproduce("fig2c", "digits", tmp_path, load_config, overrides=small)
    assert trained == ["digits_at_rwp_seed0"], "finished runs are not trained again"
    rows = read_csv(report / "fig2c.csv")
    summary = json.loads((tmp_path / "runs/digits_at_rwp_seed0/summary.json").read_text())
    for which in ("best", "best_by_validation", "last"):
        expected = f"{100 * summary[which]['pgd_accuracy']:.2f}"
        assert rows["AT-RWP"][f"{which.replace('_', ' ')}: PGD"] == expected


def test_a_run_that_diverges_does_not_end_the_others(small, tmp_path):
    diverging = "*_awp_*:optimizer.learning_rate=1e30"
    with pytest.raises(NonFiniteLoss, match="^digits_at_awp_seed0: the loss became"):
        reproduce("fig2c", "digits", tmp_path, load_config, overrides=[*small, diverging])
    assert list(read_csv(tmp_path / "fig2c_digits/fig2c.csv")) == ["AT", "AT-RWP"]


def test_finished_runs_of_other_settings_are_refused(tmp_path):
    write_runs("fig2c", tmp_path, seeds=1)  # runs of three epochs
    with pytest.raises(InputError, match="digits_at_seed0 holds a run of another config .epochs=3"):
        reproduce("fig2c", "digits", tmp_path, load_config, only="*rwp*")


def test_the_list_goes_on_past_runs_of_other_settings(tmp_path, capsys):
    write_runs("fig2c", tmp_path, seeds=1)  # runs of three epochs
    longer = ["digits_at_rwp_*:epochs=4"]
    reproduce(
        "fig2c", "digits", tmp_path, load_config, overrides=["epochs=3", *longer], show_plan=True
    )
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "holds a run of another config (epochs=3 there, 4 here)" in rows["digits_at_rwp_seed0"]
    assert "finished" in rows["digits_at_seed0"] and "finished" in rows["digits_at_awp_seed0"]


def test_table_2_evaluates_what_is_missing(tmp_path, monkeypatch):
    write_runs("table2", tmp_path, seeds=1)
    missing = tmp_path / "runs/digits_trades_awp_seed0/evaluation/best_by_validation"
    (missing / "evaluation.json").unlink()
    called = []
    monkeypatch.setattr(table2, "evaluate", lambda *arguments: called.append(arguments))
    reproduce("table2", "digits", tmp_path, load_config, overrides=["epochs=3"])
    columns = ",".join(COLUMNS)
    assert called == [(missing.parents[1], "best_by_validation", columns, 0, False)]


def test_a_run_of_another_process_is_left_to_it(small, tmp_path, capsys):
    with layout.lock(tmp_path / "runs/digits_at_seed0"):
        reproduce("fig1a", "digits", tmp_path, load_config, overrides=small)
    said = capsys.readouterr().out
    assert "digits_at_seed0 is left to another process" in said
    assert "no run of fig1a is finished yet" in said and not (tmp_path / "fig1a_digits").exists()


def write_runs(name, path, seeds=2):
    """Writes all runs of an experiment with random figures and returns these by label."""
    rng = np.random.default_rng(0)
    found = {}
    for run in list_runs(make_experiment(name, "digits"), seeds, [], path, load_config):
        pgd, validation, train = rng.uniform(0.2, 0.8, (3, 3))
        epochs = {"best": int(pgd.argmax()), "best_by_validation": int(validation.argmax())}
        splits = {"validation_pgd_accuracy": validation, "train_pgd_accuracy": train}
        splits["train_perturbation_steps"] = rng.uniform(0, 10, 3)
        write_run(run.directory, run.config, pgd, **splits)
        for which in ("best", "best_by_validation"):
            columns = dict(zip(COLUMNS, rng.uniform(0.2, 0.8, len(COLUMNS)), strict=True))
            write_evaluation(run.directory, which, columns, epoch=epochs[which])
            found.setdefault((which, run.point.label), []).append(columns)
        found.setdefault((run.point.group, run.point.label), []).append(pgd)
    return found


def percent(values):
    """Returns the mean of two accuracies and Student's 95% interval, clipped to [0, 100], in %."""
    mean, half = 100 * np.mean(values), 12.7062 * 100 * np.std(values, ddof=1) / 2**0.5
    return pytest.approx((mean, max(0, mean - half), min(100, mean + half)), abs=0.01)


@pytest.fixture
def epochs_of_three():
    return ["epochs=3"]


def test_table_1(tmp_path, epochs_of_three):
    found = write_runs("table1", tmp_path)
    reproduce("table1", "digits", tmp_path, load_config, seeds=2, overrides=epochs_of_three * 2)
    report = tmp_path / "table1_digits"
    page = (report / "report.html").read_text()
    assert " Set by --override: epochs=3.<" in page and page.count("<figure>") == 1
    assert (report / "table1.png").stat().st_size > 10_000
    rows = read_csv(report / "table1.csv")
    assert len(rows) == 6
    row, runs = rows["L_2, digits, AT-RWP"], found[("l_2", "digits"), "AT-RWP"]
    assert with_interval(row, "best") == percent([max(pgd) for pgd in runs])
    assert with_interval(row, "last") == percent([pgd[-1] for pgd in runs])
    assert with_std(row, "paper: best") == "74.47±0.14"
    assert with_std(row, "paper: last") == "73.84±0.27"
    assert float(row["best by validation, low"]) < float(row["best by validation, high"])
    differences = read_csv(report / "table1_differences.csv")
    assert len(differences) == 6 and "[L_2, digits, AT-RWP] − [L_2, digits, AT-AWP]" in page
    gains = np.subtract(*(found[("l_2", "digits"), f"AT-{m}"] for m in ("RWP", "AWP")))[:, -1]
    row = differences["[L_2, digits, AT-RWP] − [L_2, digits, AT-AWP]"]
    assert float(row["last: PGD"]) == pytest.approx(100 * gains.mean(), abs=0.01)


def test_table_2(tmp_path, epochs_of_three):
    found = write_runs("table2", tmp_path)
    reproduce("table2", "digits", tmp_path, load_config, seeds=2, overrides=epochs_of_three)
    rows = read_csv(tmp_path / "table2_digits/table2.csv")
    assert len(rows) == 27
    for method, published in paper.TABLE_2.items():
        theirs = rows[f"{method}, paper, best"]
        assert [with_std(theirs, title) for title in COLUMNS.values()] == list(published)
        for which in ("best", "best_by_validation"):
            ours = rows[f"{method}, ours, {which.replace('_', ' ')}"]
            values = [columns["autoattack"] for columns in found[which, method]]
            assert with_interval(ours, "AutoAttack") == percent(values)


@pytest.mark.parametrize(
    "name", ["fig1a", "fig1b", "fig1c", "fig2a", "fig2b", "overfitting", "gamma"]
)
def test_the_other_figures(name, tmp_path, epochs_of_three):
    found = write_runs(name, tmp_path)
    reproduce(name, "digits", tmp_path, load_config, seeds=2, overrides=epochs_of_three)
    report = tmp_path / f"{name}_digits"
    assert (report / f"{name}.png").stat().st_size > 10_000
    rows = read_csv(report / f"{name}.csv")
    points = make_experiment(name, "digits").points
    assert len(rows) == len(points)
    for point in points:
        expected = percent([max(pgd) for pgd in found[point.group, point.label]])
        assert with_interval(rows[point.name], "best: PGD") == expected


def test_differences_are_paired_over_seeds(tmp_path, epochs_of_three):
    """Differences use five seeds by default."""
    found = write_runs("overfitting", tmp_path, seeds=None)
    reproduce("overfitting", "digits", tmp_path, load_config, overrides=epochs_of_three)
    report = tmp_path / "overfitting_digits"
    row = read_csv(report / "overfitting_differences.csv")["AT-RWP − AT"]
    rwp, at = (np.array([pgd[-1] for pgd in found[(), name]]) for name in ("AT-RWP", "AT"))
    interval = stats.ttest_rel(rwp, at).confidence_interval(0.95)
    expected = 100 * np.array([(rwp - at).mean(), *interval])
    assert with_interval(row, "last: PGD") == pytest.approx(tuple(expected), abs=0.01)
    assert row["seeds above, last: PGD"] == f"{(rwp > at).sum()} of 5"
    page = (report / "report.html").read_text()
    assert "15 of 15 runs are finished, 5 of a setting." in page
    assert "After the last epoch the interval of the difference is" in page


def test_published_curves_stand_beside_learning_curves_alone(tmp_path, epochs_of_three):
    write_runs("fig1a", tmp_path, seeds=1)
    curves = tmp_path / "curves.csv"
    header = "source,dataset,norm,model,method,epoch,test_acc,test_robust_acc"
    curves.write_text(f"{header}\nx,digits,linf,net,at,0,0.5,0.3\n")
    given = {"overrides": epochs_of_three, "curves": curves}
    reproduce("fig1a", "digits", tmp_path, load_config, **given)
    page = (tmp_path / "fig1a_digits/report.html").read_text()
    assert "Published curves: x-digits-linf-net-at." in page and "are dotted" in page
    with pytest.raises(InputError, match="curves= is for learning curves, experiment=fig2a has"):
        reproduce("fig2a", "digits", tmp_path, load_config, **given)


def test_the_short_scale_has_the_rows_of_l_inf(tmp_path, epochs_of_three):
    overrides = ["dtype=float32"]  # the tests' x64 mode excludes bfloat16
    settings = list(map(parse_override, overrides))
    plan = list_runs(make_experiment("table1", "short"), 1, settings, tmp_path, load_config)
    names = ["cifar10_at", "cifar10_at_awp", "cifar10_at_rwp"]
    assert [run.name for run in plan] == [f"short_{name}_seed0" for name in names]
    assert {run.config.epochs for run in plan} == {40}
    for run in plan:
        write_run(run.directory, run.config, [0.3] * 40)
    reproduce("table1", "short", tmp_path, load_config, overrides=overrides)
    rows = read_csv(tmp_path / "table1_short/table1.csv")
    assert list(rows) == [f"L_inf, CIFAR-10, AT{suffix}" for suffix in ("", "-AWP", "-RWP")]


def test_bad_input_comes_before_any_training(small, tmp_path, monkeypatch):
    monkeypatch.setattr(self_training, "train", lambda *_: pytest.fail("trained"))
    for overrides, message in (
        (["*rwp*:weight_perturbation.gamma=-1"], "run digits_at_rwp_seed0: config.weight_pert"),
        (["data.path=missing.npz", "data.name=npz"], "missing.npz"),
        (["epochs=0"], "run digits_at_seed0: config.epochs=0"),
    ):
        with pytest.raises(InputError, match=message):
            reproduce("fig2c", "digits", tmp_path / "w", load_config, overrides=overrides)
    assert not (tmp_path / "w").exists()
    with pytest.raises(
        InputError, match="run cifar10_rst_seed0: config.objective.name='rst' needs"
    ):
        reproduce("table2", "cifar10", tmp_path / "w", load_config)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="workdir=.*file"):
        reproduce("fig2c", "digits", tmp_path / "file", load_config, overrides=small)
