"""Names and layouts of the PyTorch networks of this family, without PyTorch."""

import re
from collections.abc import Callable, Iterator, Mapping

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


def _torch_module(model_name: str, modules: tuple[str, ...]) -> str:
    """Returns PyTorch's dotted name of a module of this package, such as ("layer1_0", "shortcut")."""
    if model_name == "preactresnet18":
        renamed = {"shortcut": "shortcut.0"}
        blocks = r"\1.\2"
    else:
        renamed = {"shortcut": "convShortcut", "linear": "fc"} | (
            {"bn": "bn1"} if len(modules) == 1 else {}
        )
        blocks = r"\1.layer.\2"
    return ".".join(
        re.sub(r"^([a-z]+\d)_(\d+)$", blocks, renamed.get(module, module)) for module in modules
    )


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


def to_state_dict(model_name: str, tree, collection: str = "params") -> Mapping[str, np.ndarray]:
    """Returns the state-dict entries, in PyTorch's names and layouts, of params or batch_stats."""
    return {name: to_torch_layout(leaf) for name, leaf in torch_names(model_name, tree, collection)}


def from_state_dict(model_name: str, tree, entry: Callable, collection: str = "params"):
    """Builds a tree with the structure of `tree` (arrays or ShapeDtypeStructs) from a state dict.

    Args:
      model_name: `preactresnet18` or `wrn-D-W`.
      tree: template of params or batch_stats.
      entry: (name, shape) -> the state-dict entry of that name, both in PyTorch's layout.
      collection: `params` or `batch_stats`, whichever `tree` is.
    """

    def fill(name, leaf):
        shape = to_torch_layout(np.empty(leaf.shape, np.bool_)).shape
        return from_torch_layout(entry(name, shape)).astype(leaf.dtype)

    leaves = [fill(name, leaf) for name, leaf in torch_names(model_name, tree, collection)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)
