"""Which file --config names: a path, or a config of the package by its name."""

import difflib
import os
import pathlib
import re
import sys

import ml_collections
from ml_collections import config_flags

from rwp_jax import configs
from rwp_jax.errors import InputError

CONFIG_FLAG = re.compile(r"--?config(?:=(.*))?")


def find_config(name: str) -> str:
    """The file that --config names: a path, or a config of the package by its name, `cifar10_at_rwp`.

    What stands behind a colon is kept. `configs/NAME.py` is the package's outside the repository too.

    Raises:
      InputError: where there is no such file, as ml_collections' messages are long.
    """
    path, colon, argument = name.partition(":")
    if path.endswith(".py") and os.path.isfile(path):
        beside = str(pathlib.Path(path).resolve().parent)
        if beside not in sys.path:
            sys.path.append(beside)  # a config may import modules beside it
        return name
    directory, known = pathlib.Path(configs.__path__[0]), pathlib.PurePath(path)
    if str(known.parent) in (".", "configs") and known.suffix in ("", ".py"):
        file = directory / f"{known.stem}.py"
        if file.is_file() and known.stem.isidentifier():
            return f"{file}{colon}{argument}"
    names = [file.stem for file in directory.glob("[!_]*.py")]
    near = difflib.get_close_matches(known.stem, names, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"--config={path} is no config file: name one, such as configs/digits_at_rwp.py, or one of the "
        f"package's by its name, digits_at_rwp{meant}"
    )


def with_config_file(argv: list[str]) -> list[str]:
    """The arguments with the file that --config means; raises InputError where it names none."""
    found, value_follows = [], False
    for argument in argv:
        match = CONFIG_FLAG.fullmatch(argument)
        if value_follows:
            argument = find_config(argument)
        elif match and match[1] is not None:
            argument = f"--config={find_config(match[1])}"
        value_follows = bool(match) and match[1] is None
        found.append(argument)
    return found


def one_line(error: Exception) -> str:
    """What is wrong, of a message of absl, ml_collections or a config file."""
    # A config that cannot be loaded is explained at the end of a long message.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    if "get_config() takes 0 positional arguments" in line:
        line = "--config: this file takes nothing after ':'"
    if isinstance(error, ImportError):
        line = f"--config: the file cannot be imported ({line})"
    return line.removeprefix("rwp_jax.errors.InputError: ")


def load_config(name: str) -> ml_collections.ConfigDict:
    """The config that a command line would name so; raises InputError where it cannot be loaded."""
    file = find_config(name)
    try:
        return config_flags.config_flags.ConfigFileFlagParser("config", None).parse(file)
    except Exception as error:  # of the file, or of ml_collections, in many lines
        reason = one_line(error).removeprefix("--config: ")
        raise InputError(f"--config={name}: {reason}") from None
