"""Equations of traced functions, and digests that distinguish the functions."""

import hashlib
import re
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from numpy.typing import ArrayLike

from rwp_jax.files import raw_bytes


def _inner(equation) -> Iterator:
    """Yields the functions, branches and loops of an equation, with or without their arrays."""
    for value in equation.params.values():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield inner


def equations(jaxpr) -> Iterator:
    """Yields all equations, including those of inner functions, branches and loops."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from equations(getattr(inner, "jaxpr", inner))


def _arrays_within(jaxpr) -> Iterator[ArrayLike]:
    """Yields the arrays that the text of a jaxpr omits: those of inner compiled functions, and literals."""
    for equation in equations(jaxpr):
        for inner in _inner(equation):
            yield from getattr(inner, "consts", ())
        for operand in equation.invars:
            if isinstance(operand, Literal) and np.ndim(operand.val):
                yield operand.val


def as_numbers(array: ArrayLike) -> ArrayLike:
    """Returns the array; for a random key, the numbers that it consists of."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(array)
    return array


def operations_digest(program: ClosedJaxpr, arrays: Iterable[ArrayLike] = ()) -> str:
    """Returns the SHA-256 of a traced function's operations and of the given arrays that it closes over.

    Arrays of compiled functions within it (`jax.jit`) are always included.
    """
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))
    content = hashlib.sha256(text.encode())
    for array in (*arrays, *_arrays_within(program.jaxpr)):
        content.update(raw_bytes(as_numbers(array)))
    return content.hexdigest()


def program_digest(program: ClosedJaxpr) -> str:
    """Returns the SHA-256 of a traced function: its operations and all arrays that it closes over."""
    return operations_digest(program, program.consts)


def same_arrays(these, those) -> bool:
    """Returns whether two lists of arrays are equal."""
    pairs = zip(these, those, strict=False)

    def equal(this, that):
        if this is that:
            return True
        this, that = np.asarray(as_numbers(this)), np.asarray(as_numbers(that))
        return this.dtype == that.dtype and np.array_equal(this, that)

    return len(these) == len(those) and all(equal(a, b) for a, b in pairs)
