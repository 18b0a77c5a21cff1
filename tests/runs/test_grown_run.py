"""A run that begins on one device, is extended, killed, moved and continued on eight, through main.py."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from rwp_jax.runs import history
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.metrics import FILE, read_metrics

ROOT = pathlib.Path(__file__).parents[2]
OVERRIDES = {
    "dtype": "float64",
    "epoch_examples": 160,
    "batch_size": 16,
    "checkpoint_steps": 3,
    "attack.steps": 3,
    "weight_perturbation.steps": 3,
    "optimizer.schedule": "constant",
    "evaluation.steps": 1,
    "evaluation.batch_size": 120,
    "evaluation.train_examples": 0,
}


def start(directory, *arguments, devices=1, **overrides):
    overrides = OVERRIDES | overrides
    command = [sys.executable, "main.py", f"--workdir={directory}", *arguments]
    if "--mode=evaluate" not in arguments:
        command += ["--config=configs/digits_at_rwp.py:full"]
        command += [f"--config.{key}={value}" for key, value in overrides.items()]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **output)


def run(*arguments, **keywords):
    """Returns the exit code and what the program said."""
    process = start(*arguments, **keywords)
    said, _ = process.communicate()
    return process.returncode, said


def final(directory):
    checkpoints = Checkpoints(directory)
    return jax.tree.leaves(checkpoints.load(checkpoints.find("last")))


@pytest.mark.slow
def test_it_equals_a_longer_run(tmp_path):
    """Sums round differently on eight devices; float64 keeps the difference small."""
    one, moved = tmp_path / "one", tmp_path / "elsewhere" / "moved"
    assert run(tmp_path / "whole", epochs=5)[0] == 0
    assert run(one, epochs=2)[0] == 0
    code, said = run(one, epochs=5)
    assert code == 2 and said.endswith("or continue it with these changes by --extend\n")

    process = start(one, "--extend", epochs=5)
    before = len(read_metrics(one))
    while process.poll() is None and len(read_metrics(one)) == before:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    moved.parent.mkdir()
    one.rename(moved)
    code, said = run(moved, devices=8, epochs=5)
    assert code == 0 and "resuming" in said, said

    whole = tmp_path / "whole"
    assert (moved / FILE).read_text().splitlines()[:4] == (whole / FILE).read_text().splitlines()[
        :4
    ]
    for ours, theirs in zip(final(moved), final(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * max(np.abs(theirs).max(), 1))
    (change,) = history.read(moved)[1].changes
    assert (change.after_epochs, change.keys) == (2, {"epochs": [2, 5]})

    arguments = "--mode=evaluate", "--checkpoint=last", "--attacks=natural"
    code, said = run(moved, *arguments, devices=8)
    assert code == 0, said
    evaluation = json.loads((moved / "evaluation/last/evaluation.json").read_text())
    natural = [r["natural_accuracy"] for r in read_metrics(moved) if r["split"] == "test"][-1]
    assert evaluation["columns"]["natural"]["accuracy"] == natural and evaluation["epoch"] == 5

    # Another batch size, and so another number of steps in an epoch.
    other = {"epochs": 6, "batch_size": 32, "optimizer.schedule": "piecewise"}
    code, said = run(moved, "--extend", **other)
    assert code == 0 and "config.batch_size=32 (was 16)" in said, said
    assert [(r["step"], r["epoch"]) for r in read_metrics(moved)[-3:]] == [
        (50, 4),
        (55, 5),
        (55, 5),
    ]
    assert (
        read_metrics(moved)[-2]["learning_rate"] == 0.0005
    )  # a hundredth: five of six epochs are done
