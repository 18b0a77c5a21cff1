"""The exception for mistakes of the user: the command line prints it as a single line and exits with 2."""

import contextlib
from collections.abc import Container, Iterator


class InputError(ValueError):
    """Bad input: the message names the argument, key or file, what is wrong with it and what is accepted.

    Functions name their arguments, as in `epsilon=8 must be ...`; `named_in` and `as_flags` turn that into
    the config's key and the command line's flag.
    """


@contextlib.contextmanager
def named_in(section: str, **others: str) -> Iterator[None]:
    """Within it, an error that begins with an argument's name begins with that of the config's key.

    Args:
      section: of the config, `config.threat` for `config.threat.epsilon=8 must be ...`.
      others: sections of arguments that are elsewhere, by argument.
    """
    try:
        yield
    except InputError as error:
        name = str(error).partition("=")[0]
        raise InputError(f"{others.get(name, section)}.{error}") from None


def as_flags(error: Exception, flags: Container[str]) -> str:
    """The message of an error, with two dashes where it begins with an argument that is a flag here."""
    message = str(error)
    name = message.partition("=")[0]
    # A key of the config is named as in its file: only those given on the command line are flags.
    return f"--{message}" if name in flags and "." not in name else message


def first_line(error: Exception) -> str:
    """What an exception says, for quoting inside a message of one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
