"""Several runs at a time, each in its own process."""

import os
import re
import types

import pytest

from rwp_jax.distributed.preemption import EXIT_CODE, Interrupted
from rwp_jax.errors import InputError
from rwp_jax.reproduce import jobs
from rwp_jax.reproduce.experiments import make_experiment
from rwp_jax.reproduce.reproduce import reproduce
from rwp_jax.reproduce.run_list import list_runs
from rwp_jax.training.divergence import NonFiniteLoss
from tests.reproduce.test_reproduce import SMALL, load_config, read_csv
from tests.small import write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Returns overrides for runs of two epochs of two steps on two easy classes."""
    path = write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", train=50, test=20)
    return [*SMALL, f"data.path={path}"]


needs_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU core")


@needs_cores
def test_several_runs_at_a_time(small, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    diverging = "*_awp_*:optimizer.learning_rate=1e30"
    with pytest.raises(NonFiniteLoss, match="^digits_at_awp_seed0: the loss became"):
        settings = [*small, diverging]
        wanted = "*awp*,*_at_seed0"
        reproduce("fig2c", "digits", tmp_path, load_config, overrides=settings, only=wanted, jobs=2)
    said = capfd.readouterr().out
    assert "digits_at_seed0: started, 1 waiting" in said
    assert "digits_at_seed0: finished in" in said
    assert re.search("digits_at_awp_seed0: .* at step ", said)
    assert list(read_csv(tmp_path / "fig2c_digits/fig2c.csv")) == ["AT"]
    log = (tmp_path / "runs/digits_at_seed0.log").read_text()
    assert "epoch 2/2" in log and "Traceback" not in log


def test_more_jobs_than_cores(small, tmp_path):
    for count in (0, 1000):
        with pytest.raises(InputError, match=f"jobs={count} must be in"):
            reproduce("fig2c", "digits", tmp_path / "w", load_config, overrides=small, jobs=count)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("code", "raised", "message"),
    [
        (
            1,
            InputError,
            "run digits_at_gamma0.02_seed0 ended with exit code 1: MemoryError .all of it",
        ),
        (-9, InputError, "ended with exit code -9"),
        (jobs.BAD_INPUT, InputError, "run digits_at_gamma0.02_seed0: MemoryError$"),
        (EXIT_CODE, Interrupted, "run digits_at_gamma0.02_seed0: MemoryError"),
    ],
)
def test_a_run_that_crashes_is_no_run_that_diverged(code, raised, message, tmp_path):
    (run, *_) = list_runs(make_experiment("fig1a", "digits"), 1, [], tmp_path, load_config)
    run = run._replace(name="digits_at_gamma0.02_seed0")
    run = run._replace(directory=tmp_path / run.name)
    assert jobs.log_of(run).name == "digits_at_gamma0.02_seed0.log"
    jobs.log_of(run).write_text("Traceback\nMemoryError\n\n")
    job = jobs._Job(run, types.SimpleNamespace(returncode=code), began=0.0)
    with pytest.raises(raised, match=message):
        jobs._judge(job)
