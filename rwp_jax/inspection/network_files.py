"""Inspects files and directories of weights, of PyTorch and of JAX."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.importing import array_files, networks
from rwp_jax.importing.layouts import Arrays
from rwp_jax.inspection.findings import Findings, not_finite, shape, weights
from rwp_jax.models.classifier import make_classifier
from rwp_jax.names import listed
from rwp_jax.pytorch import contents, selection, torch_files
from rwp_jax.pytorch.relatives import relative
from rwp_jax.pytorch.state_dict import entry_shapes

KINDS = {
    "orbax": "a checkpoint of orbax",
    "npy": "a directory of .npy files",
    "safetensors": "a safetensors file",
    "npz": "an npz",
    "msgpack": "a msgpack file of Flax",
    "pickle": "a pickle of NumPy arrays",
}


class Recognized(NamedTuple):
    """A network among arrays.

    Attributes:
      text: what it is.
      name: the package's name of it, "" if it does not fit exactly.
      problems: what is wrong with it.
      rows: further lines.
    """

    text: str
    name: str
    problems: list[str]
    rows: list[tuple[str, str]]


@functools.lru_cache(maxsize=4)
def templates_of(name: str, channels: int, classes: int) -> dict[str, Any]:
    """Returns `params` and `batch_stats` of a network of the package, as ShapeDtypeStructs."""
    params, batch_stats = make_classifier(name, classes).shapes((32, 32, channels))
    return {"params": params, "batch_stats": batch_stats}


def _fitting(
    name: str | None, channels: int, classes: int, shapes: Mapping, shapes_of
) -> Recognized:
    """Compares names and shapes with those of a network of the package."""
    text = f"{classes} classes, images of {channels} channel{'' if channels == 1 else 's'}"
    if name is None:
        return Recognized("none of this package's networks", "", [], [])
    try:
        wants = shapes_of(templates_of(name, channels, max(classes, 1)))
    except InputError as error:  # such as an impossible depth
        return Recognized(f"most similar to {name} ({error})", "", [], [])
    found = networks.differences(wants, dict(shapes))
    if found:
        return Recognized(f"most similar to {name}, but {'; '.join(found)}", "", [], [])
    return Recognized(f"{name}, {text}", name, [], [])


def _negative(arrays: Arrays, ending: str) -> list[str]:
    bad = [name for name, v in arrays.items() if name.endswith(ending) and (v < 0).any()]
    return [f"{bad[0]} has negative entries"] if bad else []


def of_torch(entries: Mapping[str, np.ndarray]) -> Recognized:
    """Recognises the network of a state dict of PyTorch."""
    arrays = dict(entries)
    problems = not_finite(arrays) + _negative(arrays, "running_var")
    try:
        parts = contents.split(arrays)
    except InputError as error:
        return Recognized(str(error).replace("torch_key=", "--key"), "", problems, [])
    channels, classes = contents.channels_of(parts.network) or 3, contents.num_classes_of(parts)

    name = contents.recognize(parts.network)
    shapes = {entry: value.shape for entry, value in parts.network.items()}
    shapes_of = lambda templates: entry_shapes(name, templates)
    found = _fitting(name, channels, classes, shapes, shapes_of)
    why = relative(parts.network)
    rows = [("relative", why)] if why and not found.name else []
    if parts.mean:
        numbers = [", ".join(f"{v:.6g}" for v in values) for values in (parts.mean, parts.std)]
        rows.append(("normalises", f"by mean {numbers[0]} and deviation {numbers[1] or 'missing'}"))
    if parts.prefix or parts.copies:
        prefixes = [parts.prefix, *parts.copies]
        rows.append(("names begin", f"with {' and '.join(repr(prefix) for prefix in prefixes)}"))
    rows.append(("weights", weights(arrays)))
    return Recognized(found.text, found.name, problems, rows)


def of_jax(entries: Arrays) -> Recognized:
    """Recognises the network among arrays by name of a program in JAX."""
    try:
        network = networks.find(entries)
    except InputError as error:
        return Recognized(str(error).replace("key=", "--key"), "", not_finite(entries), [])
    arrays = network.entries
    problems = not_finite(arrays) + _negative(arrays, "/var")
    channels, classes = networks.sizes(arrays)
    shapes = {name: value.shape for name, value in arrays.items()}
    shapes_of = lambda templates: {n: tuple(v.shape) for n, v in networks.wanted(templates).items()}
    name = networks.recognize(arrays)
    note = ""
    if name:
        wants = networks.wanted(templates_of(name, channels, max(classes, 1)))
        try:
            turned, count = networks.in_our_layout(network, wants, frozenset())
            shapes = {name: value.shape for name, value in turned.items()}
            note = f", {count} kernels in PyTorch's layout" if count else ""
        except InputError as error:
            note = f", {error}"
    found = _fitting(name, channels, classes, shapes, shapes_of)
    rows = [("weights", weights(arrays))] if arrays else []
    if network.others:
        tops = listed(dict.fromkeys(name.partition("/")[0] for name in network.others))
        rows.append(("beside it", f"{len(network.others)} other entries ({tops})"))
    if "step" in entries and entries["step"].size == 1:
        rows.append(("step", str(int(entries["step"]))))
    return Recognized(found.text + note, found.name, problems, rows)


def _command(path: pathlib.Path, found: Recognized, key: str = "") -> list[str]:
    chosen = f" --key {key}" if key else ""
    command = f"MAIN --mode import --path {path}{chosen} --config FILE --workdir DIR"
    if found.name:
        return [f"{command} --config.model.name={found.name}"]
    return [f"{command} --name_map FILE, or rwp_jax.pytorch.convert for a module of your own"]


def inspect_torch(path: pathlib.Path, key: str = "") -> Findings:
    """Inspects a file of PyTorch; raises InputError if it cannot be read or holds nothing known."""
    kind = array_files.kind_of(path)
    title = f"{KINDS[kind]} of PyTorch" if kind else "a file of torch.save"
    content = torch_files.read_content(path)
    if isinstance(content, dict) and {"state", "param_groups"} <= content.keys():
        momenta = torch_files.momenta(path, torch_files.read_optimizer(path))
        named = {f"momentum {i}": m for i, m in enumerate(momenta) if m is not None}
        rows = [("optimiser", f"torch.optim.SGD with momentum of {len(named)} parameters")]
        usage = [f"MAIN --mode import --path CHECKPOINT --torch_optimizer {path} ..."]
        return Findings(title, rows, not_finite(named), usage)
    found = selection.candidates(content)
    if key or len(found) < 2:
        entries, nested = torch_files.read_state_dict(path, key)
        found = {key or nested: entries}
    several = len(found) > 1
    rows, problems, usage = [], [], []
    for name, entries in found.items():
        network = of_torch(torch_files.to_arrays(path, entries))
        heading = f"network {name}" if several else "network"
        rows += [(heading, network.text), *network.rows]
        problems += [f"{name}: {problem}" if several else problem for problem in network.problems]
        usage += _command(path, network, name if several else key)
    return Findings(title, rows, problems, usage)


def inspect_jax(path: pathlib.Path, key: str = "") -> Findings:
    """Inspects arrays of JAX; raises InputError if they cannot be read or there are none."""
    kind = array_files.kind_of(path)
    entries = array_files.read(path, kind)
    if not any(jnp.issubdtype(v.dtype, jnp.floating) and v.ndim > 1 for v in entries.values()):
        held = listed([f"{name} {shape(array)}" for name, array in entries.items()])
        raise InputError(
            f"{path} is {KINDS[kind]} without weights or images (it holds {held or 'nothing'})"
        )
    if key:
        try:
            entries = networks.below(entries, key)
        except InputError as error:
            raise InputError(f"{path} {error}") from None
    network = of_jax(entries)
    tops = listed(dict.fromkeys(name.partition("/")[0] for name in entries))
    rows = [("network", network.text), ("holds", tops), *network.rows]
    return Findings(KINDS[kind], rows, network.problems, _command(path, network, key))
