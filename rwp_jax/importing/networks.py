"""Finds a network in foreign arrays by name, and brings it into the form of this package's networks."""

import itertools
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.importing.layouts import FROM_TORCH, Arrays
from rwp_jax.names import by_path, listed

COLLECTIONS = ("params", "batch_stats")
_LEAVES = {  # name of an entry in a module -> its collection, where the file does not state it
    "kernel": "params",
    "bias": "params",
    "scale": "params",
    "mean": "batch_stats",
    "var": "batch_stats",
}
_OPTIMIZER = {"opt_state", "optimizer", "opt", "optimizer_state", "mu", "nu", "trace"}
_NNX_VALUE = re.compile(r"/(?:raw_)?value$")
_DIFFERENCES = 5  # listed in a message


class Network(NamedTuple):
    """A network in a foreign file.

    Attributes:
      entries: arrays by `params/PATH` or `batch_stats/PATH`; by their own name if neither can be told.
      others: names of entries that belong to something else, such as the optimiser's state.
    """

    entries: Arrays
    others: list[str]


def roots(names: Iterable[str]) -> list[str]:
    """Returns the paths in a file below which there are `params`, the shortest first; "" for the top."""
    found = set()
    for name in names:
        *parents, _ = name.split("/")
        places = [i for i, part in enumerate(parents) if part in COLLECTIONS]
        # Variables may be below `params` as a whole: the last of these parts is the collection.
        if places and parents[places[-1]] == "params" and not _OPTIMIZER & set(parents):
            found.add("/".join(parents[: places[-1]]))
    return sorted(found, key=lambda root: (_depth(root), root))


def _depth(root: str) -> int:
    return root.count("/") + bool(root)


def below(entries: Arrays, key: str) -> Arrays:
    """Returns the entries below the path `key`, all for ""; raises InputError if there are none."""
    beginning = f"{key.strip('/')}/" if key else ""
    found = {
        name.removeprefix(beginning): v for name, v in entries.items() if name.startswith(beginning)
    }
    if not found:
        tops = listed(dict.fromkeys(name.partition("/")[0] for name in entries))
        raise InputError(f"has nothing at key={key}: it has {tops or 'nothing'}")
    return found


def find(entries: Arrays) -> Network:
    """Finds the network among all entries of a file.

    Its weights are below `params`, and running statistics below `batch_stats` beside it, wherever these
    are; or both are together, as in nnx, and the last part of the name tells which they are.

    Raises:
      InputError: if there are several networks.
    """
    found = roots(entries)
    nearest = [root for root in found if _depth(root) == _depth(found[0])]
    if len(nearest) > 1:
        raise InputError(f"holds several networks, choose by key=: {listed(nearest)}")
    network: Arrays = {}
    others = []
    beginning = f"{nearest[0]}/" if nearest and nearest[0] else ""
    for name, value in entries.items():
        own = name.removeprefix(beginning) if name.startswith(beginning) else ""
        if nearest and own.partition("/")[0] in COLLECTIONS:
            network[own] = value
        elif nearest or _OPTIMIZER & set(name.split("/")) or not value.ndim:
            others.append(name)
        else:
            plain = _NNX_VALUE.sub("", name)
            collection = _LEAVES.get(plain.rpartition("/")[2])
            stated = not collection or name.startswith(f"{collection}/")
            network[name if stated else f"{collection}/{plain}"] = value
    if network and all(_NNX_VALUE.search(name) for name in network):
        network = {_NNX_VALUE.sub("", name): value for name, value in network.items()}
    return Network(network, others)


def recognize(entries: Arrays) -> str | None:
    """Returns the most similar network of this package, by our names; None if none is similar."""
    blocks = [re.match(r"params/block1_(\d+)/conv2/kernel", name) for name in entries]
    count = max((int(block[1]) + 1 for block in blocks if block), default=0)
    first = entries.get("params/block1_0/conv2/kernel")
    if count and first is not None and first.ndim == 4:
        return f"wrn-{6 * count + 4}-{max(max(first.shape) // 16, 1)}"
    layers = any(name.startswith("params/layer1_0/") for name in entries)
    return "preactresnet18" if layers else None


