import importlib

import pytest

from rwp_jax.errors import InputError
from rwp_jax.reproduce import run_list
from rwp_jax.reproduce.experiments import make_experiment


def load_config(name):
    return importlib.import_module(f"rwp_jax.configs.{name}").get_config()


def make(path, *overrides, seeds=1):
    settings = [run_list.parse_override(text) for text in overrides]
    return run_list.list_runs(
        make_experiment("fig2c", "digits"), seeds, settings, path, load_config
    )


def test_overrides_of_all_runs_and_of_some(tmp_path):
    runs = make(tmp_path, "epochs=3", "*rwp*:weight_perturbation.gamma=1/50", "data.path=a=b")
    assert [run.config.epochs for run in runs] == [3, 3, 3]
    assert [run.config.weight_perturbation.gamma for run in runs] == [0.01, 0.01, 0.02]
    assert {run.config.data.path for run in runs} == {"a=b"}
    assert [run.name for run in runs] == [run.name for run in make(tmp_path)]


def test_seeds_come_one_after_the_other(tmp_path):
    names = [run.name for run in make(tmp_path, seeds=2)]
    assert names[:3] == ["digits_at_seed0", "digits_at_awp_seed0", "digits_at_rwp_seed0"]
    assert names[3] == "digits_at_seed1"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "must be KEY=VALUE, or PATTERN:KEY=VALUE"),
        ("=3", "must be KEY=VALUE"),
        (
            "epoch=3",
            "override=: epoch: no such key; did you mean epochs. rwp_jax.configs.default lists all keys",
        ),
        ("model=3", "override=: model: no such key; it is a section, with keys such as model."),
        ("weight_perturbation.name=awp", "weight_perturbation.name is set by the experiment"),
        ("threat.norm=l_2", "threat.norm is set by the experiment itself"),
        ("seed=3", "override=: seed: no such key; seeds= sets it"),
        ("epochs=many", "override=epochs=many must be of type int"),
        ("epochs=2.5", "must be of type int"),
        ("threat.epsilon=8/0", "must be of type float"),
        ("augment.flip=1", "must be of type bool"),
        ("model.mean=0.5", "must be of type tuple"),
        ("*trades*:epochs=3", "override=\\*trades\\*:epochs: no run of that name"),
    ],
)
def test_overrides_that_do_not_fit(override, message, tmp_path):
    with pytest.raises(InputError, match=message):
        make(tmp_path, override)


def test_choosing_runs(tmp_path):
    runs = make(tmp_path)
    assert [run.name for run in run_list.select(runs, "*awp*,*rwp*")] == [
        run.name for run in runs[1:]
    ]
    with pytest.raises(InputError, match="only=x: no run of that name; list= shows them"):
        run_list.select(runs, "x")
    with pytest.raises(InputError, match="seeds=0 must be at least 1"):
        make(tmp_path, seeds=0)


def test_a_directory_of_another_config_is_refused(tmp_path):
    (run, *_) = make(tmp_path)
    run.directory.mkdir(parents=True)
    (run.directory / "config.json").write_text(run.config.to_json())
    run_list.check_directory(run)
    with pytest.raises(InputError, match="holds a run of another config .epochs=150 there, 2 here"):
        run_list.check_directory(make(tmp_path, "epochs=2")[0])
