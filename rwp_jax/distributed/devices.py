"""How devices are used: how arrays get to them, and how a function of one device is mapped over all.

Functions are written per device with the axis name `AXIS` and mapped over all devices of all hosts.
State and data sets are replicated, index batches are split along their first axis.
"""

import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rwp_jax.errors import InputError, check_choice

AXIS = "batch"
MODES = ("pmap", "shard_map")
LARGEST_BATCH = 2**20


def split_cpu() -> None:
    """Makes a device of every CPU core, up to eight; call it before JAX computes.

    For work without collectives, see `over_examples`: with wrn-10-2 on 2 cores a gradient of 32 images
    took 1.3 ms an image on two devices and 1.7 ms on one (jaxlib 0.10.2). Accelerators are not affected.
    """
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))


def check_batch_size(key: str, batch_size: int, devices: int | None = None) -> None:
    """Raises InputError unless the global batch splits evenly over the devices (default: all there are)."""
    devices = devices or jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise InputError(
            f"{key}={batch_size} must be a positive multiple of the number of devices, {devices}"
        )
    if batch_size > LARGEST_BATCH:
        raise InputError(f"{key}={batch_size} must be at most {LARGEST_BATCH}")


def filling_batch(platform: str | None = None, devices: int | None = None) -> int:
    """A batch that keeps all devices busy where examples do not interact.

    256 images an accelerator; on CPUs 128, or the next multiple of their number. `platform` and
    `devices` are by default JAX's, those of all hosts.
    """
    platform, devices = platform or jax.default_backend(), devices or jax.device_count()
    return 256 * devices if platform != "cpu" else -(-128 // devices) * devices


def part_of_this_host(batch_size: int) -> slice:
    """Which entries of a global batch this host hands to its devices."""
    local = batch_size // jax.process_count()
    return slice(jax.process_index() * local, (jax.process_index() + 1) * local)


def _devices() -> list[jax.Device]:
    """All devices of all hosts, those of a host together, so that it has one piece of a batch."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """The devices in a row. Those of a machine that is not there can be compiled for, not run on."""
    # Mesh, not jax.make_mesh: that one's axes are Explicit by default and it may reorder devices.
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
    """Copies a tree of arrays to every device of this host, as `over_examples` wants them."""
    return jax.device_put(tree, NamedSharding(mesh_of(jax.local_devices()), PartitionSpec()))


def with_flag(part: np.ndarray, flag: bool) -> np.ndarray:
    """An argument of `data_parallel` that is split: this host's [n], a flag behind each device's share."""
    count = jax.local_device_count()
    flags = np.full((count, 1), flag, part.dtype)
    return np.concatenate([part.reshape(count, -1), flags], 1).ravel()


def _shapes(mesh: Mesh, split: bool, tree):
    """Shapes and dtypes of a global argument, with where it lies on the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS) if split else PartitionSpec())
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(shape, tree)


class Mapped:
    """A function mapped over devices, to be called, or compiled beforehand."""

    def __init__(self, jitted, mesh: Mesh, split: tuple[bool, ...], spread: Callable):
        """Wraps a function that `jax.jit` or `jax.pmap` made.

        Args:
          jitted: of arguments of which those that are split have gone through `spread`.
          mesh: its devices.
          split: for each argument, whether it is split over devices.
          spread: makes of a split argument what `jitted` takes.
        """
        self._jitted, self._mesh, self._split, self._spread = jitted, mesh, split, spread

    def __call__(self, *arguments):
        pairs = zip(arguments, self._split, strict=True)
        return self._jitted(*(self._spread(a) if s else a for a, s in pairs))

    def lower(self, *arguments) -> jax.stages.Lowered:
        """The program for arguments of these shapes, those of all hosts together; not for `pmap`."""
        pairs = zip(arguments, self._split, strict=True)
        return self._jitted.lower(*(_shapes(self._mesh, s, a) for a, s in pairs))

    def using(self, compiled: jax.stages.Compiled) -> "Mapped":
        """The same function by a program that `lower` gave and that was compiled."""
        return Mapped(compiled, self._mesh, self._split, self._spread)


def _sharded(function, mesh, split, out_spec, donate=()):
    spec = tuple(PartitionSpec(AXIS) if s else PartitionSpec() for s in split)
    # check_vma would add a pmean's factor to gradients of local losses, silently.
    sharded = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=out_spec, check_vma=False)
    return jax.jit(sharded, donate_argnums=donate)


def data_parallel(
    function: Callable, split: tuple[bool, ...], mode: str, donate=(), mesh: Mesh | None = None
) -> Mapped:
    """Maps a per-device function with axis name `AXIS` over all devices.

    Args:
      function: its outputs must be the same on every device.
      split: for each argument, whether this host's [n, ...] part of it is split over its devices
        (numpy arrays) or the argument is replicated, see `replicate`.
      mode: `pmap` or `shard_map`, which give the same numbers.
      donate: positions of arguments whose buffers may be reused.
      mesh: other devices, to compile for; the program is then that of `shard_map`.

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
        return Mapped(mapped, mesh_of(_devices()), split, spread)
    mesh = mesh or mesh_of(_devices())
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    spread = lambda part: jax.make_array_from_process_local_data(sharding, part)
    return Mapped(_sharded(function, mesh, split, PartitionSpec(), donate), mesh, split, spread)


def over_examples(function: Callable, split: tuple[bool, ...], mesh: Mesh | None = None) -> Mapped:
    """Maps a function whose examples do not interact over the devices of this host.

    Args:
      function: of trees of arrays [B, ...] (split) or of any shape (replicated) to trees of arrays
        [B, ...]. Devices wait for one another only where it asks for that, over `AXIS`.
      split: for each argument, whether it is split along its first axis, a multiple of the number of
        devices, or replicated.
      mesh: other devices, to compile for.
    """
    mesh = mesh or mesh_of(jax.local_devices())
    mapped = _sharded(function, mesh, split, PartitionSpec(AXIS))
    return Mapped(mapped, mesh, split, lambda part: part)