def sizes(entries: Arrays) -> tuple[int, int]:
    """Returns channels and classes of one of this package's networks; 3 and 10 where they are missing."""
    stem, bias = (entries.get(f"params/{name}") for name in ("conv1/kernel", "linear/bias"))
    channels = 3
    if stem is not None and stem.ndim == 4:  # 3x3 kernels in JAX's layout or in PyTorch's
        channels = stem.shape[2] if stem.shape[:2] == (3, 3) else stem.shape[1]
    return channels, len(bias) if bias is not None and bias.ndim == 1 else 10


def wanted(templates: Mapping) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns `params/PATH` and `batch_stats/PATH` -> leaf of the trees `params` and `batch_stats`."""
    return {
        f"{collection}/{name}": leaf
        for collection, tree in templates.items()
        for name, leaf in by_path(tree).items()
    }


def differences(wants: Mapping[str, tuple], there: Mapping[str, tuple]) -> list[str]:
    """Lists what is missing, unknown or of another shape: the first few, then a count."""
    kinds = (
        [f"{name} is missing" for name in wants if name not in there],
        [f"{name} is unknown" for name in there if name not in wants],
        [
            f"{name} is {list(there[name])}, must be {list(shape)}"
            for name, shape in wants.items()
            if name in there and there[name] != shape
        ],
    )
    # Interleaved, so that the first few include each kind.
    found = [d for turn in itertools.zip_longest(*kinds) for d in turn if d]
    if len(found) > _DIFFERENCES:
        found[_DIFFERENCES:] = [f"and {len(found) - _DIFFERENCES} more"]
    return found


def _is_kernel(name: str, shape: tuple) -> bool:
    return name.rpartition("/")[2] == "kernel" and len(shape) in FROM_TORCH


def in_our_layout(network: Network, wants: Mapping, settled: frozenset[str]) -> tuple[Arrays, int]:
    """Transposes kernels whose shape fits only PyTorch's layout, [out, in] and OIHW.

    Kernels that fit both ways, such as square matrices, are taken as the file's other kernels are; if those
    are of both kinds, the map must state the axes.

    Args:
      network: network of the file.
      wants: leaves by name, from `wanted`.
      settled: names whose layout is known.

    Returns:
      Entries by name, and the number of kernels that were transposed.

    Raises:
      InputError: if the layout of a kernel cannot be told.
    """
    as_is, transposed, either = [], [], []
    for name, value in network.entries.items():
        if name in settled or name not in wants or not _is_kernel(name, value.shape):
            continue
        shape = wants[name].shape
        fits = value.shape == shape
        turned = len(shape) == value.ndim and shape == tuple(
            value.shape[axis] for axis in FROM_TORCH[value.ndim]
        )
        if fits or turned:
            (either if fits and turned else as_is if fits else transposed).append(name)
    if either and as_is and transposed:
        raise InputError(
            f"has {either[0]} of {list(network.entries[either[0]].shape)}, which fits as it is and "
            "transposed, and other kernels of both layouts: a name map must give its axes"
        )
    turn = {*transposed, *(either if transposed else ())}
    turned_entries = {
        name: np.transpose(value, FROM_TORCH[value.ndim]) if name in turn else value
        for name, value in network.entries.items()
    }
    return turned_entries, len(turn)


def check_fit(path: pathlib.Path, model_name: str, entries: Arrays, wants: Mapping) -> None:
    """Raises InputError unless names and shapes are those of the network and all values are finite."""
    shapes = lambda leaves: {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    found = differences(shapes(wants), shapes(entries))
    if found:
        nearest = recognize(entries)
        hint = f" (most similar network: {nearest})" if nearest else " (its names are others)"
        hint = "" if nearest == model_name else hint
        raise InputError(f"{path} is not a {model_name}{hint}: {'; '.join(found)}")
    for name, value in entries.items():
        check_finite(path, name, value, wants[name].dtype)
        if name.endswith("/var") and (value < 0).any():
            raise InputError(f"{path}: {name} has negative entries")


def check_finite(path: pathlib.Path, name: str, value: np.ndarray, dtype) -> None:
    """Raises InputError unless all entries are finite in the target dtype."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(dtype)).all()
    if not finite:
        raise InputError(f"{path}: {name} has entries that are not finite in {dtype}")
