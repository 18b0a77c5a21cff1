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
from tests.small import shrink, write_two_classes

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
