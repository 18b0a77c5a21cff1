"""Places arrays on devices, and maps functions of one device over all devices.

Functions are written for one device with the axis name `AXIS`, and mapped over all devices of all hosts.
State and data sets are replicated; index batches are split along their first axis.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rwp_jax.distributed import uncached
from rwp_jax.errors import InputError, check_choice

AXIS = "batch"
MODES = ("pmap", "shard_map")
LARGEST_BATCH = 2**20


def split_cpu() -> None:
    """Makes every CPU core a device, up to eight; call it before JAX computes.

    For work without collectives, see `over_examples`: with wrn-10-2 on 2 cores, a gradient of 32 images
    took 1.3 ms per image on two devices and 1.7 ms on one (jaxlib 0.10.2). Accelerators are not affected.
    """
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))


def check_batch_size(key: str, batch_size: int, devices: int | None = None) -> None:
    """Raises InputError unless the global batch splits evenly over the devices (default: all)."""
    devices = devices or jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise InputError(
            f"{key}={batch_size} must be a positive multiple of the number of devices, {devices}"
        )
    if batch_size > LARGEST_BATCH:
        raise InputError(f"{key}={batch_size} must be at most {LARGEST_BATCH}")


def filling_batch(platform: str | None = None, devices: int | None = None) -> int:
    """Returns a batch size that keeps all devices busy if examples do not interact.

    256 images per accelerator; on CPUs 128, rounded up to a multiple of their number. `platform` and
    `devices` default to JAX's platform and the number of devices of all hosts.
    """
    platform, devices = platform or jax.default_backend(), devices or jax.device_count()
    return 256 * devices if platform != "cpu" else -(-128 // devices) * devices


def part_of_this_host(batch_size: int) -> slice:
    """Returns the slice of a global batch that this host passes to its devices."""
    local = batch_size // jax.process_count()
    return slice(jax.process_index() * local, (jax.process_index() + 1) * local)


def _devices() -> list[jax.Device]:
    """Returns all devices, grouped by host, so that each host has one contiguous part of a batch."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """Returns a one-dimensional mesh; devices of an absent machine can be compiled for, not run on."""
    # Mesh, not jax.make_mesh, whose axes are Explicit by default and which may reorder devices.
    return Mesh(np.array(devices), (AXIS,))


def replicate(tree):
    """Copies a tree of arrays, equal on all hosts, to every device of all hosts."""
    sharding = NamedSharding(mesh_of(_devices()), PartitionSpec())
    if jax.process_count() == 1:
        # device_put may share buffers with its argument; donating those would delete the original.
        return jax.device_put(jax.tree.map(jnp.copy, tree), sharding)

    def from_this_host(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(from_this_host(jax.random.key_data(leaf)))
        return jax.make_array_from_process_local_data(sharding, np.array(leaf))

    return jax.tree.map(from_this_host, tree)


def replicate_on_this_host(tree):
    """Copies a tree of arrays to every device of this host, as `over_examples` requires."""
    return jax.device_put(tree, NamedSharding(mesh_of(jax.local_devices()), PartitionSpec()))


def with_flag(part: np.ndarray, flag: bool) -> np.ndarray:
    """Returns a split argument of `data_parallel`: this host's [n], a flag after each device's share."""
    count = jax.local_device_count()
    flags = np.full((count, 1), flag, part.dtype)
    return np.concatenate([part.reshape(count, -1), flags], 1).ravel()


def _shapes(mesh: Mesh, split: bool, tree):
    """Returns shapes, dtypes and shardings on the mesh of a global argument."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS) if split else PartitionSpec())
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(shape, tree)


class Placed(NamedTuple):
    """A split argument on the devices, from `Mapped.place`, in the form that the mapped function takes."""

    array: jax.Array


