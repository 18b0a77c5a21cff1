"""Manufacturers' data of GPUs and TPUs: one entry per chip, with dense rates (no sparsity).

Sources: NVIDIA's data sheets of the A100 80GB SXM (2021), H100 SXM (2023) and H200 SXM (2024); the CUDA
programming guide's table of compute capabilities for the numbers that XLA schedules by (multiprocessors,
caches, registers); Google's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" of the Cloud TPU
documentation. TPUs compute float32 products from bfloat16 products: one at the default precision, six at
the highest.
"""

from typing import NamedTuple

GB, TERA = 1e9, 1e12
GPU_SHARE = (
    0.95  # share of a GPU's memory that JAX can be told to use; drivers and libraries take the rest
)
GIB = 2**30  # what memory manufacturers call a GB


class GpuNumbers(NamedTuple):
    """Further numbers that XLA's GPU compiler needs: compute capability, chip layout, bytes, GHz."""

    capability: tuple[int, int]
    cores: int
    units_per_core: int
    shared_memory_per_core: int
    shared_memory_per_block: int
    l2_cache: int
    clock: float
    memory: int


class Datasheet(NamedTuple):
    """A chip.

    Attributes:
      name: the device's name in JAX (`device_kind`).
      gigabytes: nominal memory size, in units of about 2^30 bytes.
      bandwidth: memory bandwidth, bytes per second.
      rates: operations per second of matrix products in bfloat16, in float32 at the default precision
        (TF32, bfloat16), in float32 at the highest precision, and in float64; 0 if unsupported.
      link: bytes per second that it can send to other devices, over all its links.
      max_devices: largest number of devices in one machine or slice.
      usable: TPUs only: GB that libtpu leaves to programs, according to its messages.
      gpu: GPUs only: numbers for XLA's compiler.
    """

    name: str
    gigabytes: int
    bandwidth: float
    rates: dict[str, float]
    link: float
    max_devices: int
    usable: float = 0.0
    gpu: GpuNumbers | None = None

    @property
    def memory(self) -> float:
        """Bytes of memory that programs can use."""
        return GPU_SHARE * self.gpu.memory if self.gpu else self.usable * GIB


def _gpu_rates(bfloat16, tf32, float32, float64):
    tera = (bfloat16 * TERA, tf32 * TERA, float32 * TERA, float64 * TERA)
    return dict(zip(("bfloat16", "default", "float32", "float64"), tera, strict=True))


def _tpu_rates(bfloat16):
    return _gpu_rates(bfloat16, bfloat16, bfloat16 / 6, 0)


_HOPPER = GpuNumbers((9, 0), 132, 128, 233_472, 232_448, 52_428_800, 1.98, 84_942_979_072)
_AMPERE = GpuNumbers((8, 0), 108, 64, 167_936, 166_912, 41_943_040, 1.41, 85_100_068_864)
_HOPPER_RATES = _gpu_rates(989.4, 494.7, 66.9, 66.9)

GPUS = {
    "a100": Datasheet(
        "NVIDIA A100-SXM4-80GB",
        80,
        2039 * GB,
        _gpu_rates(312, 156, 19.5, 19.5),
        300 * GB,
        8,
        gpu=_AMPERE,
    ),
    "h100": Datasheet(
        "NVIDIA H100 80GB HBM3", 80, 3352 * GB, _HOPPER_RATES, 450 * GB, 8, gpu=_HOPPER
    ),
    "h200": Datasheet(
        "NVIDIA H200",
        141,
        4800 * GB,
        _HOPPER_RATES,
        450 * GB,
        8,
        gpu=_HOPPER._replace(memory=151_397_597_184),
    ),
}
TPUS = {
    "v4": Datasheet("TPU v4", 32, 1200 * GB, _tpu_rates(275), 300 * GB, 4096, 30.75),
    "v5e": Datasheet("TPU v5 lite", 16, 819 * GB, _tpu_rates(197), 200 * GB, 256, 15.75),
    "v5p": Datasheet("TPU v5", 95, 2765 * GB, _tpu_rates(459), 600 * GB, 8960, 95.74),
    "v6e": Datasheet("TPU v6 lite", 32, 1600 * GB, _tpu_rates(918), 400 * GB, 256, 31.25),
}


def chip_of(device_kind: str) -> Datasheet | None:
    """Returns the data sheet of a device by its name in JAX, None if there is none."""
    chips = [*GPUS.values(), *TPUS.values()]
    return next((chip for chip in chips if chip.name == device_kind), None)
