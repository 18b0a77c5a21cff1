"""A map from the names of a foreign file to those of this package's networks, as JSON."""

import difflib
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from rwp_jax.errors import InputError, first_line, shown
from rwp_jax.importing.layouts import Arrays
from rwp_jax.names import listed

ACCEPTED = (
    'must be a path such as "block1_0/conv1/kernel", {"path": PATH, "axes": [2, 3, 1, 0]} to transpose '
    "the entry, or null to leave it out"
)


class Target(NamedTuple):
    """Where an entry belongs.

    Attributes:
      path: path in the network, with or without `params` or `batch_stats` before it.
      axes: axes of `numpy.transpose` that bring the entry into the network's layout; None where shapes
        tell the layout.
    """

    path: str
    axes: tuple[int, ...] | None = None


class Mapped(NamedTuple):
    """Entries by their new names.

    Attributes:
      entries: arrays, transposed where the map says so.
      settled: new names of the entries whose layout the map states.
    """

    entries: Arrays
    settled: frozenset[str]


NameMap = dict[str, Target | None]  # names that end with a slash stand for the beginning of names


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _target(name: str, value: Any) -> Target | None:
    if value is None:
        return None
    path, axes = value, None
    if isinstance(value, dict) and value.keys() == {"path", "axes"}:
        path, axes = value["path"], value["axes"]
        is_order = isinstance(axes, list) and all(type(axis) is int for axis in axes)
        if name.endswith("/") or not is_order or sorted(axes) != list(range(len(axes))):
            raise InputError(
                f"{name!r} has axes {shown(axes)}, must be an order of the axes of one entry, such as "
                "[2, 3, 1, 0]"
            )
    if not isinstance(path, str):
        raise InputError(f"{name!r} is {shown(value)}, {ACCEPTED}")
    return Target(path.strip("/"), tuple(axes) if axes is not None else None)


def read_name_map(path: pathlib.Path) -> NameMap:
    """Reads a map; raises InputError, naming `name_map=`, if the file holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"name_map={path} is no readable JSON ({why})") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"name_map={path} must be a JSON object of names: each {ACCEPTED}")
    try:
        return {name: _target(name, value) for name, value in content.items()}
    except InputError as error:
        raise InputError(f"name_map={path}: {error}") from None


def apply(names: NameMap, entries: Arrays) -> Mapped:
    """Renames, transposes and leaves out entries.

    An entry's own name goes before the beginnings of names, of which the longest counts. Other entries keep
    their names.

    Args:
      names: map from `read_name_map`.
      entries: arrays by name.

    Raises:
      InputError: if a name of the map is not there, or two entries get the same name.
    """
    beginnings = sorted((n for n in names if n.endswith("/")), key=len, reverse=True)
    _check_used(names, entries)
    found: Arrays = {}
    origin: dict[str, str] = {}
    settled = set()
    for name, value in entries.items():
        new, axes = name, None
        beginning = next((b for b in beginnings if name.startswith(b)), None)
        target = names.get(name)
        if name in names and target is None:
            continue
        if target is not None:
            new, axes = target
        elif beginning is not None:
            target = names[beginning]
            if target is None:
                continue
            new = f"{target.path}/{name.removeprefix(beginning)}".removeprefix("/")
        if axes is not None:
            if len(axes) != value.ndim:
                raise InputError(f"{name!r} is {list(value.shape)}, its axes are {list(axes)}")
            value = np.transpose(value, axes)
            settled.add(new)
        if new in found:
            raise InputError(f"{origin[new]!r} and {name!r} both become {new!r}")
        found[new], origin[new] = value, name
    return Mapped(found, frozenset(settled))


def _check_used(names: NameMap, entries: Arrays) -> None:
    for name in names:
        there = any(e.startswith(name) for e in entries) if name.endswith("/") else name in entries
        if there:
            continue
        near = difflib.get_close_matches(name, entries, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it holds {listed(entries) or 'nothing'}"
        raise InputError(f"{name!r} is not in the file: {hint}")
