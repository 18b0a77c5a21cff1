"""Stored configs of runs: adds keys that are newer than the run, and compares configs."""

from typing import Any

from rwp_jax.configs import default

# Keys that do not affect a run's results, or only their rounding.
FREE = {"checkpoint_steps", "evaluation.batch_size", "evaluation.precision"}
# Where the data are stored, which may change; digests in the checkpoints identify the data.
PATHS = ("data.path", "data.data_dir", "extra_data.path")
# Sections of every run's config; a file without them is not one.
_SECTIONS = {"data", "threat"}
# Keys added after 0.1.0 -> the value that reproduces the behaviour of 0.1.0.
_LATER = {
    "precision": "default",
    "evaluation.every": 1,
    "evaluation.precision": "highest",
    "data.train_examples": 0,
    "model.bn_momentum": 0.1,
}
LISTED = 8  # most differences in a message


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the nested config of a run with the keys added that are newer than the run.

    Newer keys get their value in _LATER or else their default, which turns the feature off.

    Raises:
      KeyError: if a section that every run has is missing.
    """
    lacks = _SECTIONS - config.keys()
    if lacks:
        raise KeyError(min(lacks))
    filled = {
        key: dict(value) if isinstance(value, dict) else value for key, value in config.items()
    }
    for key, value in flatten(default.get_config().to_dict()).items():
        section, _, name = key.rpartition(".")
        there = filled.setdefault(section, {}) if section else filled
        if isinstance(there, dict):
            there.setdefault(name, _LATER.get(key, value))
    return filled


def network_settings(model) -> dict[str, Any]:
    """Returns what a config's section `model` sets of the arguments of `make_classifier`."""
    return {key: model[key] for key in ("name", "mean", "std", "activation", "bn_momentum")}


def with_paths(config: dict[str, Any], paths: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a nested config in which the data are stored elsewhere.

    Args:
      config: config of a run.
      paths: new values of some of PATHS, which the config has.
    """
    moved = {key: dict(v) if isinstance(v, dict) else v for key, v in config.items()}
    for key, value in paths.items():
        section, _, name = key.rpartition(".")
        moved[section][name] = value
    return moved


def differences(held: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Lists the first LISTED differences between two flat configs that affect a run's results."""
    # A key that is newer than the run and turned off makes no difference.
    later = {key: _LATER.get(key, type(value)()) for key, value in wanted.items()}
    held = {key: off for key, off in later.items() if off == wanted[key]} | held
    found = [
        f"{key}={held.get(key, 'missing')!r} there, {wanted.get(key, 'missing')!r} here"
        for key in sorted((held.keys() | wanted.keys()) - FREE - set(PATHS))
        if held.get(key, "missing") != wanted.get(key, "missing")
    ]
    return found if len(found) <= LISTED else [*found[:LISTED], f"and {len(found) - LISTED} more"]
