"""Averaged weights of a run against the average computed from the weights after each step."""

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import trainer
from rwp_jax.training.config_checks import check_numbers
from rwp_jax.training.recipe import averaging_of
from rwp_jax.training.weight_averaging import Average, averaged
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")

DECAY, STEPS = 0.2, 4  # the decay (1 + t) / (10 + t) is capped at 0.2 from t = 2 on


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains with one step per epoch; returns directory, summary, and the initial and all later states."""
    directory = tmp_path_factory.mktemp("run")
    path = write_two_classes(directory / "data.npz", 16, 20)
    changes = {"data.path": path, "epochs": STEPS, "ema_decay": DECAY}
    states = []
    save, init = Checkpoints.save, trainer.init_state

    def keep(self, state, record):
        states.append(jax.device_get(state))
        save(self, state, record)

    def keep_first(*arguments):
        state = init(*arguments)
        states.append(jax.device_get(state))
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", keep)
        patch.setattr(trainer, "init_state", keep_first)
        config = shrink(digits_at_rwp.get_config(), **changes)
        summary = trainer.train(config, directory / "run")
    return directory / "run", summary, states


def test_the_average(run):
    _, _, states = run
    leaves = lambda state: jax.tree.leaves((state.params, state.batch_stats))
    expected = leaves(states[0])
    for t, state in enumerate(states[1:]):
        d = [0.1, 2 / 11, 0.2, 0.2][t]
        pairs = zip(expected, leaves(state), strict=True)
        expected = [d * average + (1 - d) * new for average, new in pairs]
        found = jax.tree.leaves((state.ema.params, state.ema.batch_stats))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    assert len(expected) > 30


def test_it_is_evaluated_and_kept(run):
    directory, summary, states = run
    tests = [record for record in read_metrics(directory) if record["split"] == "test"]
    best = max(tests, key=lambda r: (r["ema_pgd_accuracy"], -r["epoch"]))
    assert summary["best_ema"]["epoch"] == best["epoch"] + 1
    assert summary["last_ema"]["ema_natural_accuracy"] == tests[-1]["ema_natural_accuracy"]
    raw, average = load_run(directory, "last"), load_run(directory, "last_ema")
    for loaded, expected in ((raw, states[-1]), (average, states[-1].ema)):
        for collection in ("params", "batch_stats"):
            leaves = map(
                jax.tree.leaves, (getattr(loaded, collection), getattr(expected, collection))
            )
            assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def test_a_run_without_refuses(run, tmp_path):
    path = write_two_classes(tmp_path / "data.npz", 16, 20)
    config = shrink(digits_at_rwp.get_config(), **{"data.path": path, "epochs": 1})
    summary = trainer.train(config, tmp_path / "run")
    assert not [key for key in summary if "ema" in key]
    with pytest.raises(InputError, match="checkpoint=last_ema: the run in .* averaged no weights"):
        load_run(tmp_path / "run", "last_ema")
    config.ema_decay = 1.0
    with pytest.raises(InputError, match=r"config.ema_decay=1.0 must be in \[0, 1\)"):
        trainer.train(config, tmp_path / "other")


def of_wang(weights, decay, warm_up):
    """Yields the averages of Wang et al. (2023) of a sequence of arrays, whose updates count from 1."""
    average = weights[0]
    for updates, new in enumerate(weights[1:], 1):
        since = updates - warm_up
        d = min(decay, (1 + since) / (10 + since)) * (updates >= warm_up)
        average = d * average + (1 - d) * new
        yield average


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("decay", [0.995, 0.3])
def test_it_begins_after_a_share_of_training(decay, copies):
    """A quarter of twenty steps: the first average that is none of the weights comes with update 5."""
    config = shrink(digits_at_rwp.get_config())
    config.epochs, config.ema_decay, config.ema_start = 4, decay, 0.25
    config.ema_copy_batch_stats = copies
    settings = averaging_of(config, steps_per_epoch=5, shift=0)
    rng = np.random.default_rng(0)
    weights, statistics = rng.standard_normal((2, 21, 3))
    average = Average({"w": weights[0]}, {"mean": statistics[0]})
    expected = zip(*(of_wang(values, decay, 5) for values in (weights, statistics)), strict=True)
    for step, (w, mean) in enumerate(expected):
        current = {"w": weights[step + 1]}, {"mean": statistics[step + 1]}
        average = averaged(average, *current, settings, np.int32(step))
        mean = statistics[step + 1] if copies else mean
        np.testing.assert_allclose(average.params["w"], w, rtol=0, atol=1e-10)
        np.testing.assert_allclose(average.batch_stats["mean"], mean, rtol=0, atol=1e-10)
        assert np.array_equal(average.params["w"], weights[step + 1]) == (step < 4)


def test_its_start_follows_the_epochs_of_an_extended_run():
    config = shrink(digits_at_rwp.get_config())
    config.epochs, config.ema_decay, config.ema_start = 10, 0.9, 0.1
    assert averaging_of(config, steps_per_epoch=30, shift=0).first_step == 29  # 0.1 * 300 > 30
    # Earlier epochs had ten steps fewer altogether.
    assert averaging_of(config, steps_per_epoch=30, shift=10).first_step == 19
    config.ema_start = 0.0
    assert averaging_of(config, steps_per_epoch=30, shift=10).first_step == 0


def test_settings_without_an_average_are_refused():
    config = shrink(digits_at_rwp.get_config())
    config.ema_start = 0.5
    with pytest.raises(InputError, match="config.ema_start=0.5 needs config.ema_decay > 0"):
        check_numbers(config)
    config.ema_decay, config.ema_start = 0.9, 1.0
    with pytest.raises(InputError, match=r"config.ema_start=1.0 must be in \[0, 1\)"):
        check_numbers(config)
    config.ema_decay, config.ema_start, config.ema_copy_batch_stats = 0.0, 0.0, True
    with pytest.raises(InputError, match="ema_copy_batch_stats=True needs config.ema_decay > 0"):
        check_numbers(config)
