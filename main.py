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
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; runs/<config name> by default."
)
RESUME = flags.DEFINE_bool("resume", True, "Continue a run of the same config in the workdir.")

OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
FRACTION = re.compile(r"(-?\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)")


def fractions_to_decimals(argv: list[str], known: dict) -> list[str]:
    """--config.threat.epsilon=8/255 (or with a space) as the decimal that ml_collections parses.

    `known` maps the config's dotted keys to values; only those that are floats are touched.
    """
    decimals = []
    for before, argument in zip(["", *argv], argv, strict=False):
        name, equals, value = argument.rpartition("=")
        match, override = FRACTION.fullmatch(value), OVERRIDE.fullmatch(name or before)
        if match and float(match[2]) and override and isinstance(known.get(override[1]), float):
            value = repr(float(match[1]) / float(match[2]))
        decimals.append(name + equals + value)
    return decimals


def split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without --config.KEY=VALUE (or --config.KEY VALUE), and the KEYs."""
    others, keys = [], []
    value_follows = False
    for argument in argv:
        match = OVERRIDE.match(argument)
        if match:
            keys.append(match[1])
        elif not value_follows or argument.startswith("-"):
            others.append(argument)
        value_follows = bool(match) and "=" not in argument
    return others, keys


def parse(argv: list[str]) -> list[str]:
    """Parses the command line; whatever is wrong with it becomes an InputError."""
    others, keys = split_overrides(argv)
    try:
        # ml_collections takes the names of overrides from sys.argv. First without any, which loads
        # the config, so that their keys can be checked.
        sys.argv = others
        flags.FLAGS(others)
        if CONFIG.value is None:
            raise InputError("--config is missing: name a file, such as configs/digits_at_rwp.py")
        known = flatten(CONFIG.value.to_dict())
        unknown = next((key for key in keys if key not in known), None)
        if unknown:
            nearest = difflib.get_close_matches(unknown, known, 1)
            hint = f"did you mean --config.{nearest[0]}? " if nearest else ""
            raise InputError(
                f"--config.{unknown}: no such key; {hint}configs/default.py has them all"
            )
        sys.argv = fractions_to_decimals(argv, known)
        rest = flags.FLAGS(sys.argv)
    except InputError:
        raise
    except Exception as error:  # absl, ml_collections and config files raise many kinds
        # A config that cannot be loaded is explained at the end of a long message.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        line = lines[-1] if lines else type(error).__name__
        raise InputError(line.removeprefix("rwp_jax.errors.InputError: ")) from None
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is no flag: overrides look like --config.epochs=10")
    return rest


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
    if CONFIG.value.dtype == "float32":
        prefer_eigen()
    directory = pathlib.Path(WORKDIR.value) if WORKDIR.value else default_workdir()
    trainer.train(CONFIG.value, directory, RESUME.value)


if __name__ == "__main__":
    use_compilation_cache()
    try:
        app.run(main, flags_parser=parse)
    except InputError as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(2)
    except trainer.NonFiniteLoss as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(1)
