"""Budgets for the compiled programs of an H100 and a TPU slice, so that they do not grow unnoticed.

Needs both compilers (`pip install -e ".[compile-gpu,compile-tpu]"`), not the hardware. Commands run in
separate processes, in float32 and without virtual devices, as users run them.
"""

import functools
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SLACK = 1.02  # for differences between compiler versions

needs_cuda = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))),
    reason='JAX\'s compiler for GPUs is not installed (pip install -e ".[compile-gpu]")',
)
needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"),
    reason='JAX\'s compiler for TPUs is not installed (pip install -e ".[compile-tpu]")',
)


def run(*command) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Returns a function from (target, devices) to the figures of each loop, by name, and the memory."""

    @functools.cache
    def figures(target: str, devices: int, *flags: str) -> dict[str, Any]:
        output = tmp_path_factory.mktemp("compiled") / "compiled.json"
        command = ["-m", "benchmarks.compiled", "--config", "configs/cifar10_at_rwp.py"]
        command += ["--target", target, "--devices", str(devices), "--json", output]
        run(*command, "--model", "wrn-10-1", "--dtype", "bfloat16", *flags)
        content = json.loads(output.read_text())
        loops = {loop["name"]: loop for loop in content["loops"]}
        return loops | {"memory": content["memory_bytes"]}

    return figures


@pytest.mark.parametrize(
    ("target", "devices", "name", "kernels", "megabytes", "gigaflop"),
    [
        pytest.param("h100", 1, "attack", 85, 285.3, 5.93, marks=needs_cuda),
        pytest.param("h100", 1, "perturb", 136, 322.5, 8.78, marks=needs_cuda),
        pytest.param("h100", 8, "attack", 104, 47.7, 0.74, marks=needs_cuda),
        pytest.param("h100", 8, "perturb", 154, 55.3, 1.10, marks=needs_cuda),
        # The batch stays in on-chip memory, so few bytes are counted.
        pytest.param("v5e:2x2", 4, "attack", 157, 0.1, 1.48, marks=needs_libtpu),
        pytest.param("v5e:2x2", 4, "perturb", 248, 0.32, 2.20, marks=needs_libtpu),
    ],
)
def test_budgets(compiled, target, devices, name, kernels, megabytes, gigaflop):
    loop = compiled(target, devices)[name]
    assert loop["kernels"] <= SLACK * kernels
    assert loop["bytes"] / 1e6 <= SLACK * megabytes
    assert loop["flops"] / 1e9 == pytest.approx(gigaflop, rel=0.01)


@needs_cuda
@pytest.mark.parametrize(
    ("name", "kernels", "megabytes"), [("attack", 200, 2_100), ("perturb", 330, 2_700)]
)
def test_limits_of_the_papers_network(compiled, name, kernels, megabytes):
    """PreActResNet-18 at batch 128 stays within the limits that its programs were made to meet."""
    loop = compiled("h100", 1, "--model", "preactresnet18")[name]
    assert loop["kernels"] <= kernels
    assert loop["bytes"] / 1e6 <= megabytes


@needs_cuda
def test_eight_h100s_exchange_moments_and_gradients(compiled):
    attack, perturb = (compiled("h100", 8)[name]["collectives"] for name in ("attack", "perturb"))
    moments = 2 * 7  # 7 BatchNorm layers, forward and backward
    assert attack["number"] == moments
    # The number of open gates, and the gradients as one vector.
    assert perturb["number"] == moments + 2
    gradients = 4 * 77_850  # bytes, in float32
    assert gradients < perturb["bytes"] < 1.1 * gradients


@needs_cuda
def test_recomputed_blocks_need_less_memory(compiled):
    model = ("--model", "wrn-22-1")  # deep enough that the block being recomputed is a small part
    usual, recomputed = compiled("h100", 1, *model), compiled("h100", 1, *model, "--remat")
    # An activation of the first three blocks takes 4.2 MB; of each, one is kept instead of four.
    assert recomputed["memory"] < usual["memory"] - 20e6
    for name in ("attack", "perturb"):
        assert 1 < recomputed[name]["flops"] / usual[name]["flops"] < 1.25


@needs_libtpu
def test_plan_for_a_tpu_slice():
    command = ["main.py", "--mode", "plan", "--config", "configs/cifar10_at_rwp.py"]
    text = run(*command, "--target", "v5e:2x2", "--config.model.name=wrn-10-1")
    found = re.search(r"fits: ([\d.]+) of 16 GB per device; at least ([\d.]+) ms per step", text)
    assert found, text
    assert float(found[1]) < 1
    assert 0.1 < float(found[2]) < 20
    assert "for 200 epochs" in text and "with k = 10: at least" in text
