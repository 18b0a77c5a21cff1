"""Splits a PyTorch checkpoint of this family of networks into the network and all other entries."""

import itertools
import json
import os
import pathlib
import re
import zipfile
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.files import write_npz
from rwp_jax.importing.networks import check_finite, differences
from rwp_jax.pytorch.relatives import relative
from rwp_jax.pytorch.state_dict import entry_shapes, from_state_dict

ASIDE = "torch_aside.npz"  # file in the workdir of an imported run
_FORM = "_form"
_SUB_BLOCK = (
    "sub_block1."  # a copy of block1 that networks of RST and the original TRADES never use
)
_STEMS = ("conv1", "init_conv", "conv_2d")  # names of the first convolution
_HEADS = ("linear", "fc", "logits")
_NORMALIZATION = {"mean": ("mean", "mu", "new_mean"), "std": ("std", "sigma", "new_std")}


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
    inner = r".*(?:layer|block)s?\.?\d"
    stem = rf"((?!{inner}).*?)(?:{'|'.join(_STEMS)})\.weight"
    stems = [re.fullmatch(stem, name) for name in entries]
    shared = os.path.commonprefix(list(entries)).rpartition(".")
    prefixes = sorted((stem[1] for stem in stems if stem), key=len)
    prefix, *copies = prefixes or [shared[0] + shared[1]]
    channels = channels_of(entries, prefix)
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


def channels_of(entries: dict[str, np.ndarray], prefix: str = "") -> int:
    """Returns the number of channels of the images of a network; 0 if its first convolution is missing."""
    names = [f"{prefix}{stem}.weight" for stem in _STEMS]
    stems = [entries[name] for name in names if name in entries]
    return stems[0].shape[1] if stems and stems[0].ndim == 4 else 0


def recognize(network: dict[str, np.ndarray]) -> str | None:
    """Returns the name of the most similar network of this package, None if none is similar."""
    kernels = {"wrn": r"block1\.layer\.(\d+)\.conv2", "dm-wrn": r"layer\.0\.block\.(\d+)\.conv_1"}
    for kind, kernel in kernels.items():
        matches = [re.fullmatch(rf"{kernel}\.weight", name) for name in network]
        blocks = {int(match[1]): network[match[0]].shape for match in matches if match}
        if blocks:
            features, *_ = next(iter(blocks.values())) or (0,)
            return f"{kind}-{6 * (max(blocks) + 1) + 4}-{max(features // 16, 1)}"
    for kind, block in (("preactresnet18", "layer1.0."), ("dm-preactresnet18", "layer_0.0.")):
        if any(name.startswith(block) for name in network):
            return kind
    return None


def check_fit(path: pathlib.Path, parts: CheckpointParts, model_name: str, templates: dict) -> None:
    """Raises InputError unless names and shapes match those of a network and all values are finite.

    Args:
      path: path of the checkpoint.
      parts: parts of the checkpoint.
      model_name: name of one of the package's networks.
      templates: the network's `params` and `batch_stats`, arrays or ShapeDtypeStructs.
    """
    wanted = entry_shapes(model_name, templates)
    there = {name: value.shape for name, value in parts.network.items()}
    found = differences(wanted, there)
    if found:
        nearest = recognize(parts.network)
        why = relative(parts.network)
        similar = f"most similar network: {nearest}" if nearest else "no known network is similar"
        hint = f" ({f'it is {why}' if why else similar})"
        hint = "" if nearest == model_name and not why else hint
        raise InputError(f"{path} is not a {model_name}{hint}: {'; '.join(found)}")
    dtype = jax.tree.leaves(templates)[0].dtype
    for name, value in parts.network.items():
        check_finite(path, name, value, dtype)
        if name.endswith(".running_var") and (value < 0).any():
            raise InputError(f"{path}: {name} has negative entries")


def fitted(
    path: pathlib.Path, parts: CheckpointParts, model_name: str, templates: dict
) -> dict[str, Any]:
    """Returns `params` and `batch_stats` of a network from a checkpoint, of NumPy arrays.

    Args: as in `check_fit`, which raises InputError unless the checkpoint fits.
    """
    check_fit(path, parts, model_name, templates)
    return {
        collection: from_state_dict(
            model_name, tree, lambda entry, _: parts.network[entry], collection
        )
        for collection, tree in templates.items()
    }


def num_classes_of(parts: CheckpointParts) -> int:
    """Returns the size of the last layer's bias; 10 if it is missing, which `check_fit` then reports."""
    names = [f"{head}.bias" for head in _HEADS]
    biases = [parts.network[name] for name in names if name in parts.network]
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


_TOP = (*_STEMS, "block1", "sub_block1", "block2", "block3", "layer")
_TOP += (*(f"layer{i}" for i in range(1, 5)), *(f"layer_{i}" for i in range(4)))
_TOP += ("bn", "bn1", "batchnorm", *_HEADS)
_MODULES = ("bn1", "batchnorm_0", "conv1", "conv_0", "conv_2d_1")
_MODULES += ("bn2", "batchnorm_1", "conv2", "conv_1", "conv_2d_2", "shortcut", "convShortcut")
_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def registration_order(name: str) -> tuple[int, ...]:
    """Sort key of an entry: the order in which PyTorch's classes register it, that of `parameters()`."""
    top, *inner, leaf = name.split(".")
    modules = [_MODULES.index(part) for part in inner if part in _MODULES]
    before = itertools.takewhile(lambda part: part not in _MODULES, inner)
    blocks = [int(part) for part in before if part.isdigit()]
    return _TOP.index(top), *blocks, *modules, _LEAVES.index(leaf)
