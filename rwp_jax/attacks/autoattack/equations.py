"""What a traced function does, read from its equations: draws random numbers, takes gradients."""

from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr

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


def draws(program: ClosedJaxpr) -> bool:
    """Whether it draws random numbers."""
    return any(equation.primitive.name in _DRAWS for equation in equations(program.jaxpr))


def differentiates(program: ClosedJaxpr) -> bool:
    """Whether it takes derivatives, whose equations JAX marks in their name stack."""
    stacks = {str(equation.source_info.name_stack) for equation in equations(program.jaxpr)}
    return any("jvp(" in stack or "transpose(" in stack for stack in stacks)
