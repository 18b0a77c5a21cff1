"""Trains a classifier by adversarial training with weight perturbation.

    python main.py --config configs/digits_at_rwp.py [--workdir DIR] [--config.KEY=VALUE ...]

Every key is explained in configs/default.py. A run that was interrupted continues when the same
command is given again. Exit codes: 0 finished, 1 the loss became non-finite, 2 bad input.
"""

import difflib
import os
import pathlib
import re
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from rwp_jax import trainer
from rwp_jax.errors import InputError
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.workdir import flatten

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; runs/<config name> by default.")
RESUME = flags.DEFINE_bool("resume", True, "Continue a run of the same config in the workdir.")

FRACTION = re.compile(r"(-?\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)")


def fractions_to_decimals(argv: list[str]) -> list[str]:
    """--config.threat.epsilon=8/255 as the decimal number that ml_collections parses."""

    def replace(argument):
        name, equals, value = argument.partition("=")
        match = FRACTION.fullmatch(value)
        if not (equals and name.lstrip("-").startswith("config.") and match and float(match[2])):
            return argument
        return f"{name}={float(match[1]) / float(match[2])!r}"

    return [argv[0], *map(replace, argv[1:])]


def parse(argv: list[str]) -> list[str]:
    """Parses the command line; whatever is wrong with it becomes an InputError."""
    try:
        rest = flags.FLAGS(fractions_to_decimals(argv))
    except InputError:
        raise
    except Exception as error:  # absl, ml_collections and config files raise many kinds
        raise InputError(explain(argv, error)) from None
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is no flag: overrides look like --config.epochs=10")
    if CONFIG.value is None:
        raise InputError("--config is missing: name a file, such as configs/digits_at_rwp.py")
    return rest


def explain(argv: list[str], error: Exception) -> str:
    """One line for an error of parsing, with the nearest existing key where a key is unknown."""
    reason = re.sub(r"\s+", " ", str(error)) or type(error).__name__
    overrides = [a.lstrip("-").partition("=")[0] for a in argv[1:] if a.startswith("--config.")]
    known = [f"config.{key}" for key in flatten(CONFIG.value.to_dict())] if CONFIG.value else []
    for key in overrides:
        if known and key not in known:
            nearest = difflib.get_close_matches(key, known, 1, 0)
            return f"--{key}: no such key; did you mean --{nearest[0]}? (keys: configs/default.py)"
    return reason


def default_workdir() -> pathlib.Path:
    """runs/NAME for configs/NAME.py, runs/NAME_ARGUMENT for configs/NAME.py:ARGUMENT."""
    path, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return pathlib.Path("runs") / "_".join(filter(None, [pathlib.Path(path).stem, argument]))


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user configured JAX's cache otherwise."""
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "rwp-jax", "xla"))


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    directory = pathlib.Path(WORKDIR.value) if WORKDIR.value else default_workdir()
    trainer.train(CONFIG.value, directory, RESUME.value)


if __name__ == "__main__":
    prefer_eigen()
    use_compilation_cache()
    try:
        app.run(main, flags_parser=parse)
    except InputError as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(2)
    except trainer.NonFiniteLoss as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(1)
