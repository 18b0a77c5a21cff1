"""Finds the state dict of a network inside what a checkpoint file holds."""

from collections.abc import Iterator, Mapping
from typing import Any

from rwp_jax.errors import InputError

USUAL = ("state_dict", "model_state_dict")  # preferred to others, such as averaged weights
_DEPTH = 4  # of nested containers
_LISTED = 8  # keys listed in a message


def is_array(value: Any) -> bool:
    """Returns whether a value is a tensor or an array of NumPy."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_state_dict(value: Any) -> bool:
    """Returns whether a value maps names to arrays, at least one of which may be a kernel or a matrix."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and is_array(entry) for name, entry in value.items())
        and any(len(entry.shape) > 1 for entry in value.values())
    )


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if {"state", "param_groups"} <= value.keys():
            return  # the state of an optimiser
        yield from ((str(key), inner) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(i), inner) for i, inner in enumerate(value))


def candidates(content: Any, key: str = "", depth: int = _DEPTH) -> dict[str, Mapping]:
    """Returns the state dicts in nested dicts, lists and tuples by key, such as `models.net`, "" for all.

    Args:
      content: what the file holds.
      key: key of `content` itself, which begins the keys of its parts.
      depth: number of levels to search.
    """
    if _is_state_dict(content):
        return {key: content}
    if not depth:
        return {}
    found = {}
    for name, inner in _children(content):
        found |= candidates(inner, f"{key}.{name}" if key else name, depth - 1)
    return found


def _holds(content: Any) -> str:
    """Names what a file holds instead of a state dict."""
    names = [name for name, _ in _children(content)]
    if not names:
        return type(content).__name__ if not isinstance(content, Mapping) else "nothing"
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def choose(content: Any, key: str) -> tuple[Mapping, str]:
    """Returns a network's state dict and its key in the file.

    Args:
      content: what the file holds.
      key: key to take, or the beginning of the names to take from the one taken without a key; "" for the
        only one or, of several, the one that is usual.

    Raises:
      InputError: if there is none, or none with this key, or several of which none is usual.
    """
    found = candidates(content)
    if not found:
        mixed = _others_beside_arrays(content)
        if mixed:
            raise InputError(
                f"holds a state dict mixed with other entries ({mixed}): save the state dict alone"
            )
        raise InputError(
            f"holds no state dict ({_holds(content)}): it must be one, or hold one under a key"
        )
    if key in found:
        return found[key], key
    usual = [name for name in USUAL if name in found] or list(found)
    name = usual[0]
    if key:
        beginning = f"{key.removesuffix('.')}."
        entries = {n: value for n, value in found[name].items() if n.startswith(beginning)}
        if not _is_state_dict(entries):
            raise InputError(f"has no state dict torch_key={key}: it has {_named(found)}")
        return entries, name
    if len(usual) > 1 and name not in USUAL:
        raise InputError(f"holds several state dicts, choose by torch_key=: {_named(found)}")
    return found[name], name


def _named(found: Mapping[str, Mapping]) -> str:
    names = [name or "the file itself" for name in found]
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _others_beside_arrays(content: Any) -> str:
    """Names the entries of a dict of arrays that are no arrays; "" for anything else."""
    if not isinstance(content, Mapping):
        return ""
    kernels = [name for name, v in content.items() if is_array(v) and len(v.shape) > 1]
    others = [str(name) for name, value in content.items() if not is_array(value)]
    return ", ".join(others[:_LISTED]) if kernels else ""
