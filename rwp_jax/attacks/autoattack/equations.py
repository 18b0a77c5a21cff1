"""What a traced function does, by its equations: draw random numbers, take gradients, call Python."""

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from rwp_jax.models.traced import equations

_DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform", "random_gamma")


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


def coarsest(program: ClosedJaxpr) -> float:
    """The largest rounding error, relative to 1, of the floating-point dtypes it computes in."""
    dtypes = {getattr(v.aval, "dtype", None) for e in equations(program.jaxpr) for v in e.outvars}
    return max(
        (
            float(jnp.finfo(d).eps)
            for d in dtypes
            if d is not None and jnp.issubdtype(d, jnp.floating)
        ),
        default=0.0,
    )
