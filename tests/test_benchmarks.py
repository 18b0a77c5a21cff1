"""Benchmarks follow the code they time; what they measure is not tested."""

import numpy as np
import pytest

from benchmarks import compile_time


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
