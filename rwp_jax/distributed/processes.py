"""Communication between the processes of a run, one per host.

Only the first process writes files and prints. With a single process, nothing here has a cost.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from rwp_jax.errors import InputError, TemporaryError, is_temporary

T = TypeVar("T")


def is_first() -> bool:
    """Returns whether this process is the one that writes files and prints progress."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, in the first process only."""
    if is_first():
        print(text, flush=True)


def gather(value: Any) -> list[Any]:
    """Returns the JSON values that all processes pass, in process order; waits for all processes."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(text)))).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(text)] = text
    texts = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [json.loads(bytes(row[:length])) for row, length in zip(texts, lengths, strict=True)]


def _from_first(value: Any) -> Any:
    """Returns the JSON value that the first process passes."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(1 << length.bit_length(), np.uint8)  # few sizes, because each is compiled
    if is_first():
        padded[:length] = text
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))[:length]))


def broadcast(tree):
    """Returns the first process's tree of NumPy arrays; others pass one of equal shapes and dtypes."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def _outcome(function: Callable[[], T]) -> tuple[T | None, str | None, bool]:
    """Returns the function's result or None, the message of an InputError, and whether it is temporary."""
    try:
        return function(), None, False
    except InputError as error:
        return None, str(error), is_temporary(error)


def _raise(message: str, temporary: bool) -> NoReturn:
    raise (TemporaryError if temporary else InputError)(message)


def together(function: Callable[[], T]) -> T:
    """Returns the function's result in this process, once all processes have called it.

    Raises:
      InputError: in every process, if the function raises it in any.
    """
    if jax.process_count() == 1:
        return function()
    result, *wrong = _outcome(function)
    for process, (message, temporary) in enumerate(gather(wrong)):
        if message:
            _raise(message if process == 0 else f"{message} (in process {process})", temporary)
    return result


def by_first(function: Callable[[], T]) -> T:
    """Returns the result, JSON values, of a function that only the first process calls.

    Raises:
      InputError: in every process, if the function raises it.
    """
    if jax.process_count() == 1:
        return function()
    result, wrong, temporary = _from_first(_outcome(function) if is_first() else None)
    if wrong:
        _raise(wrong, temporary)
    return result


def check_equal(what: str, values: dict[str, Any]) -> None:
    """Raises InputError in every process unless all processes pass the same values.

    Args:
      what: description of the values, such as "the config".
      values: JSON values by name.
    """
    first, *others = gather(values)
    for process, other in enumerate(others, 1):
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                raise InputError(
                    f"processes disagree about {what}: {key}={first.get(key)!r} in process 0, "
                    f"{other.get(key)!r} in process {process}"
                )
