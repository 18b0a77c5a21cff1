"""What a traced function does, by its equations: draw random numbers, take gradients, call Python."""

from collections.abc import Iterator

import numpy as np
from jax.extend.core import ClosedJaxpr

from rwp_jax.files import as_numbers

_DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")


def equations(jaxpr) -> Iterator:
    """All equations, those of the functions, branches and loops within too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def same_arrays(these, those) -> bool:
    """Whether two lists of arrays are equal."""
    pairs = zip(these, those, strict=False)

    def equal(this, that):
        if this is that:
            return True
        this, that = np.asarray(as_numbers(this)), np.asarray(as_numbers(that))
        return this.dtype == that.dtype and np.array_equal(this, that)

    return len(these) == len(those) and all(equal(a, b) for a, b in pairs)


def draws(program: ClosedJaxpr) -> bool:
    """Whether it draws random numbers."""
    return any(equation.primitive.name in _DRAWS for equation in equations(program.jaxpr))


def differentiates(program: ClosedJaxpr) -> bool:
    """Whether it takes derivatives, whose equations JAX marks in their name stack."""
    stacks = {str(equation.source_info.name_stack) for equation in equations(program.jaxpr)}
    return any("jvp(" in stack or "transpose(" in stack for stack in stacks)


def calls_back(program: ClosedJaxpr) -> bool:
    """Whether it calls functions of Python, of which its text has the name alone."""
    return any("callback" in equation.primitive.name for equation in equations(program.jaxpr))
