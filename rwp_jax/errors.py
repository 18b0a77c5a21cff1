"""InputError for mistakes of the user, the checks that raise it, and its form on the command line.

The command line prints the message on one line and exits with status 2.
"""

import argparse
import contextlib
import errno
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
# Modules whose distributions the extra `train` installs.
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


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib makes gs:/bucket of gs://bucket
_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}")


class InputError(ValueError):
    """Bad input. The message names the argument, key or file, what is wrong with it and what is accepted.

    Functions name their arguments, as in `epsilon=8 must be ...`; `named_in` turns that name into the
    config's key and `as_flags` into the command line's flag.
    """


class TemporaryError(InputError):
    """Something outside the program fails that may work at another time, such as a disk that is full."""


# What a start at another time or on another host may not meet.
_TEMPORARY = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ENFILE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}


def is_temporary(error: BaseException) -> bool:
    """Returns whether an error, such as a full disk or a network that is down, may pass by itself."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in _TEMPORARY
    return isinstance(error, TemporaryError)


class RunWarning(UserWarning):
    """A loaded run differs from what was trained or requested, or an argument is likely a mistake."""


@contextlib.contextmanager
def named_in(section: str, names: str, **others: str) -> Iterator[None]:
    """Makes errors raised in the `with` block name the config's key instead of the argument.

    Args:
      section: section of the config, such as `config.threat` for `config.threat.epsilon=8 must be ...`.
      names: arguments that are keys of the section, separated by spaces. All other errors are prefixed
        with the section.
      others: sections of arguments that are keys elsewhere, by argument.
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
    """Replaces `name=` by the caller's `argument=` where an error of the `with` block begins with it."""
    try:
        yield
    except InputError as error:
        raise InputError(re.sub(f"^{name}=", f"{argument}=", str(error))) from None


@contextlib.contextmanager
def prefixed(text: str) -> Iterator[None]:
    """Prefixes errors of the `with` block, which begin with the path of a file, with `text`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{text}{error}") from None


@contextlib.contextmanager
def function_of_the_user(name: str, causes: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turns what a user-defined function raises in the `with` block into an InputError on its argument.

    Args:
      name: name of the argument.
      causes: what errors suggest, by name of their class, to follow the message.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        cause = f"; {causes[kind]}" if causes and kind in causes else ""
        raise InputError(f"{name}= fails: {kind}: {first_line(error)}{cause}") from error


def check_function(name: str, value: Any) -> None:
    """Raises InputError unless an argument can be called."""
    if not callable(value):
        raise InputError(f"{name}={shown(value)} must be a function")


def _check_known(name: str, value: Any) -> None:
    """Raises InputError for a traced value, whose number is not known yet."""
    if "Tracer" in type(value).__name__:
        raise InputError(f"{name}= is traced within jax.jit or jax.vmap, must be a concrete number")


def is_bool(value: Any) -> bool:
    """Returns whether a value is a Boolean or an array of Booleans."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"


def shown(value: Any) -> str:
    """The repr of a value for a one-line message, shortened if it is long or has several lines."""
    try:
        text = repr(value)
    except Exception:  # raised by the user's class
        text = f"<{type(value).__name__}>"
    first, *others = text.splitlines() or [""]
    return f"{first[:80]}..." if others or len(first) > 80 else first


def check_number(name: str, value: Any, accepted: str, holds: Callable[[float], bool]) -> float:
    """Returns an argument as a float; raises InputError unless it is a number for which `holds` is true."""
    _check_known(name, value)
    try:
        number = math.nan if isinstance(value, str | bytes) or is_bool(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or not holds(number):
        raise InputError(f"{name}={shown(value)} must be {accepted}")
    return number


def check_integer(name: str, value: Any, least: int) -> int:
    """Returns an argument as an int; raises InputError unless it is an integer in [least, 2^31)."""
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
    """Returns an argument; raises InputError unless it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={shown(value)} must be True or False")
    return value


def check_choice(name: str, value: Any, accepted: Iterable[str]) -> str:
    """Returns an argument; raises InputError unless it is one of the accepted strings."""
    accepted = tuple(accepted)
    if not isinstance(value, str) or value not in accepted:
        raise InputError(f"{name}={shown(value)} must be one of {', '.join(accepted)}")
    return value


def check_path(name: str, value: Any) -> pathlib.Path:
    """Returns an argument as a local path, with `~` and `$VAR` replaced by what they stand for.

    Raises:
      InputError: if it is empty, not a path or a URL, or names an unknown user or variable.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name}={shown(value)} must be a path")
    text = os.fspath(value)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if _URL.match(text):
        raise InputError(
            f"{name}={text} is a URL, must be a local path: mount the bucket (gs:// by gcsfuse) and give "
            "the path of the mount"
        )
    if os.path.exists(text):
        return pathlib.Path(text)
    expanded = os.path.expandvars(os.path.expanduser(text))
    if expanded.startswith("~"):
        raise InputError(f"{name}={text}: there is no user {expanded.partition('/')[0][1:]!r}")
    unknown = _VARIABLE.search(expanded)
    if unknown:
        raise InputError(f"{name}={text}: the environment variable {unknown[0]} is not set")
    return pathlib.Path(expanded)


def as_flags(error: Exception, flags: Mapping[str, Any]) -> str:
    """The message of an error, with `--name` in place of each `name=` that is a flag of the program.

    Dotted keys of the config, such as `config.epochs=`, stay as they are. So do values that the user gave,
    such as the file epoch=9.ckpt, and calls, such as f(mode=3).

    Args:
      error: error whose message names arguments.
      flags: values of the flags, by name.
    """

    given = [
        str(value)
        for values in flags.values()
        for value in (values if isinstance(values, list) else [values])
        if "=" in str(value)
    ]
    # Messages may give a path as pathlib normalises it, or one of its parent directories.
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


def _path_of_option(text: str) -> pathlib.Path:
    """Returns the path that an option of argparse names, which its error message names first."""
    try:
        return check_path("path", text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("path=")) from None


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all messages to users are, and whose paths are checked."""

    def __init__(self, *args: Any, **keywords: Any):
        super().__init__(*args, **keywords)
        self.register("type", pathlib.Path, _path_of_option)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def first_line(error: BaseException) -> str:
    """The first non-blank line of an exception's message, or its type, to quote in a one-line message."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def exit_without_extra(program: str) -> None:
    """Exits with a line that states what to install if the extra `train` is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"{program}: {', '.join(missing)} missing: the command line needs pip install 'rwp-jax[train]' "
            "(in the repository, pip install -r requirements.txt)",
            file=sys.stderr,
        )
        sys.exit(2)
