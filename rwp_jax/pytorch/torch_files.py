"""Reads and writes files of PyTorch's state dicts, as NumPy arrays."""

import codecs
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rwp_jax.errors import InputError, first_line, prefixed
from rwp_jax.files import partial_of
from rwp_jax.importing import array_files, file_kinds
from rwp_jax.importing.array_files import NPZ, SAFETENSORS, is_safetensors
from rwp_jax.pytorch import selection


def _torch(purpose: str):
    try:
        import torch
    except ImportError:
        raise InputError(f"{purpose} needs the package torch (its CPU build is enough)") from None
    return torch


def _check_file(path: pathlib.Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is {'a directory' if path.is_dir() else 'not a file'}")


def _to_numpy(path: pathlib.Path, name: str, value) -> np.ndarray:
    """Converts a tensor or an array of NumPy."""
    layout, kind = str(getattr(value, "layout", "strided")), str(value.dtype)
    layout, kind = layout.removeprefix("torch."), kind.removeprefix("torch.")
    real = kind in {"bool", "bfloat16", "float16", "float32", "float64"}
    if layout != "strided" or not (real or kind.startswith(("int", "uint"))):
        raise InputError(
            f"{path}: {name} is {layout} {kind}, must be a dense tensor of real numbers"
        )
    if isinstance(value, np.ndarray | np.generic):
        # JAX adds bfloat16 to NumPy, but NumPy cannot save it.
        return np.asarray(value, np.float32 if kind == "bfloat16" else None)
    tensor = value.detach().cpu()
    return (tensor.float() if kind == "bfloat16" else tensor).numpy()


def _harmless() -> list:
    """Returns what files may hold besides tensors: NumPy's numbers and arrays, by old and new names."""
    multiarray = np._core.multiarray
    functions = [multiarray.scalar, multiarray._reconstruct]
    old = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    dtypes = {type(np.dtype(t)) for t in "?bhilqBHILQefd"}
    return [np.dtype, np.ndarray, codecs.encode, *functions, *old, *dtypes]


def _other_kind(path: pathlib.Path, what: str) -> InputError:
    return InputError(f"{path} is no file of torch.save: it is {what}")


def _refused(path: pathlib.Path, error: Exception) -> InputError:
    """Returns the error for a file with an object that unpickling could run code for."""
    named = re.search(r"GLOBAL ([\w.]+)|but got <class '([\w.]+)'>", str(error))
    what = (named[1] or named[2]) if named else "more than tensors"
    if what == "argparse.Namespace":
        how = (
            "strip it, which runs no code: with torch.serialization.safe_globals([argparse.Namespace]), "
            "load the file with weights_only=True and save its state dict alone"
        )
    else:
        how = "where the file was made, save the state dict alone: torch.save(model.state_dict(), FILE)"
    return InputError(
        f"{path} is refused: it holds {what}, and unpickling it could run code; {how}"
    )


def _load(path: pathlib.Path) -> Any:
    """Loads a file of torch.save that holds tensors, containers and numbers; else raises InputError."""
    try:
        torch = _torch(f"{path}: reading it")
    except InputError as error:  # for what is no checkpoint, nobody has to install PyTorch
        what = file_kinds.describe(path)
        raise (_other_kind(path, what) if what else error) from None
    try:
        with (
            torch.serialization.safe_globals(_harmless()),
            warnings.catch_warnings(action="ignore"),
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        why = error.strerror or first_line(error)
        raise InputError(f"{path} cannot be read, or is cut short ({why})") from None
    except Exception as error:  # pickle, zip and torch raise many types
        if what := file_kinds.describe(path):
            raise _other_kind(path, what) from None
        if "GLOBAL" in str(error) or "allowlisted" in str(error):
            raise _refused(path, error) from None
        if "Unsupported operand" in str(error):
            raise InputError(
                f"{path} was written with another pickle_protocol than torch.save's default, which cannot "
                "be read without running code in it: save it with the default"
            ) from None
        raise InputError(
            f"{path} is not a file of torch.save, or is damaged ({type(error).__name__})"
        ) from None


def read_state_dict(path: pathlib.Path, key: str = "") -> tuple[dict[str, np.ndarray], str]:
    """Reads a network's state dict from a file without running code in it.

    Args:
      path: file of torch.save, safetensors or NumPy (npz), which is or holds a dict of names and arrays.
      key: key of the state dict in the file, or the beginning of the names to take; "" for the only one.

    Returns:
      The entries in the file's order, in PyTorch's layout, and the key that held them, or "".

    Raises:
      InputError: if the file cannot be read, holds other objects, no state dict, or several.
    """
    content = read_content(path)
    with prefixed(f"{path} "):
        entries, nested = selection.choose(content, key)
    return to_arrays(path, entries), nested


def read_content(path: pathlib.Path) -> Any:
    """Reads all that a file holds, as `read_state_dict` does before it chooses a state dict."""
    _check_file(path)
    if is_safetensors(path):
        return array_files.read_safetensors(path)
    return array_files.read_npz(path) if path.suffix == NPZ else _load(path)


def to_arrays(path: pathlib.Path, entries: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts the entries of a state dict; raises InputError unless they are real numbers."""
    return {name: _to_numpy(path, name, value) for name, value in entries.items()}


def read_optimizer(path: pathlib.Path) -> dict[str, Any]:
    """Reads the state dict of a torch.optim optimiser; raises InputError if the file holds none."""
    _check_file(path)
    content = _load(path)
    if not isinstance(content, dict) or not {"state", "param_groups"} <= content.keys():
        raise InputError(
            f"{path} holds no optimiser's state dict: state or param_groups is missing"
        )
    state, groups = content["state"], content["param_groups"]
    if not (
        isinstance(state, dict)
        and all(isinstance(buffers, dict) for buffers in state.values())
        and isinstance(groups, list)
        and all(isinstance(g, dict) and isinstance(g.get("params"), list) for g in groups)
    ):
        raise InputError(
            f"{path} holds no optimiser's state dict: state or param_groups is malformed"
        )
    return content


def momenta(path: pathlib.Path, content: dict[str, Any]) -> list[np.ndarray | None]:
    """Returns the momentum buffer of torch.optim.SGD for each parameter, None if it has none.

    Raises:
      InputError: for another optimiser, or for several parameter groups, whose order is unknown.
    """
    groups, state = content["param_groups"], content["state"]
    if len(groups) != 1:
        raise InputError(f"{path} has {len(groups)} parameter groups, must have one")
    kinds = {str(key) for buffers in state.values() for key in buffers}
    if kinds - {"momentum_buffer"}:
        raise InputError(f"{path} is not the state of SGD: it has {', '.join(sorted(kinds))}")
    buffers = [state.get(i, {}).get("momentum_buffer") for i in groups[0]["params"]]
    if any(buffer is not None and not hasattr(buffer, "detach") for buffer in buffers):
        raise InputError(f"{path} has a momentum_buffer that is not a tensor")
    return [
        None if buffer is None else _to_numpy(path, f"momentum {i}", buffer)
        for i, buffer in enumerate(buffers)
    ]


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes nested dicts of NumPy arrays as tensors; a flat dict also as safetensors.

    Raises:
      InputError: if the package that writes such files is missing.
    """
    partial = partial_of(path)
    if path.suffix == SAFETENSORS:
        try:
            from safetensors.numpy import save
        except ImportError:
            raise InputError(f"{path}: writing it needs the package safetensors") from None
        arrays = {name: np.array(value, order="C") for name, value in content.items()}
        partial.write_bytes(save(arrays))
    else:
        torch = _torch(f"{path}: writing it")

        def tensors(value):
            if isinstance(value, dict):
                return {key: tensors(inner) for key, inner in value.items()}
            return torch.tensor(value) if isinstance(value, np.ndarray) else value

        torch.save(tensors(content), partial)
    partial.replace(path)
