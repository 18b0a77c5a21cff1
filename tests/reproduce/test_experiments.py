"""The experiments consist of the paper's configs in configs/."""

import importlib
import re

import pytest

from rwp_jax.errors import InputError
from rwp_jax.reproduce.experiments import EXPERIMENTS, make_experiment
from rwp_jax.reproduce.run_list import list_runs
from rwp_jax.reproduce.scales import SCALES


def load_config(name):
    module, _, argument = name.partition(":")
    return importlib.import_module(f"rwp_jax.configs.{module}").get_config(
        *filter(None, [argument])
    )


def plan(name, scale, path, **arguments):
    experiment = make_experiment(name, scale)
    settings = {"seeds": 1, "overrides": []} | arguments
    return list_runs(experiment, directory=path, load_config=load_config, **settings)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_runs_of_different_names(name, scale, tmp_path):
    runs = plan(name, scale, tmp_path, seeds=2)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert {run.config.seed for run in runs} == {0, 1}
    configs = {run.config.to_json(sort_keys=True) for run in runs}
    assert len(configs) == len(runs), "no setting is trained twice"


def as_in_configs(run, name):
    """Returns whether a run's config equals a config file's, except for the network."""
    ours, theirs = run.config.to_dict(), load_config(name).to_dict()
    theirs["model"]["name"] = ours["model"]["name"]
    return ours == theirs


def test_table_1_is_trained_by_the_papers_configs(tmp_path):
    runs = {run.name: run for run in plan("table1", "cifar10", tmp_path)}
    assert len(runs) == 18
    for data in ("svhn", "cifar10", "cifar100"):
        for method in ("", "_awp", "_rwp"):
            assert as_in_configs(runs[f"{data}_at{method}_seed0"], f"{data}_at{method}")
            assert as_in_configs(runs[f"{data}_at_l2{method}_seed0"], f"{data}_at{method}:l2")


def test_table_2_is_trained_by_the_papers_configs(tmp_path):
    runs = {run.name: run for run in plan("table2", "cifar10", tmp_path)}
    assert len(runs) == 9
    for objective, network in (("at", "wrn-34-10"), ("trades", "wrn-34-10"), ("rst", "wrn-28-10")):
        for method in ("", "_awp", "_rwp"):
            suffix = "_wrn-34-10" if objective == "at" else ""
            run = runs[f"cifar10_{objective}{method}{suffix}_seed0"]
            assert as_in_configs(run, f"cifar10_{objective}{method}")
            assert run.config.model.name == network


def test_experiments_share_runs(tmp_path):
    curves = {run.name: run.config.to_json() for run in plan("fig2c", "digits", tmp_path)}
    for name in ("fig2a", "fig2b", "fig1b", "fig1c", "table1", "overfitting", "gamma"):
        others = {run.name: run.config.to_json() for run in plan(name, "digits", tmp_path)}
        shared = curves.keys() & others.keys()
        assert shared and all(curves[run] == others[run] for run in shared)


def test_figure_1b_and_1c_set_what_they_go_over(tmp_path):
    gammas = [
        (r.config.weight_perturbation.name, r.config.weight_perturbation.gamma)
        for r in plan("fig1b", "cifar10", tmp_path)
    ]
    assert gammas[0][0] == "none"
    assert gammas[1:] == [("awp", 0.01 * 2.0**power) for power in range(-3, 4)]
    ranges = [
        (r.config.weight_perturbation.lsc_low, r.config.weight_perturbation.lsc_high)
        for r in plan("fig1c", "cifar10", tmp_path)
        if r.point.group == ()
    ]
    assert ranges[0][0] == 0 and ranges[-1][1] == float("inf")
    assert all(a[1] == b[0] for a, b in zip(ranges, ranges[1:], strict=False)), "no gap"


def test_unknown_names():
    with pytest.raises(InputError, match="experiment=fig3 must be one of table1, table2, fig1a"):
        make_experiment("fig3", "digits")
    with pytest.raises(InputError, match="scale=mnist must be one of digits, cifar10, short"):
        make_experiment("fig1a", "mnist")


def test_titles_claim_nothing():
    for name in ("overfitting", "gamma", "table1"):
        assert not re.search(
            "cure|better|robust overfitting", make_experiment(name, "digits").title
        )


@pytest.mark.parametrize("scale", SCALES)
def test_methods_are_compared_in_each_part_of_table_1(scale):
    experiment = make_experiment("table1", scale)
    names = {point.name for point in experiment.points}
    assert len(experiment.pairs) == len(names)
    assert {name for pair in experiment.pairs for name in pair} == names
