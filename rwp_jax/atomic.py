"""Files that a kill leaves either as they were or as they should be."""

import json
import pathlib
from typing import Any

import numpy as np

PARTIAL = ".partial"


def write_text(path: pathlib.Path, text: str) -> None:
    partial = path.with_suffix(PARTIAL)
    partial.write_text(text)
    partial.replace(path)


def write_json(path: pathlib.Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray], *, compressed=False) -> None:
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
    partial.replace(path)
