"""The one exception for mistakes of the user: main.py prints it as a single line and exits with 2."""


class InputError(ValueError):
    """Bad input: the message names the key or file, what is wrong with it and what is accepted."""


def first_line(error: Exception) -> str:
    """What an exception says, for quoting inside a message of one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
