"""Imports a network that another JAX program saved as a run."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError, prefixed
from rwp_jax.importing import array_files, name_map, networks, new_run
from rwp_jax.importing.layouts import Arrays
from rwp_jax.importing.name_map import NameMap
from rwp_jax.importing.networks import Network
from rwp_jax.runs import layout


class Fitted(NamedTuple):
    """Weights in the form of a network of this package.

    Attributes:
      trees: `params` and `batch_stats`, of NumPy arrays.
      transposed: number of kernels that were in PyTorch's layout.
      rounded: dtypes of the file that the network's dtype cannot hold exactly.
    """

    trees: dict[str, Any]
    transposed: int
    rounded: list[str]


def locate(
    checkpoint: pathlib.Path, entries: Arrays, names: NameMap | None = None, key: str = ""
) -> tuple[Network, frozenset[str]]:
    """Finds the network among the arrays of a file.

    Args:
      checkpoint: file or directory that holds the arrays, for messages.
      entries: its arrays, as from `array_files.read`.
      names: map of their names to ours; None if they are ours.
      key: path of the network among the arrays, such as `ema`; "" for the only one.

    Returns:
      The network, and the names of the entries whose layout the map states.

    Raises:
      InputError: if there is none or several, or the map does not fit the file.
    """
    settled: frozenset[str] = frozenset()
    with prefixed(f"path={checkpoint} "):
        entries = networks.below(entries, key)
        if names is not None:
            with prefixed("does not fit name_map=: "):
                entries, settled = name_map.apply(names, entries)
        return networks.find(entries), settled


def fit(
    checkpoint: pathlib.Path,
    found: tuple[Network, frozenset[str]],
    model_name: str,
    templates: Mapping[str, Any],
) -> Fitted:
    """Brings a network into the form of one of this package.

    Args:
      checkpoint: file or directory that holds the arrays, for messages.
      found: network from `locate`.
      model_name: name of the network.
      templates: its `params` and `batch_stats`, as ShapeDtypeStructs.

    Raises:
      InputError: if an entry is missing, unknown, of another shape or not finite.
    """
    (network, settled), wants = found, networks.wanted(templates)
    settled |= {name for name in wants if name.partition("/")[2] in settled}
    with prefixed(f"path={checkpoint} "):
        entries, count = networks.in_our_layout(network, wants, settled)
    with prefixed("path="):
        networks.check_fit(checkpoint, model_name, entries, wants)
    cast = {name: np.array(entries[name], leaf.dtype, order="C") for name, leaf in wants.items()}
    exact = lambda name: np.array_equal(cast[name].astype(entries[name].dtype), entries[name])
    rounded = sorted({str(entries[name].dtype) for name in wants if not exact(name)})
    leaves = iter(cast.values())
    trees = {part: jax.tree.map(lambda _: next(leaves), tree) for part, tree in templates.items()}
    return Fitted(trees, count, rounded)


def import_arrays(
    config,
    directory: pathlib.Path,
    checkpoint: pathlib.Path,
    entries: Arrays,
    names: NameMap | None = None,
    epoch: int = 0,
    key: str = "",
) -> None:
    """Creates a run from arrays by name.

    Args:
      config: config of the run.
      directory: directory of the run, empty or missing.
      checkpoint: file or directory that holds the arrays, for messages.
      entries: its arrays, as from `array_files.read`.
      names: map of their names to ours, see `name_map`.
      epoch: number of epochs that the network was trained for; 0 for all of the config's epochs.
      key: path of the network among the arrays, such as `ema`; "" for the only one.

    Raises:
      InputError: for bad input, before anything is written.
    """
    found = locate(checkpoint, entries, names, key)
    network, _ = found
    source = f"path={checkpoint}"
    run = new_run.plan(config, directory, source, epoch, networks.sizes(network.entries))
    trees, transposed, rounded = fit(checkpoint, found, config.model.name, run.templates)
    new_run.check_data(run, source)
    new_run.write(run, **trees)
    new_run.finish(run)
    print(
        f"imported {checkpoint} as {config.model.name} of {run.network.num_classes} classes after "
        f"epoch {run.epoch} of {config.epochs}"
        + (f", {transposed} kernels transposed from PyTorch's layout" if transposed else "")
        + (f", rounded from {' and '.join(rounded)}" if rounded else "")
        + f"; momentum zero; {len(network.others)} entries left out; wrote {directory}"
    )


def import_jax(
    config,
    directory: pathlib.Path,
    checkpoint: pathlib.Path,
    kind: str,
    names: pathlib.Path | None = None,
    epoch: int = 0,
    key: str = "",
) -> None:
    """Creates a run from a file or directory that another JAX program wrote.

    Args:
      config: config of the run.
      directory: directory of the run, empty or missing.
      checkpoint: see `array_files.read`.
      kind: its kind, from `array_files.kind_of`.
      names: JSON file of names, see `name_map`; None if the names are ours.
      epoch: number of epochs that the network was trained for; 0 for all of the config's epochs.
      key: path of the network in the file, see `import_arrays`.

    Raises:
      InputError: for bad input, before anything is written.
    """
    mapped = name_map.read_name_map(names) if names else None
    if (checkpoint / layout.CONFIG).is_file():
        raise InputError(
            f"path={checkpoint} is a run already: evaluate it by workdir=, or import the directory of one "
            "of its checkpoints"
        )
    if not kind:
        raise InputError(f"path={checkpoint} is no checkpoint of orbax or directory of .npy files")
    with prefixed("path="):
        entries = array_files.read(checkpoint, kind)
    import_arrays(config, directory, checkpoint, entries, mapped, epoch, key)
