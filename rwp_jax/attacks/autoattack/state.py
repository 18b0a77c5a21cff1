"""How far an evaluation came, in a file: what is decided, and the searches in the middle."""

import hashlib
import json
import pathlib

import numpy as np

from rwp_jax.atomic import write_npz
from rwp_jax.errors import InputError

SNAPSHOT = "snapshot_"


def identity(x: np.ndarray, y: np.ndarray, settings: dict) -> str:
    """What must be equal for a state to be continued, as JSON: images, labels and settings."""
    digest = lambda values: hashlib.sha256(np.ascontiguousarray(values)).hexdigest()
    content = {"images": digest(x), "labels": digest(y), "shape": list(x.shape), **settings}
    return json.dumps(content, sort_keys=True)


def save(path: pathlib.Path, arrays: dict, snapshot: dict) -> None:
    """Writes the arrays so that a kill leaves the old file or the new one."""
    write_npz(path, arrays | {SNAPSHOT + name: value for name, value in snapshot.items()})


def load(path: pathlib.Path, wanted: str, logits: np.ndarray) -> tuple[dict, dict]:
    """Reads a state of the same evaluation.

    Args:
      path: file that `save` wrote.
      wanted: identity of this evaluation.
      logits: clean logits of this network.

    Returns:
      The arrays and the snapshot that were saved.

    Raises:
      InputError: where it is no state, or one of other images, settings or another network.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        held, saved = json.loads(str(arrays["identity"])), arrays["logits"]
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise InputError(
            f"{path} is no state of AutoAttack ({type(error).__name__}): remove it or name another"
        ) from None
    for name, value in json.loads(wanted).items():
        if held.get(name) != value:
            raise InputError(
                f"{path} is of another evaluation: its {name} differ"
                + (f" ({held.get(name)} there, {value} here)" if len(str(value)) < 64 else "")
            )
    # Other hardware rounds otherwise; another network is further off.
    scale = np.abs(logits).max()
    if saved.shape != logits.shape or np.abs(saved - logits).max() > 1e-3 * scale:
        raise InputError(f"{path} is of another network: its logits of the clean images differ")
    snapshot = {name: arrays.pop(name) for name in list(arrays) if name.startswith(SNAPSHOT)}
    return arrays, {name.removeprefix(SNAPSHOT): value for name, value in snapshot.items()}
