"""Reads and writes PyTorch's files of state dicts, as NumPy arrays."""

import pathlib
import warnings
from typing import Any

import numpy as np

from rwp_jax.errors import InputError, first_line
from rwp_jax.files import partial_of

NESTED = (
    "state_dict",
    "model_state_dict",
)  # keys under which training scripts save the network's state dict
SAFETENSORS = ".safetensors"


def _torch(purpose: str):
    try:
        import torch
    except ImportError:
        raise InputError(f"{purpose} needs the package torch (its CPU build is enough)") from None
    return torch


def _check_file(path: pathlib.Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is {'a directory' if path.is_dir() else 'not a file'}")


def _to_numpy(path: pathlib.Path, name: str, tensor) -> np.ndarray:
    layout, kind = (str(a).removeprefix("torch.") for a in (tensor.layout, tensor.dtype))
    real = kind in {"bool", "bfloat16", "float16", "float32", "float64"}
    if layout != "strided" or not (real or kind.startswith(("int", "uint"))):
        raise InputError(
            f"{path}: {name} is {layout} {kind}, must be a dense tensor of real numbers"
        )
    tensor = tensor.detach().cpu()
    return (tensor.float() if kind == "bfloat16" else tensor).numpy()


def _load(path: pathlib.Path) -> Any:
    """Loads a file of torch.save that holds tensors, containers and numbers; else raises InputError."""
    torch = _torch(f"{path}: reading it")
    try:
        # Scripts often save accuracies along with the weights, as NumPy numbers.
        numbers = [
            np.dtype,
            np._core.multiarray.scalar,
            *{type(np.dtype(t)) for t in "?bhilqBHILQefd"},
        ]
        with torch.serialization.safe_globals(numbers), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        why = error.strerror or first_line(error)
        raise InputError(f"{path} cannot be read, or is cut short ({why})") from None
    except Exception as error:  # pickle, zip and torch raise many types
        if "GLOBAL" in str(error):  # torch names the Python object that it refuses to build
            raise InputError(
                f"{path} is refused: it holds more than tensors, and unpickling it could run code; "
                "save the state dict alone"
            ) from None
        raise InputError(
            f"{path} is not a file of torch.save, or is damaged ({type(error).__name__})"
        ) from None


def read_state_dict(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
    """Reads a network's state dict from a file of torch.save or safetensors without running code in it.

    Args:
      path: file of a state dict, or of a dict that holds one as `state_dict` or `model_state_dict`.

    Returns:
      The entries in the file's order, in PyTorch's layout, and the key that held them, or "".

    Raises:
      InputError: if the file cannot be read, holds other objects, or holds no state dict.
    """
    _check_file(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path), ""
    content = _load(path)
    nested = next((key for key in NESTED if isinstance(content, dict) and key in content), "")
    entries = content[nested] if nested else content
    tensors = isinstance(entries, dict) and all(hasattr(v, "detach") for v in entries.values())
    if not tensors or not entries:
        keys = (
            ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content)
        )
        raise InputError(
            f"{path} holds no state dict ({keys}): it must be one, or hold one as {' or '.join(NESTED)}"
        )
    return {str(name): _to_numpy(path, name, tensor) for name, tensor in entries.items()}, nested


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise InputError(f"{path}: reading it needs the package safetensors") from None
    try:
        entries = load_file(path)
    except TypeError as error:  # NumPy has no float8
        raise InputError(
            f"{path} has tensors that NumPy cannot hold ({first_line(error)}): save them as float32"
        ) from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file ({first_line(error)})") from None
    # JAX adds bfloat16 to NumPy, but NumPy cannot save it.
    return {
        n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in entries.items()
    }


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
