"""Splits a PyTorch checkpoint of this family of networks into the network and all other entries."""

import itertools
import json
import os
import pathlib
import re
import zipfile
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.files import write_npz
from rwp_jax.pytorch.state_dict import to_state_dict

ASIDE = "torch_aside.npz"  # file in the workdir of an imported run
_FORM = "_form"
_SUB_BLOCK = (
    "sub_block1."  # a copy of block1 that networks of RST and the original TRADES never use
)
_NORMALIZATION = {"mean": ("mean", "mu", "new_mean"), "std": ("std", "sigma", "new_std")}
_LISTED = 5  # differences listed in a message


class CheckpointParts(NamedTuple):
    """The parts of a state dict.

    Attributes:
      network: maps names, without prefix, to arrays that the network computes with.
      mean: mean of the normalisation inside the checkpoint, one number per channel; () if there is none.
      std: standard deviation of this normalisation, likewise.
      aside: other entries, by full name: counters, `sub_block1` and the normalisation.
      order: all full names, in the file's order.
      prefix: prefix of the network's entries in the file, such as `module.`.
      nested: key of the state dict in the file, or "".
      copies: prefixes of further copies of the network's entries, as in files of MadryLab's robustness.
    """

    network: dict[str, np.ndarray]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    aside: dict[str, np.ndarray]
    order: list[str]
    prefix: str
    nested: str
    copies: tuple[str, ...] = ()


def split(entries: dict[str, np.ndarray], nested: str = "") -> CheckpointParts:
    """Splits a state dict into its parts; `entries` have PyTorch's names and layouts.

    Raises:
      InputError: if it holds several networks that differ.
    """
    # Wrappers prefix the network's entries with their name; blocks have a conv1 too.
    stems = [re.fullmatch(r"((?!.*(?:layer|block)\d).*?)conv1\.weight", name) for name in entries]
    shared = os.path.commonprefix(list(entries)).rpartition(".")
    prefixes = sorted((stem[1] for stem in stems if stem), key=len)
    prefix, *copies = prefixes or [shared[0] + shared[1]]
    stem = entries.get(f"{prefix}conv1.weight")
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 0
    network, aside, normalization = {}, {}, {"mean": (), "std": ()}
    for name, value in entries.items():
        copy = next((copy for copy in copies if name.startswith(copy)), prefix)
        own = name.removeprefix(copy)
        leaf = name.rpartition(".")[2]
        kind = next((kind for kind, names in _NORMALIZATION.items() if leaf in names), None)
        if kind and value.size == channels:
            normalization[kind] = tuple(value.ravel().tolist())
            aside[name] = value
        elif leaf == "num_batches_tracked" or own.startswith(_SUB_BLOCK):
            aside[name] = value
        elif own not in network:
            network[own] = value
        elif not np.array_equal(network[own], value, equal_nan=True):
            raise InputError(
                f"holds networks that differ, choose one by torch_key=: {', '.join(prefixes)}"
            )
    return CheckpointParts(
        network,
        **normalization,
        aside=aside,
        order=list(entries),
        prefix=prefix,
        nested=nested,
        copies=tuple(copies),
    )


def recognize(network: dict[str, np.ndarray]) -> str | None:
    """Returns the name of the most similar network of this package, None if none is similar."""
    blocks = [re.match(r"block1\.layer\.(\d+)\.conv2\.weight", name) for name in network]
    count = max((int(block[1]) + 1 for block in blocks if block), default=0)
    if count:
        width = network["block1.layer.0.conv2.weight"].shape[0]
        return f"wrn-{6 * count + 4}-{max(width // 16, 1)}"
    return "preactresnet18" if any(name.startswith("layer1.0.") for name in network) else None


