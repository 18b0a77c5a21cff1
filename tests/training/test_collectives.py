"""On several CPU devices, cached programs need their operations in order."""

import os
import subprocess
import sys
import warnings

import jax
import pytest

from rwp_jax.errors import RunWarning
from rwp_jax.models import xla_flags
from rwp_jax.training import collectives


@pytest.mark.skipif(
    xla_flags.has_accelerator_plugin(),
    reason="the flag is not set beside an accelerator's plugin",
)
def test_the_tests_themselves_keep_the_order():
    assert f"{collectives.CONCURRENT}=false" in os.environ["XLA_FLAGS"]


@pytest.mark.parametrize(
    ("flags", "devices", "expected"),
    [
        ("", 8, f" {collectives.CONCURRENT}=false"),
        ("--a=1", 8, f"--a=1 {collectives.CONCURRENT}=false"),
        (f"{collectives.CONCURRENT}=true", 8, f"{collectives.CONCURRENT}=true"),
        ("flags.txt", 8, "flags.txt"),
        (
            f"{collectives.CONCURRENT}_2=0",
            8,
            f"{collectives.CONCURRENT}_2=0 {collectives.CONCURRENT}=false",
        ),
        ("", -1, ""),
        (
            "--xla_force_host_platform_device_count=2",
            -1,
            f"--xla_force_host_platform_device_count=2 {collectives.CONCURRENT}=false",
        ),
    ],
)
def test_the_flag_is_set_for_several_devices(monkeypatch, flags, devices, expected):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(xla_flags, "_ACCELERATORS", ())
    number = {"jax_num_cpu_devices": devices}
    monkeypatch.setattr(collectives.jax, "config", type("Config", (), number)())
    collectives.keep_in_order()
    assert os.environ["XLA_FLAGS"] == expected


def test_flags_are_not_set_where_xla_may_not_know_them(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(xla_flags, "_ACCELERATORS", ("jax",))
    xla_flags.set_for_cpus("--x", "1")
    monkeypatch.setattr(xla_flags, "_ACCELERATORS", ())
    monkeypatch.setattr(xla_flags.jaxlib.version, "__version_info__", (0, 99, 0))
    xla_flags.set_for_cpus("--x", "1")
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.parametrize("flags", ["", collectives.CONCURRENT, f"{collectives.CONCURRENT}=true"])
def test_training_is_warned_of_a_cache(monkeypatch, flags):
    assert jax.device_count() > 1 and jax.config.jax_compilation_cache_dir
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collectives.warn_of_cache()
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.warns(RunWarning, match=f"set XLA_FLAGS={collectives.CONCURRENT}=false"):
        collectives.warn_of_cache()


def test_xla_knows_the_flag():
    """XLA aborts on flags that it does not know."""
    program = (
        "from rwp_jax.training import collectives; collectives.keep_in_order(); "
        "import jax; jax.numpy.ones(2)"
    )
    environment = os.environ | {"XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
