"""Extends the parsing of absl and ml_collections: modes, fractions, one-line error messages."""

import difflib
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import ml_collections
from absl import flags
from ml_collections import config_flags

from rwp_jax.command_line.config_file import (
    check_config_dict,
    config_error,
    config_name,
    one_line,
    with_config_file,
)
from rwp_jax.configs import default
from rwp_jax.errors import InputError
from rwp_jax.hardware.topology import ACCEPTED
from rwp_jax.names import hint_at, spelled
from rwp_jax.runs.config import PATHS, flatten

OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
FRACTION = re.compile(r"(-?(?:\d+\.?\d*|\.\d+))/(\d+\.?\d*|\.\d+)")


def fractions_to_decimals(argv: list[str], known: dict) -> list[str]:
    """Converts fractions, as in --config.threat.epsilon=8/255 (or with a space), to decimals.

    ml_collections parses only decimals. `known` maps the config's dotted keys to values; only keys with
    float values are converted.
    """
    decimals = []
    for before, argument in zip(["", *argv], argv, strict=False):
        name, equals, value = argument.rpartition("=")
        match, override = FRACTION.fullmatch(value), OVERRIDE.fullmatch(name or before)
        if match and float(match[2]) and override and isinstance(known.get(override[1]), float):
            value = repr(float(match[1]) / float(match[2]))
        decimals.append(name + equals + value)
    return decimals


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Parses comma-separated numbers of a flag, such as 0.1 or 8/255; raises InputError for other text."""
    found = []
    for part in text.split(",") if text else ():
        match = FRACTION.fullmatch(part.strip())
        try:
            found.append(float(match[1]) / float(match[2]) if match else float(part))
        except (ValueError, ZeroDivisionError):
            raise InputError(
                f"{name}={text}: {part!r} must be a number such as 0.1 or 8/255"
            ) from None
    return tuple(found)


def split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments without --config.KEY=VALUE (or --config.KEY VALUE), and the KEYs."""
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


def override_values(argv: list[str]) -> dict[str, str]:
    """Returns KEY -> VALUE of --config.KEY=VALUE and --config.KEY VALUE; the last one counts."""
    found = {}
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        match = OVERRIDE.match(argument)
        if match:
            _, equals, value = argument.partition("=")
            found[match[1]] = value if equals else following
    return found


class Mode(NamedTuple):
    """A value of --mode.

    Attributes:
      run: function to call after the flags are parsed.
      takes: names of the flags that the mode accepts.
      needs: names of the flags that it requires.
      optional: `config`, if the mode can do without it; every other mode that takes it requires it.
    """

    run: Callable[[], None]
    takes: Collection[str]
    needs: Collection[str] = ()
    optional: Collection[str] = ()


def _check_keys(keys: list[str], known: Mapping) -> None:
    """Raises InputError if the config lacks a KEY of --config.KEY."""
    unknown = next((key for key in keys if key not in known), None)
    if not unknown:
        return
    raise InputError(f"--config.{unknown}: no such key; {hint_at(unknown, known, '--config.')}")


def _unknown_flag(name: str, values: flags.FlagValues, modes: Mapping[str, Mode]) -> str:
    """Returns the message for an unknown flag; suggests a key of the config or a similar flag."""
    mode, config = modes.get(values["mode"].value, modes["train"]), values["config"].value
    known = config if isinstance(config, ml_collections.ConfigDict) else default.get_config()
    keys = [key for key in flatten(known.to_dict()) if name == key.rpartition(".")[2]]
    if keys and "config" in mode.takes:
        meant = " or ".join(f"--config.{key}" for key in keys)
        return f"--{name} is not a flag: did you mean {meant}?"
    near = difflib.get_close_matches(name, [*mode.takes, "workdir", "mode"], 1)
    return f"--{name} is not a flag: " + (f"did you mean --{near[0]}?" if near else "see --help")


