"""Builds meshes of absent devices, from the name of a target, for JAX to compile for.

JAX describes a TPU slice by its name, such as v5e:2x2, and a GPU by the text of XLA's GpuTargetConfigProto,
which this module builds from the data sheet. Both need the compiler in JAX's plugin for the platform;
neither needs a driver.
"""

import fnmatch
import importlib.metadata
import math
import os
import re
import shutil
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from rwp_jax.distributed.devices import mesh_of
from rwp_jax.distributed.preemption import keep_handlers
from rwp_jax.errors import InputError, first_line
from rwp_jax.hardware.datasheets import GPUS, TPUS, Datasheet
from rwp_jax.hardware.quiet import quiet_compiler

ACCEPTED = (
    f"{', '.join(GPUS)}, or a TPU slice: v5e:AxB, v6e:AxB, v4:AxBxC or v5p:AxBxC, such as v5e:2x2 "
    "(h100:8 means eight H100s)"
)
_SIDES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # slices of v5e and v6e
_CUDA_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_ASSEMBLERS = ("nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvcc")
# Otherwise libtpu queries Google's metadata server and locks a TPU, although there is none.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Hardware(NamedTuple):
    """Devices to compile for.

    Attributes:
      target: name as given by the user.
      chip: data sheet of one device.
      mesh: the devices.
      options: compiler options.
    """

    target: str
    chip: Datasheet
    mesh: Mesh
    options: dict[str, Any]

    @property
    def devices(self) -> int:
        return self.mesh.size

    @property
    def platform(self) -> str:
        return "gpu" if self.chip.gpu else "tpu"


def only_compile() -> None:
    """Keeps JAX from using this machine's accelerators; call it before JAX initialises its devices.

    It also disables the compilation cache: JAX cannot load cached programs for absent hardware.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)


def find_hardware(target: str, devices: int | None = None) -> Hardware:
    """Describes hardware to JAX.

    Args:
      target: a GPU's name, optionally with a number of devices after a colon, or a TPU slice's name;
        see ACCEPTED.
      devices: number of devices; None for one GPU, or all of a slice.

    Raises:
      InputError: for an unknown target, more devices than it has, or a plugin that is missing or does not
        match JAX's version.
    """
    if devices is not None and devices < 1:
        raise InputError(f"devices={devices} must be at least 1")
    kind, colon, count = target.partition(":")
    if kind in GPUS and re.fullmatch(r"[1-9]\d{,5}", count if colon else "1"):
        if devices and colon and devices != int(count):
            raise InputError(f"devices={devices}: target={target} has {count}")
        number, most = devices or int(count or 1), GPUS[kind].max_devices
        if number > most:
            named = f"target={target!r}" if colon else f"devices={devices}"
            raise InputError(f"{named}: {kind} has at most {most} devices (one machine)")
        return _gpus(kind, number)
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*){1,2})", target)
    if not match or match[2].count("x") + 1 != _SIDES.get(match[1]):
        raise InputError(f"target={target!r} must be one of {ACCEPTED}")
    return _slice(target, match[1], [int(n) for n in match[2].split("x")], devices)


def _gpus(target: str, devices: int) -> Hardware:
    chip = GPUS[target]
    _check_cuda_plugin(target)
    with quiet_compiler():
        try:
            topology = topologies.get_topology_desc(
                platform="cuda",
                topology_name=target,
                target_config=_target_config(chip),
                topology=f"1x1x{devices}",
            )
        except Exception as error:  # JAX and its plugin raise many types
            raise _no_compiler(target, "cuda12", error) from error
    # Autotuning would run kernels; without it XLA uses its defaults.
    options = {"xla_gpu_autotune_level": 0}
    return Hardware(target, chip, mesh_of(topology.devices), options)


def _slice(target: str, kind: str, sizes: list[int], devices: int | None) -> Hardware:
    chip, chips = TPUS[kind], math.prod(sizes)
    if chips > chip.max_devices:
        raise InputError(f"target={target!r} must have 1 to {chip.max_devices} chips, not {chips}")
    shape = target.partition(":")[2]
    if len(sizes) == 2 and shape not in _FLAT:
        raise InputError(f"target={target!r}: slices of {kind} are {', '.join(_FLAT)}")
    if devices not in (None, chips):
        raise InputError(
            f"devices={devices}: {target} has {chips}, and all of them run the program"
        )
    _check_libtpu(target)
    for name, value in _LIBTPU.items():
        os.environ.setdefault(name, value)
    options = {"chip_config_name": "megacore"} if kind in ("v4", "v5p") else {}
    if chips == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    with quiet_compiler():
        try:
            topology = topologies.get_topology_desc(target, platform="tpu", **options)
        except Exception as error:
            if "INVALID_ARGUMENT" not in str(error):
                raise _no_compiler(target, "tpu", error) from error
            raise InputError(
                f"target={target!r} is not an existing slice, unlike {kind}:2x2x4 ({first_line(error)})"
            ) from error
        finally:
            keep_handlers()
    return Hardware(target, chip, mesh_of(topology.devices), {})


def _target_config(chip: Datasheet) -> str:
    """Returns a GpuTargetConfigProto as text."""
    gpu = chip.gpu
    major, minor = gpu.capability
    return f"""
        gpu_device_info {{
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {gpu.cores} fpus_per_core: {gpu.units_per_core} clock_rate_ghz: {gpu.clock}
          threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          shared_memory_per_block: 49152
          shared_memory_per_core: {gpu.shared_memory_per_core}
          shared_memory_per_block_optin: {gpu.shared_memory_per_block}
          l2_cache_size: {gpu.l2_cache}
          memory_bandwidth: {chip.bandwidth:.0f}
          device_memory_size: {gpu.memory}
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 }}
        runtime_version {{ major: 12 minor: 8 }}
        device_description_str: "{chip.name}"
    """


def version(package: str) -> str | None:
    """Returns the installed version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _install(platform: str) -> str:
    """Returns how to install `cuda12`, `cuda13` or `tpu`; for CUDA, only what compilation needs."""
    packages = f'"jax[{platform}]=={jax.__version__}"'
    if platform != "tpu":
        suffix = "-cu12" if platform == "cuda12" else ""
        packages = (
            f"jax-{platform}-plugin=={version('jaxlib')} jax-{platform}-pjrt=={version('jaxlib')} "
            f"nvidia-cuda-nvcc{suffix} nvidia-cuda-runtime{suffix}"
        )
    return f"in a separate environment, pip install {packages}"


