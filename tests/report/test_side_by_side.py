import csv
import json

import pytest

from rwp_jax.configs import digits_at, digits_at_awp, digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.report.side_by_side import compare
from tests.small import write_evaluation, write_run


def config_of_seed(seed):
    config = digits_at.get_config("full")
    config.seed = seed
    return config


@pytest.fixture
def runs(tmp_path):
    directories = [
        write_run(tmp_path / "at0", config_of_seed(0), [0.2, 0.4]),
        write_run(tmp_path / "at1", config_of_seed(1), [0.2, 0.5]),
        write_run(tmp_path / "awp", digits_at_awp.get_config("full"), [0.1], finished=False),
    ]
    write_evaluation(directories[0], "best", {"natural": 0.5}, epoch=1)
    return directories


def test_runs_that_differ_in_the_seed_are_one_row(runs, tmp_path):
    output = tmp_path / "report"
    compare(runs, output)
    with (output / "accuracies.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    at, awp = rows["at0"], rows["awp"]
    assert (at["best: PGD"], at["best: PGD, low"], at["seeds"]) == ("45.00", "0.00", "2")
    assert (awp["last: PGD"], awp["last: PGD, low"]) == ("10.00", "7.31")
    page = (output / "report.html").read_text()
    assert f"Not finished: {runs[2]}." in page and "The attacks of Table 2" in page
    assert (output / "learning_curves.png").exists() and (output / "attacks.csv").exists()


def rows_of(output):
    with (output / "accuracies.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_runs_of_before_keys_came_are_the_same_setting(tmp_path):
    runs = [write_run(tmp_path / f"at{seed}", config_of_seed(seed), [0.2, 0.4]) for seed in (0, 1)]
    older = json.loads((runs[0] / "config.json").read_text())
    older["data"]["train_examples"] = 0
    for config, path in ((older, runs[0]), (older | {"seed": 1}, runs[1])):
        (path / "config.json").write_text(json.dumps(config))
    del older["data"]["train_examples"]
    older["evaluation"]["every"] = 1
    (runs[1] / "config.json").write_text(json.dumps(older | {"seed": 1}))
    first = json.loads((runs[0] / "config.json").read_text())
    del first["evaluation"]["every"]
    (runs[0] / "config.json").write_text(json.dumps(first))
    compare(runs, tmp_path / "report")
    assert {name: row["seeds"] for name, row in rows_of(tmp_path / "report").items()} == {
        "at0": "2"
    }


def test_what_is_one_run_counts_once_and_what_is_not_as_far_apart(runs, tmp_path, capsys):
    again = write_run(tmp_path / "again", config_of_seed(0), [0.2, 0.3])
    shorter = write_run(tmp_path / "shorter", config_of_seed(2), [0.2], finished=False)
    config = config_of_seed(3)
    config.checkpoint_steps = 7  # does not change the result of a run
    other = write_run(tmp_path / "other", config, [0.2, 0.6])
    compare([runs[0], runs[0], again, shorter, runs[1], other], tmp_path / "report")
    seeds = {name: row["seeds"] for name, row in rows_of(tmp_path / "report").items()}
    assert seeds == {"at0": "3", "again": "1", "shorter": "1"}
    printed = capsys.readouterr().out
    assert f"Given more than once, shown once: {runs[0]}." in printed
    assert f"Not finished: {shorter}." in printed


def test_directories_of_one_name_are_told_apart(tmp_path):
    runs = [
        write_run(tmp_path / "a/run", digits_at.get_config("full"), [0.2]),
        write_run(tmp_path / "b/run", digits_at_awp.get_config("full"), [0.3]),
    ]
    compare(runs, tmp_path / "report")
    with (tmp_path / "report/accuracies.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == list(map(str, runs))


def test_published_curves(runs, tmp_path, capsys):
    curves = tmp_path / "curves.csv"
    header = "source,dataset,norm,model,method,epoch,test_acc,test_robust_acc\n"
    curves.write_text(header + "x,cifar10,linf,net,at,0,0.5,0.3\n")
    compare(runs, tmp_path / "report", curves)
    assert "No curve in" in capsys.readouterr().out
    without = (tmp_path / "report/learning_curves.png").read_bytes()
    compare(runs, tmp_path / "report", curves, "x-*")
    assert (tmp_path / "report/learning_curves.png").read_bytes() != without
    source = f"Published curves, from {curves}, for as many epochs as the runs have: x-cifar10-linf-net-at."
    assert source in (tmp_path / "report/report.html").read_text()


def test_bad_input_leaves_nothing(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="^[^:]*empty holds no run with metrics"):
        compare([*runs, tmp_path / "empty"], tmp_path / "report")
    with pytest.raises(InputError, match="curves=.*missing.csv cannot be read"):
        compare(runs, tmp_path / "report", tmp_path / "missing.csv")
    assert not (tmp_path / "report").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="workdir=.*file is a file"):
        compare(runs, tmp_path / "file")


def test_settings_are_shown_and_incomparable_runs_named(tmp_path, capsys):
    rwp, other_seed, wider = (
        module.get_config("full") for module in (digits_at_rwp, digits_at_rwp, digits_at)
    )
    other_seed.seed, wider.threat.epsilon, wider.seed = 1, 0.05, 7
    runs = [
        write_run(tmp_path / "rwp", rwp, [0.2]),
        write_run(tmp_path / "rwp1", other_seed, [0.3]),
        write_run(tmp_path / "wider", wider, [0.1]),
    ]
    compare(runs[:2], tmp_path / "same")
    assert "not comparable" not in capsys.readouterr().out
    compare(runs, tmp_path / "report")
    radii = f"radii (0.05, {rwp.threat.epsilon:g})"
    remark = f"These runs have different {radii}: their accuracies are not comparable."
    assert remark in capsys.readouterr().out
    assert remark in (tmp_path / "report/report.html").read_text()
    with (tmp_path / "report/settings.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    ours = rows["rwp"]
    assert (ours["data"], ours["norm"], ours["ε"], ours["seeds"]) == (
        *("digits", "L∞", f"{rwp.threat.epsilon:g}"),
        "0, 1",
    )
    assert (ours["weight perturbation"], ours["γ"], ours["K2"]) == ("RWP", "0.01", "10")
    assert ours["c_min"] == f"{rwp.weight_perturbation.c_min:g}"
    assert (rows["wider"]["γ"], rows["wider"]["seeds"]) == ("", "7")
