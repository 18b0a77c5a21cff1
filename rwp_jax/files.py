"""Atomic writes of files, so that a kill leaves the old or the new content, and digests of contents."""

import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from rwp_jax.errors import InputError

PARTIAL = ".partial"
_SEAL = "sha256"  # key of a record's own digest


def check_free(name: str, path: pathlib.Path) -> None:
    """Raises InputError, naming the argument, unless a new file can be created at `path`."""
    if path.exists():
        raise InputError(f"{name}={path} already exists")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{name}={path}: there is no directory {path.parent}")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise InputError(f"{name}={path}: no permission to write in {path.parent}")


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """The path at which a file is written before it is moved into place; it differs between processes."""
    return path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")


def write_text(path: pathlib.Path, text: str) -> None:
    partial = partial_of(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: pathlib.Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray], *, compressed=False) -> None:
    partial = partial_of(path)
    with partial.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
    partial.replace(path)


def raw_bytes(array: ArrayLike) -> memoryview:
    """The bytes of an array of any dtype in C order; a view if the array is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def sha256(array: ArrayLike) -> str:
    """The SHA-256 of an array's bytes, in C order."""
    return hashlib.sha256(raw_bytes(array)).hexdigest()


def array_digests(tree) -> dict[str, str]:
    """Returns path -> digest (of dtype, shape and bytes) for every array in a tree of NumPy arrays."""
    digests = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
        digest.update(raw_bytes(array))
        digests[jax.tree_util.keystr(path, simple=True, separator="/")] = digest.hexdigest()
    return digests


def file_digests(directory: pathlib.Path) -> dict[str, str]:
    """Returns relative path -> digest for every file in a directory and its subdirectories."""
    digests = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "blake2b")
            digests[path.relative_to(directory).as_posix()] = digest.hexdigest()[:32]
    return digests


def _digest_of(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def seal(record: dict[str, Any]) -> str:
    """Returns a record of JSON values as text that includes a digest of the record."""
    return json.dumps({**record, _SEAL: _digest_of(record)}, indent=1) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """Returns the record in a text made by `seal`; raises ValueError if the text was changed."""
    record = json.loads(text)
    if not isinstance(record, dict) or record.pop(_SEAL, None) != _digest_of(record):
        raise ValueError("its digest differs")
    return record