def _no_compiler(target: str, platform: str, error: Exception) -> InputError:
    return InputError(
        f"target={target}: JAX cannot compile for it ({first_line(error)}): {_install(platform)}"
    )


def _check_cuda_plugin(target: str) -> None:
    """Raises InputError unless a CUDA plugin that matches jaxlib is installed."""
    found = {name: there for name in _CUDA_PLUGINS if (there := version(name))}
    # Each plugin loads a library from a separate package.
    libraries = [name.replace("plugin", "pjrt") for name in found]
    if not found:
        raise InputError(
            f"target={target}: JAX's compiler for NVIDIA GPUs is not installed: {_install('cuda12')}"
        )
    jaxlib = version("jaxlib")
    found |= {name: there for name in libraries if (there := version(name))}
    for name, there in found.items():
        if there != jaxlib:
            platform = name.split("-")[1]
            raise InputError(
                f"target={target}: {name} {there} does not fit jaxlib {jaxlib}: {_install(platform)}"
            )
    if not (any(map(version, _ASSEMBLERS)) or shutil.which("ptxas")):
        raise InputError(
            f"target={target}: NVIDIA's assembler, ptxas, is not installed: {_install('cuda12')}"
        )


def _check_libtpu(target: str) -> None:
    """Raises InputError unless libtpu is installed in the version that jax's requirements name."""
    found = version("libtpu")
    if not found:
        raise InputError(
            f"target={target}: JAX's compiler for TPUs is not installed: {_install('tpu')}"
        )
    for requirement in importlib.metadata.requires("jax") or ():
        wanted = re.match(r"libtpu ?\(?==([\w.*]+)", requirement)
        if wanted and not fnmatch.fnmatch(found, wanted[1]) and found != wanted[1]:
            raise InputError(
                f"target={target}: libtpu {found} does not fit jax {jax.__version__}, which needs "
                f"{wanted[1]}: {_install('tpu')}"
            )
