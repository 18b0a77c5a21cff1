"""The benchmark of kernels adds up what a profile holds."""

import jax
import pytest

from benchmarks import kernel_times
from benchmarks.kernel_times import Launch, busy, launches, totals
from rwp_jax.hardware.counts import Part
from rwp_jax.hardware.kernels import Kernel


def kernel(name, opcode="fusion", flops=0, reduces=False):
    return Kernel(name, opcode, f"jit(step)/{name}", 100, flops, 1e-6, reduces, 0, 0.0, False)


def test_launches_by_instruction_and_by_name_of_the_fusion():
    parts = [
        Part("attack", 10, (kernel("conv.1", "custom-call", 8), kernel("sum.2", reduces=True)), 0),
        Part("rest", 1, (kernel("copy.3", "copy"), kernel("all-reduce.4", "all-reduce")), 0),
    ]
    ran = [
        Launch("sm90_xmma", "conv.1", 0, 3000),  # one instruction may launch several kernels
        Launch("transpose", "conv.1", 3000, 1000),
        Launch("sum_2", None, 5000, 2000),
        Launch("memcpy", "copy.3", 6000, 500),
        Launch("nccl", "all-reduce.4", 9000, 100),
        Launch("memset", None, 9100, 200),
    ]
    rows = {row.name: row for row in totals(ran, parts, {"attack": 10}, steps=2)}
    assert list(rows) == ["conv.1", "sum_2", "copy.3", "memset", "all-reduce.4"]  # costliest first
    assert [(row.loop, row.kind) for row in rows.values()] == [
        ("attack", "matrix products"),
        ("attack", "reduction"),
        ("rest", "copy"),
        (kernel_times.UNKNOWN, kernel_times.UNKNOWN),
        ("rest", "collective"),
    ]
    assert rows["conv.1"].kernels == ("sm90_xmma", "transpose")
    assert rows["conv.1"].launches == 1 and rows["conv.1"].seconds == pytest.approx(2e-6)
    assert [row.floor for row in rows.values()] == pytest.approx([1e-5, 1e-5, 1e-6, 0, 1e-6])
    assert busy(ran) == pytest.approx((4000 + 2000 + 300) / 1e9)
    text = kernel_times.table(list(rows.values()), 2)
    assert "attack: matrix products" in text and text.splitlines()[-1].endswith("jit(step)/sum.2")


def test_a_profile_of_this_device(tmp_path):
    double = jax.jit(lambda x: x @ x)
    x = jax.numpy.ones((256, 256))
    double(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        double(x).block_until_ready()
    ran = launches(str(tmp_path))
    assert ran and all(launch.instruction and launch.duration > 0 for launch in ran)
