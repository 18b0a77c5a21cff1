"""Digests by which a flipped bit is noticed: of arrays, files, and the record that holds those digests."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

_SEAL = "sha256"


def array_digests(tree) -> dict[str, str]:
    """Path -> digest of every array (its dtype, shape and bytes) of a tree of NumPy arrays."""
    digests = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
        digest.update(array.reshape(-1).view(np.uint8).data)
        digests[jax.tree_util.keystr(path, simple=True, separator="/")] = digest.hexdigest()
    return digests


def file_digests(directory: pathlib.Path) -> dict[str, str]:
    """Relative path -> digest of every file in a directory."""
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
    """A record of JSON values as text, with a digest of itself."""
    return json.dumps({**record, _SEAL: _digest_of(record)}, indent=1) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """The record; raises ValueError where the text is not what `seal` made."""
    record = json.loads(text)
    if not isinstance(record, dict) or record.pop(_SEAL, None) != _digest_of(record):
        raise ValueError("its digest differs")
    return record
