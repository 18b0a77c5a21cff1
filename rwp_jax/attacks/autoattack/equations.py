"""Properties of a traced function read from its equations: random draws, gradients, callbacks, rounding."""

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from rwp_jax.models.traced import equations

_DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform", "random_gamma")


def draws(program: ClosedJaxpr) -> bool:
    """Returns whether a program draws random numbers."""
    return any(equation.primitive.name in _DRAWS for equation in equations(program.jaxpr))


def differentiates(program: ClosedJaxpr) -> bool:
    """Returns whether a program takes derivatives, whose equations JAX marks in their name stacks."""
    stacks = {str(equation.source_info.name_stack) for equation in equations(program.jaxpr)}
    return any("jvp(" in stack or "transpose(" in stack for stack in stacks)


def calls_back(program: ClosedJaxpr) -> bool:
    """Returns whether a program calls Python functions; its text contains only their names."""
    return any("callback" in equation.primitive.name for equation in equations(program.jaxpr))


def coarsest(program: ClosedJaxpr) -> float:
    """The largest machine epsilon of the floating-point dtypes in which a program computes."""
    dtypes = {getattr(v.aval, "dtype", None) for e in equations(program.jaxpr) for v in e.outvars}
    return max(
        (
            float(jnp.finfo(d).eps)
            for d in dtypes
            if d is not None and jnp.issubdtype(d, jnp.floating)
        ),
        default=0.0,
    )