class Mapped:
    """A function mapped over devices, which can be called or compiled ahead of time."""

    def __init__(
        self, jitted, mesh: Mesh, split: tuple[bool, ...], spread: Callable, context=nullcontext
    ):
        """Wraps a function that `jax.jit` or `jax.pmap` made.

        Args:
          jitted: the mapped function; takes split arguments as `spread` returns them.
          mesh: its devices.
          split: for each argument, whether it is split over devices.
          spread: converts a split argument to the form that `jitted` takes.
          context: returns the context manager within which `jitted` is called, and thus compiled.
        """
        self._jitted, self._mesh, self._split, self._spread = jitted, mesh, split, spread
        self._context = context

    def __call__(self, *arguments):
        pairs = zip(arguments, self._split, strict=True)
        taken = [
            a.array if isinstance(a, Placed) else self._spread(a) if s else a for a, s in pairs
        ]
        with self._context():
            return self._jitted(*taken)

    def place(self, part: np.ndarray) -> Placed:
        """Copies a split argument to this host's devices, before the call that takes it instead."""
        array = self._spread(part)
        if not isinstance(array, jax.Array):
            sharding = NamedSharding(self._mesh.local_mesh, PartitionSpec(AXIS))
            array = jax.device_put(array, sharding)
        return Placed(array)

    def lower(self, *arguments) -> jax.stages.Lowered:
        """Returns the lowered program for arguments of these global shapes; not for `pmap`."""
        pairs = zip(arguments, self._split, strict=True)
        return self._jitted.lower(*(_shapes(self._mesh, s, a) for a, s in pairs))

    def using(self, compiled: jax.stages.Compiled) -> "Mapped":
        """Returns the same function, run by a program that was compiled from the result of `lower`."""
        return Mapped(compiled, self._mesh, self._split, self._spread)


def _sharded(function, mesh, split, out_spec, donate=()):
    spec = tuple(PartitionSpec(AXIS) if s else PartitionSpec() for s in split)
    # check_vma=True would silently add a pmean's factor to gradients of local losses.
    sharded = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=out_spec, check_vma=False)
    return jax.jit(sharded, donate_argnums=donate)


def _context(mesh: Mesh) -> Callable[[], AbstractContextManager[None]]:
    """Returns the context in which programs with collectives over a mesh are called."""
    return uncached.uncached if uncached.needed(mesh) else nullcontext


def data_parallel(
    function: Callable, split: tuple[bool, ...], mode: str, donate=(), mesh: Mesh | None = None
) -> Mapped:
    """Maps a per-device function with axis name `AXIS` over all devices.

    Args:
      function: its outputs must be the same on every device.
      split: for each argument, whether this host's [n, ...] part of it is split over its devices
        (numpy arrays) or the argument is replicated, see `replicate`.
      mode: `pmap` or `shard_map`, which return the same numbers.
      donate: positions of arguments whose buffers may be reused.
      mesh: other devices to compile for; the program is then that of `shard_map`.

    Returns:
      A function of the same arguments; outputs are replicated.
    """
    check_choice("config.parallel", mode, MODES)
    if mode == "pmap" and mesh is None:
        mapped = jax.pmap(
            function,
            axis_name=AXIS,
            in_axes=tuple(0 if s else None for s in split),
            out_axes=None,
            donate_argnums=donate,
            devices=_devices(),
        )
        spread = lambda part: part.reshape(jax.local_device_count(), -1, *part.shape[1:])
        return Mapped(mapped, mesh_of(_devices()), split, spread, _context(mesh_of(_devices())))
    mesh = mesh or mesh_of(_devices())
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    spread = lambda part: jax.make_array_from_process_local_data(sharding, part)
    mapped = _sharded(function, mesh, split, PartitionSpec(), donate)
    return Mapped(mapped, mesh, split, spread, _context(mesh))


def over_examples(function: Callable, split: tuple[bool, ...], mesh: Mesh | None = None) -> Mapped:
    """Maps a function over the devices of this host; its examples must not interact.

    Args:
      function: of trees of arrays [B, ...] (split) or of any shape (replicated) to trees of arrays
        [B, ...]. Devices wait for each other only if it communicates over `AXIS`.
      split: for each argument, whether it is split along its first axis, a multiple of the number of
        devices, or replicated.
      mesh: other devices to compile for.
    """
    mesh = mesh or mesh_of(jax.local_devices())
    mapped = _sharded(function, mesh, split, PartitionSpec(AXIS))
    return Mapped(mapped, mesh, split, lambda part: part)
