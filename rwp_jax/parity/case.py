"""Reads recorded cases from disk: settings in cases.json, arrays in NAME.npz."""

import json
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.parity import inputs

# The settings that runners read, and those that only describe the recording.
_READ = (
    "model activation normalize classes keys n seed image_seeds noise_seed noise_seeds "
    "norm eps alpha steps pgd_steps bn bn_attack loss beta gamma c_min rwp_steps lr momentum nesterov "
    "weight_decay"
)
_DESCRIPTIONS = "params perturbed unperturbed proxy_lr train_forwards clean_correct"
SETTINGS = (*_READ.split(), *_DESCRIPTIONS.split())


class Case(NamedTuple):
    """A recorded case: its settings from cases.json and its arrays from NAME.npz."""

    name: str
    settings: dict[str, Any]
    recorded: dict[str, np.ndarray]

    def images(self, step: int | None = None) -> np.ndarray:
        """Returns clean images [n, H, W, C] in [0, 1] (of training step `step`), stored or else drawn."""
        stored = self.recorded.get("x" if step is None else f"x{step}")
        if stored is not None:
            return np.asarray(stored, np.float64)
        settings = self.settings
        seed = settings.get("seed", 0) if step is None else settings["image_seeds"][step]
        return inputs.images(settings["n"], seed)

    def labels(self, step: int | None = None) -> np.ndarray:
        return self.recorded["y" if step is None else f"y{step}"]

    def start(self, x, step: int | None = None) -> np.ndarray:
        settings = self.settings
        seed = settings["noise_seed"] if step is None else settings["noise_seeds"][step]
        if "beta" in settings:  # TRADES and RST
            return inputs.near(x, seed)
        return inputs.start(x, settings["norm"], settings["eps"], seed)


def read_case(directory: pathlib.Path, name: str, settings: dict) -> Case:
    """Reads NAME.npz; raises InputError if it is missing or damaged, or a setting is unknown."""
    unknown = sorted(settings.keys() - set(SETTINGS))
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r}, must be one of {', '.join(SETTINGS)}")
    path = directory / f"{name}.npz"
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: missing, or cut short, or no .npz file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Case(name, settings, dict(arrays))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as the arrays of a case ({error})") from None


def read_settings(directory: pathlib.Path) -> dict[str, dict]:
    """Reads cases.json of a directory of cases; raises InputError if it is missing or malformed."""
    path = directory / "cases.json"
    try:
        settings = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--cases: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"--cases: {path} is not JSON ({error})") from None
    if not isinstance(settings, dict) or not all(isinstance(s, dict) for s in settings.values()):
        raise InputError(f"--cases: {path} must map case names to settings")
    return settings
