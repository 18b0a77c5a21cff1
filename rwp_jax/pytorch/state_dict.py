"""Names and layouts of the PyTorch networks of this family, without PyTorch."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import MODELS

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def check_has_names(model_name: str) -> None:
    """Raises InputError for a registered network, which has no PyTorch parameter names."""
    if MODELS.origin(model_name):
        raise InputError(
            f"config.model.name={model_name!r} is registered: only the package's own networks have "
            "names in PyTorch"
        )


class _Names(NamedTuple):
    """How a class of PyTorch names what is named otherwise here.

    Attributes:
      outside: modules outside of blocks.
      block: format of a block's name; blocks {j} are counted from 0, stages from 0 ({i}) or 1 ({stage}).
      inside: modules of a block.
    """

    outside: dict[str, str]
    block: str
    inside: dict[str, str]


_PREACT = _Names({}, "layer{stage}.{j}", {"shortcut": "shortcut.0"})
_WIDE = _Names(
    {"bn": "bn1", "linear": "fc"}, "block{stage}.layer.{j}", {"shortcut": "convShortcut"}
)
_DM_HEAD = {"bn": "batchnorm", "linear": "logits"}
_DM_NORMS = {"bn1": "batchnorm_0", "bn2": "batchnorm_1"}
_DM_PREACT = _Names(
    {"conv1": "conv_2d"} | _DM_HEAD,
    "layer_{i}.{j}",
    {"conv1": "conv_2d_1", "conv2": "conv_2d_2"} | _DM_NORMS,
)
_DM_WIDE = _Names(
    {"conv1": "init_conv"} | _DM_HEAD,
    "layer.{i}.block.{j}",
    {"conv1": "conv_0", "conv2": "conv_1"} | _DM_NORMS,
)


def _torch_module(model_name: str, modules: tuple[str, ...]) -> str:
    """Returns PyTorch's dotted name of a module of this package, such as ("layer1_0", "shortcut")."""
    wide, preact = (_DM_WIDE, _DM_PREACT) if model_name.startswith("dm-") else (_WIDE, _PREACT)
    names = preact if model_name.endswith("preactresnet18") else wide
    if len(modules) == 1:
        return names.outside.get(modules[0], modules[0])
    block, inside = modules
    stage, j = map(int, re.findall(r"\d+", block))
    return f"{names.block.format(stage=stage, i=stage - 1, j=j)}.{names.inside.get(inside, inside)}"


def torch_names(model_name: str, tree, collection: str) -> Iterator[tuple[str, object]]:
    """Yields (state-dict name, leaf in our layout) for each leaf of params or batch_stats."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *modules, kind = (key.key for key in path)
        yield f"{_torch_module(model_name, tuple(modules))}.{_LEAVES[collection, kind]}", leaf


def to_torch_layout(array) -> np.ndarray:
    """Transposes kernels HWIO -> OIHW and matrices [in, out] -> [out, in]; keeps vectors."""
    array = np.asarray(array)
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def from_torch_layout(array) -> np.ndarray:
    """Transposes kernels OIHW -> HWIO and matrices [out, in] -> [in, out]; keeps vectors."""
    array = np.asarray(array)
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def to_state_dict(model_name: str, tree, collection: str = "params") -> dict[str, np.ndarray]:
    """Returns the state-dict entries, in PyTorch's names and layouts, of params or batch_stats."""
    return {name: to_torch_layout(leaf) for name, leaf in torch_names(model_name, tree, collection)}


def entry_shapes(model_name: str, templates: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the state-dict entries of a network, in PyTorch's names and layouts.

    Args:
      model_name: name of one of the package's networks.
      templates: its `params` and `batch_stats`, arrays or ShapeDtypeStructs.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for collection, tree in templates.items():
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.bool_), tree)
        entries = to_state_dict(model_name, empty, collection)
        shapes |= {name: value.shape for name, value in entries.items()}
    return shapes


def from_state_dict(model_name: str, tree, entry: Callable, collection: str = "params"):
    """Builds a tree with the structure of `tree` (arrays or ShapeDtypeStructs) from a state dict.

    Args:
      model_name: name of one of the package's networks.
      tree: template of params or batch_stats.
      entry: (name, shape) -> the state-dict entry of that name, both in PyTorch's layout.
      collection: `params` or `batch_stats`, whichever `tree` is.
    """

    def fill(name, leaf):
        shape = to_torch_layout(np.empty(leaf.shape, np.bool_)).shape
        return from_torch_layout(entry(name, shape)).astype(leaf.dtype)

    leaves = [fill(name, leaf) for name, leaf in torch_names(model_name, tree, collection)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
