"""Valid targets, and the errors if a target cannot be compiled for; nothing is compiled."""

import pytest

from rwp_jax.errors import InputError
from rwp_jax.hardware import topology
from rwp_jax.hardware.topology import find_hardware


def installed(monkeypatch, **versions):
    """Makes exactly the given packages appear to be installed, in the given versions."""
    versions = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(topology, "version", versions.get)
    monkeypatch.setattr(topology.shutil, "which", lambda name: None)


@pytest.mark.parametrize(
    ("target", "devices", "message"),
    [
        (
            "h1000",
            None,
            "target='h1000' must be one of a100, h100, h200, or a TPU slice: v5e:AxB",
        ),
        ("", None, "target='' must be one of"),
        ("H100", None, "must be one of"),
        ("h100:2x2", None, "must be one of"),
        ("v5e", None, "must be one of"),
        ("v5e:", None, "must be one of"),
        ("v5e:4", None, "must be one of"),
        ("v3:2x2", None, "must be one of"),
        ("v5p:2x2", None, "must be one of"),
        ("v5e:2x2x2", None, "must be one of"),
        ("h100", 9, "devices=9: h100 has at most 8"),
        ("h100:9", None, "target='h100:9': h100 has at most 8"),
        ("h100:8", 4, "devices=4: target=h100:8 has 8"),
        ("h100:0", None, "must be one of"),
        ("h100:eight", None, "must be one of"),
        ("h100", 0, "devices=0 must be at least 1"),
        ("v5e:2x2", -1, "devices=-1 must be at least 1"),
        ("v5e:2x2", 8, "devices=8: v5e:2x2 has 4"),
        ("v5e:2x2", 2, "devices=2: v5e:2x2 has 4"),
        ("v5e:32x32", None, "must have 1 to 256 chips, not 1024"),
        ("v5e:0x2", None, "must be one of"),
        ("v5e:02x2", None, "must be one of"),
        ("v5e:3x3", None, "slices of v5e are 1x1, 2x2, 2x4, 4x4"),
        ("v6e:6x10", None, "slices of v6e are 1x1, 2x2, 2x4, 4x4"),
    ],
)
def test_targets_that_are_none(target, devices, message):
    with pytest.raises(InputError, match="^(target|devices)=") as error:
        find_hardware(target, devices)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_compiler_for_gpus(monkeypatch):
    installed(monkeypatch, jaxlib="0.10.2")
    with pytest.raises(
        InputError,
        match=r"not installed: in a separate environment, pip install jax-cuda12-plugin==0.10.2 ",
    ):
        find_hardware("h100", 8)


def test_a_compiler_of_another_version(monkeypatch):
    installed(monkeypatch, jaxlib="0.10.2", jax_cuda13_plugin="0.10.1")
    message = (
        "jax-cuda13-plugin 0.10.1 does not fit jaxlib 0.10.2: .*pip install jax-cuda13-plugin=="
    )
    with pytest.raises(InputError, match=message):
        find_hardware("a100")


def test_a_library_of_another_version(monkeypatch):
    versions = {"jax_cuda12_plugin": "0.10.2", "jax_cuda12_pjrt": "0.10.1"}
    installed(monkeypatch, jaxlib="0.10.2", **versions)
    message = (
        "jax-cuda12-pjrt 0.10.1 does not fit jaxlib 0.10.2: .*pip install .* jax-cuda12-pjrt=="
    )
    with pytest.raises(InputError, match=message):
        find_hardware("h100")


def test_a_missing_assembler(monkeypatch):
    installed(monkeypatch, jaxlib="0.10.2", jax_cuda12_plugin="0.10.2")
    with pytest.raises(
        InputError, match="ptxas, is not installed: in a separate environment, pip install"
    ):
        find_hardware("h100")


def test_a_missing_compiler_for_tpus(monkeypatch):
    installed(monkeypatch, jaxlib="0.10.2")
    with pytest.raises(
        InputError, match=r'not installed: in a separate environment, pip install "jax\[tpu\]=='
    ):
        find_hardware("v5e:2x2")


def test_a_libtpu_of_another_version(monkeypatch):
    installed(monkeypatch, jaxlib="0.10.2", libtpu="0.0.1")
    wanted = ["numpy>=2.0", 'libtpu==0.0.42.*; extra == "tpu"']
    monkeypatch.setattr(topology.importlib.metadata, "requires", lambda package: wanted)
    with pytest.raises(
        InputError, match=r"libtpu 0.0.1 does not fit jax .*, which needs 0.0.42.\*"
    ):
        find_hardware("v5e:2x2")


def test_a_gpu_is_described_by_its_data_sheet():
    text = topology._target_config(topology.GPUS["h200"])
    for part in ("major: 9 minor: 0", "core_count: 132", "memory_bandwidth: 4800000000000"):
        assert part in text
    assert "device_memory_size: 151397597184" in text
