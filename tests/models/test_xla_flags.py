"""XLA's flags are set for CPUs unless the user has set them or XLA may not know them."""

import os
import subprocess
import sys

import pytest

from rwp_jax.models import convolution, xla_flags

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
SET = f"{FLAG}=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", f" {SET}"),
        ("--a=1", f"--a=1 {SET}"),
        (f"{FLAG}=x", f"{FLAG}=x"),
        (FLAG, FLAG),
        (f"{FLAG}_2=0", f"{FLAG}_2=0 {SET}"),
        ("flags.txt", "flags.txt"),
    ],
)
def test_the_users_flags_are_kept(monkeypatch, flags, expected):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(xla_flags, "_ACCELERATORS", ())
    convolution.prefer_eigen()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("", None), ("--x_2=1", None), ("--x", "true"), ("--x=", ""), ("--x=1 --y --x=2", "2")],
)
def test_the_last_value_counts(monkeypatch, flags, expected):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert xla_flags.value("--x") == expected


def test_flags_are_not_set_where_xla_may_not_know_them(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(xla_flags, "_ACCELERATORS", ("jax",))
    xla_flags.set_for_cpus("--x", "1")
    monkeypatch.setattr(xla_flags, "_ACCELERATORS", ())
    monkeypatch.setattr(xla_flags.jaxlib.version, "__version_info__", (0, 99, 0))
    xla_flags.set_for_cpus("--x", "1")
    assert os.environ["XLA_FLAGS"] == ""


def test_xla_knows_the_flag():
    """XLA aborts on flags that it does not know."""
    program = "from rwp_jax.models import convolution as c; c.prefer_eigen(); import jax; jax.numpy.ones(2)"
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
