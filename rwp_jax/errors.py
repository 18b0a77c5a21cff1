"""Mistakes of the user: the exception, checks that raise it, and how the command line says it.

The command line prints one line and exits with 2.
"""

import argparse
import contextlib
import importlib.util
import math
import operator
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

_CALL = (
    r"\w\((?:[^()]|\([^()]*\))*\)"  # f(x, g(y), mode=3), as users write it in their own messages
)
# The distributions behind these names come with the extra `train`.
_NEEDED = (
    "absl",
    "jinja2",
    "matplotlib",
    "ml_collections",
    "orbax",
    "safetensors",
    "sklearn",
    "tensorboardX",
    "tqdm",
)


class InputError(ValueError):
    """Bad input: the message names the argument, key or file, what is wrong with it and what is accepted.

    Functions name their arguments, as in `epsilon=8 must be ...`; `named_in` and `as_flags` turn that into
    the config's key and the command line's flag.
    """


class RunWarning(UserWarning):
    """What is loaded of a run is not quite what it trained, or what was asked for."""


@contextlib.contextmanager
def named_in(section: str, names: str, **others: str) -> Iterator[None]:
    """Within it, an error that begins with an argument's name begins with that of the config's key.

    Args:
      section: of the config, `config.threat` for `config.threat.epsilon=8 must be ...`.
      names: of the arguments that are keys of it, between blanks. Errors of others begin with the section.
      others: sections of arguments that are elsewhere, by argument.
    """
    try:
        yield
    except InputError as error:
        name = str(error).partition("=")[0]
        if name in names.split():
            raise InputError(f"{section}.{error}") from None
        raise InputError(
            f"{others[name]}.{error}" if name in others else f"{section}: {error}"
        ) from None


@contextlib.contextmanager
def renamed(name: str, argument: str) -> Iterator[None]:
    """Within it, an error that begins with `name=` begins with `argument=`, what the caller calls it."""
    try:
        yield
    except InputError as error:
        raise InputError(re.sub(f"^{name}=", f"{argument}=", str(error))) from None


@contextlib.contextmanager
def prefixed(text: str) -> Iterator[None]:
    """Within it, errors about a file, which begin with its path, begin with `text` before it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{text}{error}") from None


@contextlib.contextmanager
def function_of_the_user(name: str) -> Iterator[None]:
    """Within it, whatever a function of the user's raises is an InputError that names the argument."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{name}= fails: {type(error).__name__}: {first_line(error)}") from error


def _check_known(name: str, value: Any) -> None:
    """Raises InputError for a number that JAX has yet to compute."""
    if "Tracer" in type(value).__name__:
        raise InputError(
            f"{name}= is traced within jax.jit or jax.vmap, must be a number known before"
        )


def is_bool(value: Any) -> bool:
    """Whether it is a Boolean, or an array of them."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"


def shown(value: Any) -> str:
    """A value in a message of one line: its repr, cut where it is long or has several lines."""
    try:
        text = repr(value)
    except Exception:  # of the user's class
        text = f"<{type(value).__name__}>"
    first, *others = text.splitlines() or [""]
    return f"{first[:80]}..." if others or len(first) > 80 else first


def check_number(name: str, value: Any, accepted: str, holds: Callable[[float], bool]) -> float:
    """The value of an argument as a float; raises InputError unless it is a number that `holds`."""
    _check_known(name, value)
    try:
        number = math.nan if isinstance(value, str | bytes) or is_bool(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or not holds(number):
        raise InputError(f"{name}={shown(value)} must be {accepted}")
    return number


def check_integer(name: str, value: Any, least: int) -> int:
    """The value of an argument as an int; raises InputError unless it is in [least, 2^31)."""
    _check_known(name, value)
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or number >= 2**31 or is_bool(value):
        below = " and below 2^31" if number >= 2**31 else ""
        raise InputError(f"{name}={shown(value)} must be an integer of at least {least}{below}")
    return number


def check_bool(name: str, value: Any) -> bool:
    """The value of an argument; raises InputError unless it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={shown(value)} must be True or False")
    return value


def check_choice(name: str, value: Any, accepted: Iterable[str]) -> str:
    """The value of an argument; raises InputError unless it is one of these strings."""
    accepted = tuple(accepted)
    if not isinstance(value, str) or value not in accepted:
        raise InputError(f"{name}={shown(value)} must be one of {', '.join(accepted)}")
    return value


def check_path(name: str, value: Any) -> pathlib.Path:
    """The value of an argument as a path; raises InputError where it is none."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name}={shown(value)} must be a path")
    return pathlib.Path(value)


def as_flags(error: Exception, flags: Mapping[str, Any]) -> str:
    """The message of an error, with `--name` for each `name=` that is a flag here.

    A key of the config is named as in its file, `config.epochs=`: only those given on the line are flags.
    What the user gave, such as the file epoch=9.ckpt, stays as it is, and so does a call, f(mode=3).

    Args:
      error: whose message names arguments.
      flags: values by name.
    """

    given = [
        str(value)
        for values in flags.values()
        for value in (values if isinstance(values, list) else [values])
        if "=" in str(value)
    ]
    # Messages may name a file as pathlib writes it, or a directory that it lies in.
    paths = [pathlib.PurePath(os.path.normpath(value)) for value in given]
    parents = [str(part) for path in paths for part in (path, *path.parents) if "=" in str(part)]
    longest_first = sorted({*given, *parents}, key=len, reverse=True)
    kept = "|".join([*map(re.escape, longest_first), _CALL])

    def flag(match: re.Match) -> str:
        name, after = match["name"], match.string[match.end() :][:1]
        if name not in flags:
            return match[0]
        return f"--{name}" if after in " :;,)" else f"--{name}="

    return re.sub(rf"{kept}|(?<![\w./-])(?P<name>\w+)=", flag, str(error))


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are of one line, as all messages to users are."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def first_line(error: BaseException) -> str:
    """What an exception says, for quoting inside a message of one line."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def exit_without_extra(program: str) -> None:
    """Ends the program, with a line that says what to install, where the extra `train` is not there."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"{program}: {', '.join(missing)} missing: the command line needs pip install 'rwp-jax[train]' "
            "(in the repository, pip install -r requirements.txt)",
            file=sys.stderr,
        )
        sys.exit(2)
