"""Benchmarks work with the current code; their measurements are not tested."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import compile_time

ROOT = pathlib.Path(__file__).parents[1]


def test_the_training_step_is_traced():
    assert "while" in compile_time.trace_step("wrn-10-1", 8).as_text()


@pytest.mark.parametrize("objective", ["at", "trades"])
def test_the_pytorch_step_runs(objective):
    torch = pytest.importorskip("torch")
    from benchmarks.torch_reference import STEPS

    step = STEPS[objective]("wrn-10-1", c_min=float("inf"))
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    loss = step(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert np.isfinite(loss)
    changed = [(a != b).any() for a, b in zip(before, step.model.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--devices", "two"), "--devices=two must be an integer"),
        (("--target", "h100:9"), "--target='h100:9': h100 has at most 8 devices"),
        (("--json", ""), "--json must name a file"),
        (("--json", "x", "--hlo", "./x"), "--hlo=./x is also the file of --json, must be another"),
        (("--json", "/dev/full/x"), "--json=/dev/full/x cannot be written: Not a directory"),
        (("--model", "wrn-11-1", "--target", "h1000"), "--target='h1000' must be one of a100"),
    ],
)
def test_compiled_says_in_a_line_what_is_wrong(arguments, message, tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.compiled",
        "--config",
        "cifar10_at_rwp",
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2 and not list(tmp_path.iterdir())
    assert result.stderr.startswith(f"benchmarks.compiled: {message}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((), {}, "PART= must be one of check, speed, profile, rivals, train, attacks, options"),
        (("fast", "results"), {}, "PART=fast must be one of check"),
        (("check",), {}, "RESULTS, a directory, is missing"),
        (("check", "results"), {"LIMIT": "1m"}, "LIMIT=1m must be an integer number of seconds"),
        (("check", "results"), {"PYTHON": "/no/python"}, "PYTHON=/no/python is not an interpreter"),
        (("train", "results"), {"DATA": "no.npz"}, "DATA=.*no.npz must name an npz"),
        (("check", "/dev/null"), {}, "RESULTS=/dev/null must be a writable directory"),
    ],
)
def test_the_script_for_a_gpu_refuses_before_it_writes(arguments, settings, message, tmp_path):
    command = ["bash", ROOT / "benchmarks/gpu.sh", *arguments]
    environment = os.environ | {"PYTHON": sys.executable} | settings
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2 and not list(tmp_path.iterdir())
    assert re.fullmatch(f"benchmarks/gpu.sh: {message}.*\n", result.stderr)
