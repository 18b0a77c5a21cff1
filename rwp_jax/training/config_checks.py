"""Checks of a config's keys, types, numbers and dtypes that do not depend on the data."""

import math
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from rwp_jax.attacks.pgd import BN_MODES
from rwp_jax.configs.default import get_config
from rwp_jax.errors import InputError, check_choice
from rwp_jax.evaluation.accuracy import STEPPED
from rwp_jax.models.precision import PRECISIONS, require_x64
from rwp_jax.names import hint_at, spelled
from rwp_jax.runs.config import flatten

GRADIENT_DTYPES = ("", "bfloat16")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def check_keys(config) -> None:
    """Raises InputError if the config is not a ConfigDict, lacks a key or has an unknown one."""
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(
            f"config= must be a ConfigDict, not {type(config).__name__}: start from "
            "rwp_jax.configs.default.get_config()"
        )
    known, given = flatten(get_config().to_dict()), flatten(config.to_dict())
    missing = known.keys() - given.keys()
    if missing:
        raise InputError(
            f"config.{min(missing)} is missing: start from rwp_jax.configs.default.get_config()"
        )
    # A registered objective may have additional settings and refuses unknown ones itself.
    unknown = sorted(key for key in given.keys() - known if not key.startswith("objective."))
    if unknown:
        raise InputError(
            f"config.{unknown[0]} is not a key: {hint_at(unknown[0], known, 'config.')}"
        )


def with_norm_name(config):
    """Returns the config with the norm as runs store it: `Linf` and other spellings become `l_inf`."""
    norm = config.threat.norm
    if not isinstance(norm, str) or spelled(norm) == norm:
        return config
    config = config.copy_and_resolve_references()
    config.threat.norm = spelled(norm)
    return config


_KINDS = {
    bool: ("True or False", bool),
    int: ("an integer", int),
    float: ("a number", int | float),
    str: ("a string", str),
    tuple: ("a tuple of numbers", tuple | list),
}


def check_types(config) -> None:
    """Raises InputError if the type of a value does not fit the default."""
    given = flatten(config.to_dict())
    for key, default in flatten(get_config().to_dict()).items():
        described, accepted = _KINDS[type(default)]
        value = given[key]
        if not isinstance(value, accepted) or (accepted is not bool and isinstance(value, bool)):
            raise InputError(f"config.{key}={value!r} must be {described}")


def _require(config, key: str, accepted: str, holds: Callable[[float], bool]) -> None:
    """Raises InputError unless the number under the dotted key satisfies `holds` (NaN never does)."""
    value = config
    for part in key.split("."):
        value = value[part]
    if math.isnan(value) or not holds(value):
        raise InputError(f"config.{key}={value} must be {accepted}")


def check_numbers(config) -> None:
    """Checks the values that no other part checks; raises InputError."""
    check_types(config)
    for key, value in flatten(config.to_dict()).items():
        numbers = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(n, float) and _FLOAT32_MAX < abs(n) < math.inf for n in numbers):
            raise InputError(
                f"config.{key}={value} must be within {_FLOAT32_MAX:.3g}, the range of float32"
            )
    whole = lambda low: lambda value: low <= value < 2**31
    for key in ("epochs", "evaluation.every"):
        _require(config, key, "at least 1 and below 2^31", whole(1))
    for key in (
        "seed",
        "epoch_examples",
        "checkpoint_steps",
        "attack.steps",
        "data.train_examples",
        "data.validation_examples",
        "data.labeled_examples",
        "self_training.epochs",
        "evaluation.steps",
        "evaluation.train_examples",
        "weight_perturbation.steps",
        "weight_perturbation.start_epoch",
    ):
        _require(config, key, "at least 0 and below 2^31", whole(0))
    # As in `pgd`: pixels are in [0, 1].
    largest = 1 if config.threat.norm == "l_inf" else 1000
    for key in ("attack.step_size", "evaluation.step_size"):
        _require(config, key, f"in [0, {largest})", lambda size: 0 <= size < largest)
    for key in ("optimizer.weight_decay", "optimizer.clip_norm", "extra_data.weight"):
        _require(config, key, "in [0, inf)", lambda value: 0 <= value < math.inf)
    _require(
        config,
        "extra_data.unlabeled_fraction",
        "in [0, 1), so that labelled examples are left in a batch, or -1 for one pool",
        lambda fraction: 0 <= fraction < 1 or fraction == -1,
    )
    _require(config, "optimizer.learning_rate", "in (0, inf)", lambda lr: 0 < lr < math.inf)
    for key in ("optimizer.momentum", "ema_decay", "ema_start"):
        _require(config, key, "in [0, 1)", lambda value: 0 <= value < 1)
    if config.optimizer.nesterov and not config.optimizer.momentum:
        raise InputError("config.optimizer.nesterov=True needs config.optimizer.momentum > 0")
    for key in ("ema_start", "ema_copy_batch_stats"):
        if config[key] and not config.ema_decay:
            raise InputError(f"config.{key}={config[key]} needs config.ema_decay > 0")
    for section, key in (("model", "mean"), ("model", "std"), ("optimizer", "cycle_momentum")):
        given = config[section][key]
        if not all(isinstance(value, int | float) for value in given):
            raise InputError(f"config.{section}.{key}={given!r} must be a tuple of numbers")
    attack = config.evaluation.validation_attack
    if attack and not STEPPED.fullmatch(attack):
        raise InputError(
            f"config.evaluation.validation_attack={attack!r} must be pgdN or cwN for N steps, such as "
            "cw40, or '' for the attack on test images"
        )
    if attack and not config.data.validation_examples:
        raise InputError(
            f"config.evaluation.validation_attack={attack!r} needs config.data.validation_examples > 0"
        )
    check_choice("config.attack.bn", config.attack.bn, BN_MODES)


def check_precision(config) -> None:
    """Raises InputError for an unknown precision or dtypes that cannot be combined."""
    check_choice("config.precision", config.precision, PRECISIONS)
    check_choice("config.evaluation.precision", config.evaluation.precision, PRECISIONS)
    if config.gradient_dtype not in GRADIENT_DTYPES:
        raise InputError(
            f"config.gradient_dtype={config.gradient_dtype!r} must be '' (no conversion) or 'bfloat16'"
        )
    if config.dtype == "float64" and config.gradient_dtype:
        raise InputError(
            "config.dtype='float64' cannot be combined with config.gradient_dtype='bfloat16': one is for "
            "exact numbers, the other for speed"
        )
    if config.dtype == "float64":
        require_x64("config.dtype='float64'")
    if config.dtype == "bfloat16" and jax.config.read("jax_enable_x64"):
        raise InputError(
            "config.dtype='bfloat16' cannot be combined with JAX_ENABLE_X64: unset JAX_ENABLE_X64, or "
            "choose config.dtype='float64'"
        )
