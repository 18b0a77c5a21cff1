"""Files that a kill leaves either as they were or as they should be."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from rwp_jax.errors import InputError

PARTIAL = ".partial"


def check_free(flag: str, path: pathlib.Path) -> None:
    """Raises InputError, which names the flag, unless a file can be made at `path`."""
    if path.exists():
        raise InputError(f"{flag}={path} exists already")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{flag}={path}: there is no directory {path.parent}")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise InputError(f"{flag}={path}: no permission to write in {path.parent}")


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """Where a file is written before it takes its place; another one in every process."""
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
