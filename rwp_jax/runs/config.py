"""Stored configs of runs: adds keys that are newer than the run, and compares configs."""

from typing import Any

from rwp_jax.configs import default

# Keys that do not affect a run's results, or only their rounding.
FREE = {"checkpoint_steps", "remat", "evaluation.batch_size", "evaluation.precision"}
# Keys that only the evaluation after epochs uses.
EVALUATED = {
    "evaluation.every",
    "evaluation.steps",
    "evaluation.step_size",
    "evaluation.validation_attack",
    "evaluation.train_examples",
}
# Keys without which accuracies after epochs are not comparable.
MEASURE = (
    "threat.norm",
    "threat.epsilon",
    "evaluation.steps",
    "evaluation.step_size",
    "evaluation.validation_attack",
)
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
HISTORY = "history"  # entry of config.json beside the config, see `runs.history`
LISTED = 8  # most differences in a message


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    return with_values({}, flat)


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the nested config of a run with the keys added that are newer than the run.

    Newer keys get their value in _LATER or else their default, which turns the feature off. The run's
    history is left out.

    Raises:
      KeyError: if a section that every run has is missing.
    """
    lacks = _SECTIONS - config.keys()
    if lacks:
        raise KeyError(min(lacks))
    filled = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key != HISTORY
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


def with_values(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a nested config with other values.

    Args:
      config: config of a run.
      values: dotted key -> new value; None removes the key.
    """
    copy = {key: dict(v) if isinstance(v, dict) else v for key, v in config.items()}
    for key, value in values.items():
        section, _, rest = key.partition(".")
        if rest:
            inner = copy.get(section)
            copy[section] = with_values(inner if isinstance(inner, dict) else {}, {rest: value})
        elif value is None:
            copy.pop(key, None)
        else:
            copy[key] = value
    return copy


def changed(held: dict[str, Any], wanted: dict[str, Any]) -> dict[str, list]:
    """Returns key -> [value held, value wanted] where two flat configs affect a run's results differently.

    None stands for a key that a config lacks.
    """
    # A key that is newer than the run and turned off makes no difference.
    later = {key: _LATER.get(key, type(value)()) for key, value in wanted.items()}
    off = {key for key, value in later.items() if key not in held and value == wanted[key]}
    known = flatten(default.get_config().to_dict())
    before = {key: value for key, value in later.items() if key in known} | held
    return {
        key: [before.get(key), wanted.get(key)]
        for key in sorted((held.keys() | wanted.keys()) - off - FREE - set(PATHS))
        if key not in held or key not in wanted or held[key] != wanted[key]
    }


def differences(held: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Lists the first LISTED differences between two flat configs that affect a run's results."""
    found = [
        f"{key}={held.get(key, 'missing')!r} there, {wanted.get(key, 'missing')!r} here"
        for key in changed(held, wanted)
    ]
    return found if len(found) <= LISTED else [*found[:LISTED], f"and {len(found) - LISTED} more"]
