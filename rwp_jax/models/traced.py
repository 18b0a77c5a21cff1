"""Traced functions: their equations, and digests that tell one from another."""

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
    """The functions, branches and loops of an equation, with their arrays or without."""
    for value in equation.params.values():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                yield inner


def equations(jaxpr) -> Iterator:
    """All equations, those of the functions, branches and loops within too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from equations(getattr(inner, "jaxpr", inner))


def _arrays_within(jaxpr) -> Iterator[ArrayLike]:
    """Arrays that its text does not show: of compiled functions within it, and literal ones."""
    for equation in equations(jaxpr):
        for inner in _inner(equation):
            yield from getattr(inner, "consts", ())
        for operand in equation.invars:
            if isinstance(operand, Literal) and np.ndim(operand.val):
                yield operand.val


def as_numbers(array: ArrayLike) -> ArrayLike:
    """The array; of a random key the numbers that it is made of."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(array)
    return array


def operations_digest(program: ClosedJaxpr, arrays: Iterable[ArrayLike] = ()) -> str:
    """SHA-256 of a traced function's operations, and of some of the arrays that it closes over.

    Arrays of compiled functions within it (`jax.jit`) always count.
    """
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))
    content = hashlib.sha256(text.encode())
    for array in (*arrays, *_arrays_within(program.jaxpr)):
        content.update(raw_bytes(as_numbers(array)))
    return content.hexdigest()


def program_digest(program: ClosedJaxpr) -> str:
    """SHA-256 of a traced function: of its operations and the arrays that they close over."""
    return operations_digest(program, program.consts)


def same_arrays(these, those) -> bool:
    """Whether two lists of arrays are equal."""
    pairs = zip(these, those, strict=False)

    def equal(this, that):
        if this is that:
            return True
        this, that = np.asarray(as_numbers(this)), np.asarray(as_numbers(that))
        return this.dtype == that.dtype and np.array_equal(this, that)

    return len(these) == len(those) and all(equal(a, b) for a, b in pairs)