def check_fit(path: pathlib.Path, parts: CheckpointParts, model_name: str, templates: dict) -> None:
    """Raises InputError unless names and shapes match those of a network and all values are finite.

    Args:
      path: path of the checkpoint.
      parts: parts of the checkpoint.
      model_name: `preactresnet18` or `wrn-D-W`.
      templates: the network's `params` and `batch_stats`, arrays or ShapeDtypeStructs.
    """
    wanted = {}
    for collection, tree in templates.items():
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.bool_), tree)
        shapes = to_state_dict(model_name, empty, collection)
        wanted |= {name: value.shape for name, value in shapes.items()}
    there = {name: value.shape for name, value in parts.network.items()}
    kinds = (
        [f"{name} is missing" for name in wanted if name not in there],
        [f"{name} is unknown" for name in there if name not in wanted],
        [
            f"{name} is {list(there[name])}, must be {list(shape)}"
            for name, shape in wanted.items()
            if name in there and there[name] != shape
        ],
    )
    # Interleaved, so that the first few include each kind.
    differences = [d for turn in itertools.zip_longest(*kinds) for d in turn if d]
    if differences:
        nearest = recognize(parts.network)
        hint = (
            f" (most similar network: {nearest})" if nearest else " (no known network is similar)"
        )
        hint = "" if nearest == model_name else hint
        if len(differences) > _LISTED:
            differences[_LISTED:] = [f"and {len(differences) - _LISTED} more"]
        raise InputError(f"{path} is not a {model_name}{hint}: {'; '.join(differences)}")
    dtype = jax.tree.leaves(templates)[0].dtype
    for name, value in parts.network.items():
        check_finite(path, name, value, dtype)
        if name.endswith(".running_var") and (value < 0).any():
            raise InputError(f"{path}: {name} has negative entries")


def check_finite(path: pathlib.Path, name: str, value: np.ndarray, dtype) -> None:
    """Raises InputError unless all entries are finite in the target dtype."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(dtype)).all()
    if not finite:
        raise InputError(f"{path}: {name} has entries that are not finite in {dtype}")


def num_classes_of(parts: CheckpointParts) -> int:
    """Returns the size of the last layer's bias; 10 if it is missing, which `check_fit` then reports."""
    biases = [parts.network[name] for name in ("linear.bias", "fc.bias") if name in parts.network]
    return len(biases[0]) if biases and biases[0].ndim == 1 else 10


def parameter_names(names: list[str], copies: tuple[str, ...] = ()) -> list[str]:
    """Returns the parameters among a state dict's names, in order, as PyTorch's optimisers number them.

    Args:
      names: names of a state dict's entries.
      copies: prefixes of copies, which share the parameters of the network.
    """
    buffers = {"running_mean", "running_var", "num_batches_tracked"}
    buffers |= {name for names in _NORMALIZATION.values() for name in names}
    own = (name for name in names if not name.startswith(tuple(copies)))
    return [name for name in own if name.rpartition(".")[2] not in buffers]


def save_aside(directory: pathlib.Path, parts: CheckpointParts) -> None:
    """Saves what an export needs to write the same entries again."""
    form = {key: getattr(parts, key) for key in ("order", "prefix", "nested", "copies")}
    write_npz(directory / ASIDE, parts.aside | {_FORM: np.array(json.dumps(form))})


def load_aside(directory: pathlib.Path) -> CheckpointParts | None:
    """Loads what `save_aside` saved, with an empty network; None if the run was not imported."""
    path = directory / ASIDE
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            aside = {name: file[name] for name in file.files}
        return CheckpointParts({}, (), (), aside=aside, **json.loads(str(aside.pop(_FORM))))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise InputError(f"{path} is damaged: move it away to export a plain state dict") from None


_TOP = ("conv1", "block1", "sub_block1", "block2", "block3")
_TOP += ("layer1", "layer2", "layer3", "layer4", "bn", "bn1", "linear", "fc")
_MODULES = ("bn1", "conv1", "bn2", "conv2", "shortcut", "convShortcut")
_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def registration_order(name: str) -> tuple[int, ...]:
    """Sort key of an entry: the order in which the authors' classes register it, that of `parameters()`."""
    top, *inner, leaf = name.split(".")
    block = [int(part) for part in inner if part.isdigit()][:1]
    modules = [_MODULES.index(part) for part in inner if part in _MODULES]
    return _TOP.index(top), *block, *modules, _LEAVES.index(leaf)
