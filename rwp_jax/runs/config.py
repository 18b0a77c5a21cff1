"""The config of a run as it is stored: completed where the run is older than a key, and compared."""

from typing import Any

from rwp_jax.configs import default

# Keys that change nothing in a run's results, or how they are rounded.
FREE = {"checkpoint_steps", "evaluation.batch_size", "evaluation.precision"}
# What is no run lacks them.
_SECTIONS = {"data", "threat"}
# Keys that came later than 0.1.0 -> what it did.
_LATER = {
    "precision": "default",
    "evaluation.every": 1,
    "evaluation.precision": "highest",
    "data.train_examples": 0,
}
LISTED = 8  # differences in a message


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run, nested, with the keys that came later than the run.

    What is not named in _LATER is off by default, and was not there before.

    Raises:
      KeyError: for what is no config of a run: it lacks a section that all have.
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


def differences(held: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What two flat configs differ in that changes a run's results, the first few of it."""
    # A key that came later than the run, and is off, changes nothing in it.
    later = {key: _LATER.get(key, type(value)()) for key, value in wanted.items()}
    held = {key: off for key, off in later.items() if off == wanted[key]} | held
    found = [
        f"{key}={held.get(key, 'missing')!r} there, {wanted.get(key, 'missing')!r} here"
        for key in sorted((held.keys() | wanted.keys()) - FREE)
        if held.get(key, "missing") != wanted.get(key, "missing")
    ]
    return found if len(found) <= LISTED else [*found[:LISTED], f"and {len(found) - LISTED} more"]
