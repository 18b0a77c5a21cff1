"""What is known of each test image under each attack, kept in a file."""

import hashlib
import json
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.data import sources
from rwp_jax.errors import InputError
from rwp_jax.files import write_npz
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.loaded import load_run

UNKNOWN = -1  # verdict of an example that was not attacked yet


class Subject(NamedTuple):
    """What is evaluated: a network and test images uint8 [N, H, W, C] with labels [N]."""

    run: FinishedRun
    images: np.ndarray
    labels: np.ndarray


def load_subject(directory: pathlib.Path, which: str, examples: int) -> Subject:
    """Loads checkpoint and test images, the first `examples` or all for 0; raises InputError."""
    if examples < 0:
        raise InputError(f"examples={examples} must be positive, or 0 for all")
    run = load_run(directory, which)
    data = sources.load(**run.config.data.to_dict())
    if examples > len(data.y_test):
        raise InputError(f"examples={examples}: there are only {len(data.y_test)} test images")
    if data.x_test.shape[-1] != run.image_shape[2] or data.y_test.max() >= run.num_classes:
        raise InputError(
            f"workdir={directory}: the network takes {run.image_shape[2]} channels and tells "
            f"{run.num_classes} classes apart, the data set has images {data.x_test.shape[1:]} and "
            f"labels up to {data.y_test.max()}"
        )
    if data.num_classes < run.num_classes:
        print(
            f"workdir={directory}: the network tells {run.num_classes} classes apart, the data set "
            f"{run.config.data.name} has only {data.num_classes}: is it the one that it was trained on?"
        )
    count = examples or len(data.y_test)
    return Subject(run, data.x_test[:count], data.y_test[:count].astype(np.int32))


def identity(subject: Subject) -> str:
    """Digest of network, images, labels and threat model: what must be equal to continue."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((subject.run.params, subject.run.batch_stats)):
        digest.update(np.ascontiguousarray(leaf))
    digest.update(np.ascontiguousarray(subject.images))
    digest.update(np.ascontiguousarray(subject.labels))
    config, run = subject.run.config, subject.run
    digest.update(run.code.encode())
    settings = [
        config.threat.to_dict(),
        config.evaluation.step_size,
        list(config.model.mean),
        config.model.name,
    ]
    settings.append(list(config.model.std))
    if config.evaluation.precision != "highest":  # that of runs older than the key
        settings.append(config.evaluation.precision)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


class Verdicts:
    """What is known of each example and attack, kept in a file."""

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
                f"{path} is no evaluation ({type(error).__name__}): move {path.parent} away"
            ) from None
        if held != self.identity:
            raise InputError(
                f"{path} is an evaluation of another network, data set or threat model: move "
                f"{path.parent} away"
            )
        self.arrays = arrays

    def save(self, at_least_every: float = 0) -> None:
        if time.monotonic() - self.saved >= at_least_every:
            write_npz(self.path, {"identity": np.array(self.identity), **self.arrays})
            self.saved = time.monotonic()
