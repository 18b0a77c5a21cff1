"""Reads files and directories of arrays without running code in them, as NumPy arrays by name."""

import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from rwp_jax.data.unpickle import ArraysOnly, PickledArray
from rwp_jax.errors import InputError, first_line
from rwp_jax.importing import file_kinds
from rwp_jax.importing.layouts import Arrays
from rwp_jax.runs import orbax_trees

SAFETENSORS, NPZ = ".safetensors", ".npz"
_MSGPACK = (".msgpack", ".flax")


def is_safetensors(path: pathlib.Path) -> bool:
    """Returns whether a file is named or begins like one of safetensors: a length, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    begins = len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 2**32
    return path.suffix == SAFETENSORS or begins


def _is_msgpack(path: pathlib.Path) -> bool:
    """Returns whether a file is named or begins like a dict of msgpack, whose first key is a text."""
    with path.open("rb") as file:
        start = file.read(6)
    size = {0xDE: 3, 0xDF: 5}.get(start[0], 1) if start else 1
    is_dict = start[:1] in (b"\xde", b"\xdf") or b"\x81" <= start[:1] <= b"\x8f"
    text = start[size : size + 1]
    return path.suffix in _MSGPACK or (is_dict and (b"\xa1" <= text <= b"\xbf" or text == b"\xd9"))


def kind_of(path: pathlib.Path) -> str:
    """Returns the kind of a file or directory of arrays, or "" if it is none that `read` reads.

    It is one of `orbax`, `npy` (a directory of such files), `safetensors`, `npz`, `msgpack` and `pickle`.
    """
    if path.is_dir():
        if orbax_trees.is_tree(path):
            return "orbax"
        return "npy" if _npy_files(path) else ""
    if not path.is_file():
        return ""
    if is_safetensors(path):
        return "safetensors"
    if path.suffix == NPZ:
        return "npz"
    if _is_msgpack(path):
        return "msgpack"
    what = file_kinds.describe(path)
    return "pickle" if what == file_kinds.PICKLE else ""


def read(path: pathlib.Path, kind: str) -> Arrays:
    """Reads all arrays and numbers.

    Args:
      path: file or directory.
      kind: its kind, from `kind_of`.

    Returns:
      Arrays by path of names, such as `params/conv1/kernel`. Texts are left out.

    Raises:
      InputError: naming the path, if it cannot be read or holds other objects.
    """
    arrays = _READERS[kind](path)
    return {name: _checked(path, name, value) for name, value in arrays.items()}


def as_text(path: pathlib.Path) -> str:
    """Returns what a file is that cannot be read, as ` (it is an HTML page)`, or "" if that is unknown."""
    what = file_kinds.describe(path) if path.is_file() else ""
    return f" (it is {what})" if what else ""


def _checked(path: pathlib.Path, name: str, value) -> np.ndarray:
    """Returns an array with its real dtype; raises InputError unless it holds real numbers."""
    array = np.asarray(value)
    if array.dtype == np.dtype("V2"):  # NumPy's files have no name for JAX's bfloat16
        array = array.view(jnp.bfloat16)
    if not (array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.integer)) and not (
        jnp.issubdtype(array.dtype, jnp.floating)
    ):
        raise InputError(f"{path}: {name} is {array.dtype}, must be an array of real numbers")
    return array


def _flat(path: pathlib.Path, tree: Any) -> Arrays:
    """Flattens nested dicts and lists of arrays and numbers to `a/b/c` -> array; leaves out all else."""
    return _named(path, _leaves(tree))


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, PickledArray):
        tree = tree.values
    if isinstance(tree, Mapping | list | tuple):
        for key, inner in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from _leaves(inner, f"{name}/{key}" if name else str(key))
    is_number = isinstance(tree, bool | int | float | np.generic)
    if is_number or (hasattr(tree, "shape") and hasattr(tree, "dtype")):
        yield name, tree


def _named(path: pathlib.Path, entries: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in entries:
        if name in found:
            raise InputError(f"{path} holds two entries named {name}")
        found[name] = value
    return found


def _slashed(path: pathlib.Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Separates the parts of names by slashes, from `a.b` and JAX's `['a']['b']` and `.a['b']` too."""
    if any("['" in name for name in arrays):
        parts = r"\['?([^'\]]+)'?\]|\.?(\w+)"
        slashed = lambda name: "/".join(a or b for a, b in re.findall(parts, name))
    elif any("/" in name for name in arrays):
        slashed = lambda name: name
    else:
        slashed = lambda name: name.replace(".", "/")
    return _named(path, ((slashed(name), value) for name, value in arrays.items()))


def _npy_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the .npy files of a directory and its folders, but not of hidden ones such as `.venv`."""
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(path).parts)
    return sorted(file for file in path.rglob("*.npy") if not hidden(file))


def _npy(path: pathlib.Path) -> dict[str, Any]:
    arrays = {}
    for file in _npy_files(path):
        try:
            array = np.load(file, allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError("it is an npz")
        except Exception as error:  # NumPy raises many kinds for damaged files
            raise InputError(
                f"{file} is no .npy file, or is cut short ({first_line(error)})"
            ) from None
        arrays[file.relative_to(path).with_suffix("").as_posix()] = array
    return _slashed(path, arrays)


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads an npz by the names in it; raises InputError if it is none or cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        what = file_kinds.describe(path)
        known = what and not what.startswith("an npz")
        why = f"it is {what}" if known else first_line(error)
        raise InputError(f"{path} is no npz of arrays, or is damaged ({why})") from None


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file by the names in it; raises InputError if it is none or cannot be read."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise InputError(f"{path}: reading it needs the package safetensors") from None
    try:
        return load_file(path)
    except TypeError as error:  # NumPy has no float8
        raise InputError(
            f"{path} has tensors that NumPy cannot hold ({first_line(error)}): save them as float32"
        ) from None
    except (SafetensorError, OSError) as error:
        what = file_kinds.describe(path)
        why = f"it is {what}" if what else first_line(error)
        raise InputError(f"{path} is not a safetensors file ({why})") from None


def _msgpack(path: pathlib.Path) -> Arrays:
    from flax import serialization

    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack and flax raise many kinds
        why = as_text(path) or f" ({first_line(error)[:100]})"
        raise InputError(f"{path} is no msgpack file of flax, or is cut short{why}") from None
    return _flat(path, content)


def _pickle(path: pathlib.Path) -> Arrays:
    try:
        with path.open("rb") as stream:
            return _flat(path, ArraysOnly(stream, encoding="latin1").load())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # damaged pickles raise many kinds
        raise InputError(f"{path} is a damaged pickle ({first_line(error)})") from None


_READERS = {
    "orbax": lambda path: _flat(path, orbax_trees.read_tree(path)),
    "npy": _npy,
    "safetensors": lambda path: _slashed(path, read_safetensors(path)),
    "npz": lambda path: _slashed(path, read_npz(path)),
    "msgpack": _msgpack,
    "pickle": _pickle,
}