def parse_flags(argv: list[str], modes: Mapping[str, Mode]) -> list[str]:
    """Parses the command line into absl's flags, --mode and --config among them.

    Args:
      argv: arguments, starting with the program's name.
      modes: modes, by the value of --mode.

    Returns:
      The remaining arguments: the program's name.

    Raises:
      InputError: if anything in the command line is invalid.
    """
    others, keys = split_overrides(argv)
    values = flags.FLAGS
    values.set_gnu_getopt(True)  # flags may follow a path without a flag
    try:
        # ml_collections takes the names of overrides from sys.argv. The first pass has none: it loads
        # the config, so that their keys can be checked.
        argv, others = with_config_file(argv), with_config_file(others)
        sys.argv = others
        try:
            rest = values(others)
        except InputError:
            raise
        except flags.UnrecognizedFlagError as error:
            raise InputError(_unknown_flag(error.flagname, values, modes)) from None
        except flags.Error as error:
            if not str(error).startswith("flag --config="):
                raise
            raise config_error(config_name(others), error) from None
        except (Exception, SystemExit) as error:  # whatever the config file raises
            raise config_error(config_name(others), error) from None
        mode, config = values["mode"].value, values["config"].value
        if mode not in modes:
            raise InputError(f"--mode={mode} must be one of {', '.join(modes)}")
        if "config" in {*modes[mode].takes} - {*modes[mode].optional} and config is None:
            stray = f"{rest[1]!r} is not a flag; " if len(rest) > 1 else ""
            raise InputError(
                f"{stray}--config is missing: name a file, as in --config configs/digits_at_rwp.py"
            )
        if config is not None:
            check_config_dict(config_flags.get_config_filename(values["config"]), config)
        moved: list[str] = []
        if keys and config is None:
            moves_data = "moved_data" in modes[mode].takes
            strange = [key for key in keys if not moves_data or key not in PATHS]
            if strange:
                allowed = f" (except {', '.join(PATHS)}, if data have moved)" if moves_data else ""
                raise InputError(
                    f"--config.{strange[0]} is not for --mode={mode}: the run in --workdir has its own"
                    f"{allowed}"
                )
            moved = [f"{key}={value}" for key, value in override_values(argv).items()]
            argv = others
        known = flatten(config.to_dict()) if config else {}
        _check_keys(keys if config else [], known)
        sys.argv = fractions_to_decimals(argv, known)
        for name in values:
            if isinstance(values[name], flags.MultiFlag):
                values[name].unparse()  # otherwise the second pass adds its values again
        rest = values(sys.argv)
    except InputError:
        raise
    except Exception as error:  # absl, ml_collections and config files raise many kinds
        raise InputError(one_line(error)) from None
    if moved:
        values["moved_data"].value = moved
    if config is not None:
        threat = values["config"].value.get("threat")
        if threat and isinstance(threat.get("norm"), str):
            threat.norm = spelled(threat.norm)
    if len(rest) == 2 and "path" in modes[mode].takes and not values["path"].value:
        values["path"].value = rest.pop()
    if len(rest) > 1:
        hint = "overrides look like --config.epochs=10"
        if "workdirs" in modes[mode].takes:
            hint = "separate several directories by commas, --workdirs DIR,DIR"
        raise InputError(f"{rest[1]!r} is not a flag: {hint}")
    return rest


def check_flags(mode: str, modes: Mapping[str, Mode]) -> None:
    """Raises InputError if a flag of another mode is given, or one that this mode needs is missing."""
    takes = {name: set(other.takes) for name, other in modes.items()}
    for name in sorted(set().union(*takes.values()) - takes[mode]):
        if flags.FLAGS[name].present:
            if name == "config":
                raise InputError(
                    f"--config is not for --mode={mode}: the run in --workdir has its own"
                )
            theirs = " and ".join(f"--mode={other}" for other in modes if name in takes[other])
            raise InputError(f"--{name} is for {theirs}")
    for name in modes[mode].needs:
        if not flags.FLAGS[name].value:
            among = f", one of {ACCEPTED}" if name == "target" else ""
            raise InputError(f"--{name} is missing: --mode={mode} needs it{among}")
