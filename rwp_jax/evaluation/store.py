"""Verdicts on each test image under each attack, kept in a file."""

import hashlib
import json
import pathlib
import time

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.evaluation.subject import Subject
from rwp_jax.files import write_npz

UNKNOWN = -1  # the example has not been attacked yet
_STARTS = "starts"  # 1: the attacks use the random starts of the evaluation after an epoch


def identity(subject: Subject) -> str:
    """Digest of network, images, labels and threat model, which must be unchanged to continue."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((subject.run.params, subject.run.batch_stats)):
        digest.update(np.ascontiguousarray(leaf))
    digest.update(np.ascontiguousarray(subject.images))
    digest.update(np.ascontiguousarray(subject.labels))
    config, run = subject.run.config, subject.run
    digest.update(run.code.encode())
    settings = [
        config.threat.to_dict() | {"norm": subject.norm, "epsilon": subject.epsilon},
        subject.step_size,
        list(config.model.mean),
        config.model.name,
    ]
    settings.append(list(config.model.std))
    if config.model.activation:  # another than the network's own
        settings.append(config.model.activation)
    if config.evaluation.precision != "highest":  # runs older than the key use "highest"
        settings.append(config.evaluation.precision)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _finished(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keeps only the complete columns of a file from 0.1.0, whose attacks used other random starts."""
    begun = [
        name for name, values in arrays.items() if name[:8] == "correct_" and UNKNOWN in values
    ]
    dropped = {*begun, *(name.replace("correct_", "x_adv_") for name in begun)}
    return {name: values for name, values in arrays.items() if name not in dropped}


class Verdicts:
    """Verdicts on each example under each attack, kept in a file."""

    def __init__(self, path: pathlib.Path, subject: Subject):
        self.path, self.identity, self.saved = path, identity(subject), time.monotonic()
        self.arrays: dict[str, np.ndarray] = {}
        if not path.exists():
            return
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            held = str(arrays.pop("identity"))
            count = len(subject.labels)
            for name, values in arrays.items():
                if not name.startswith(("correct_", "x_adv_")):
                    continue
                if len(values) != count or (name[0] == "c" and values.ndim != 1):
                    raise ValueError
        except Exception as error:  # NumPy and zipfile raise many kinds
            raise InputError(
                f"{path} is not an evaluation ({type(error).__name__}): move {path.parent} away"
            ) from None
        if held != self.identity:
            raise InputError(
                f"{path} is an evaluation of another network, data set or threat model: move "
                f"{path.parent} away"
            )
        if _STARTS not in arrays:
            arrays = _finished(arrays)
        self.arrays = arrays

    def save(self, at_least_every: float = 0) -> None:
        if time.monotonic() - self.saved >= at_least_every:
            marks = {"identity": np.array(self.identity), _STARTS: np.array(1)}
            write_npz(self.path, self.arrays | marks)
            self.saved = time.monotonic()
