"""What absl and ml_collections leave to do on a command line: fractions, and messages of one line."""

import os
import re

from rwp_jax.errors import InputError

CONFIG_FILE = re.compile(r"--?config(?:=(.*))?")
OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
FRACTION = re.compile(r"(-?(?:\d+\.?\d*|\.\d+))/(\d+\.?\d*|\.\d+)")


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


def check_config_file(argv: list[str]) -> None:
    """Raises InputError where --config names no Python file: ml_collections' messages are long."""
    for argument, after in zip(argv, [*argv[1:], ""], strict=True):
        match = CONFIG_FILE.fullmatch(argument)
        if match:
            path = (after if match[1] is None else match[1]).partition(":")[0]
            if not path.endswith(".py") or not os.path.isfile(path):
                raise InputError(
                    f"--config={path} is no config file: name one, such as configs/digits_at_rwp.py"
                )
