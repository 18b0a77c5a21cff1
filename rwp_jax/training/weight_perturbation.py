"""Weight perturbations: none, AWP (Wu et al., 2020) and RWP (Yu et al., 2022, Algorithm 1).

All three ascend the loss of gated examples in weight space and scale the result to a norm relative to
that of the weights. They differ in the gate, the number of steps and the tensors each norm covers.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rwp_jax.errors import (
    InputError,
    RunWarning,
    check_choice,
    check_integer,
    check_number,
    first_line,
    function_of_the_user,
    is_bool,
    shown,
)

NAMES = ("none", "awp", "rwp")
ACCUMULATE = ("reference", "paper")
LARGEST_GAMMA = 1000  # gamma ||w|| / _EPS must fit into float32
_EPS = 1e-20  # from the authors' code: a zero direction stays zero


class WeightPerturbation(NamedTuple):
    """The settings and functions of a weight perturbation.

    Attributes:
      steps: K2, the maximum number of ascent steps; 0 disables the perturbation.
      gate: loss [B] -> [B] bool, the examples whose loss is ascended.
      accumulate: (direction, v, gradient) -> direction after an ascent step.
      scale: params -> a function direction -> v, scaled to a norm relative to that of params.
      mask: params -> tree of bool, True for tensors that are perturbed and enter the norms.
    """

    steps: int
    gate: Callable
    accumulate: Callable
    scale: Callable
    mask: Callable


def is_perturbed(tensor) -> bool:
    """Returns True for convolution and linear kernels, the tensors that the authors' code perturbs."""
    return jnp.ndim(tensor) > 1


def kernels(params):
    """Returns the default mask: tensors of rank > 1."""
    return jax.tree.map(is_perturbed, params)


def _at_least_float32(tensor):
    """Casts narrower dtypes to float32, whose range squares and _EPS need."""
    return tensor.astype(jnp.promote_types(tensor.dtype, jnp.float32))


def perturbed_norm(tree, mask: Callable = kernels):
    """Returns one L_2 norm over all perturbed tensors of parameters or of a perturbation."""
    perturbed = lambda tensor, chosen: _at_least_float32(tensor) if chosen else None
    return optax.tree.norm(jax.tree.map(perturbed, tree, mask(tree)))


def _scale_globally(gamma, mask):
    """Returns a `scale` to norm gamma ||w||, one norm over all perturbed tensors (RWP)."""

    def scale(params):
        wanted = gamma * perturbed_norm(params, mask)

        def scaled(direction):
            factor = wanted / (perturbed_norm(direction, mask) + _EPS)
            return jax.tree.map(lambda d: (factor * d).astype(d.dtype), direction)

        return scaled

    return scale


def _scale_by_layer(gamma):
    """Returns a `scale` to norm gamma ||w_l|| in every tensor l (AWP)."""
    norm = lambda tensor: jnp.linalg.norm(_at_least_float32(tensor).ravel())

    def scale(params):
        wanted = jax.tree.map(lambda w: gamma * norm(w), params)
        return lambda direction: jax.tree.map(
            lambda n, d: (n / (norm(d) + _EPS) * d).astype(d.dtype), wanted, direction
        )

    return scale


def _range_gate(low, high, c_min=math.inf):
    """Returns the gate low <= loss < min(high, c_min); low = 0 is no bound, as losses may round below 0."""
    return lambda loss: (loss < high) & (loss < c_min) & ((loss >= low) | (low == 0))


def _raw_sum(direction, v, gradient):
    """Adds raw gradients, as the authors' code does; only their sum is scaled."""
    del v
    return jax.tree.map(jnp.add, direction, gradient)


def _rescaled_sum(direction, v, gradient):
    """Adds the gradient to the scaled v, as Algorithm 1 is printed."""
    del direction
    return jax.tree.map(jnp.add, v, gradient)


def _whole_mask(mask) -> Callable:
    """Returns params -> full tree of bool, from a tree of bool, a prefix of one or a function."""

    def whole(params):
        with function_of_the_user("mask"):
            given = mask(params) if callable(mask) else mask
        try:
            chosen = jax.tree.broadcast(given, params)
        except ValueError as error:
            raise InputError(
                f"mask= must have the structure of params, or be a prefix of it: {first_line(error)}"
            ) from None
        for path, leaf in jax.tree_util.tree_leaves_with_path(chosen):
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            if isinstance(leaf, jax.core.Tracer):
                raise InputError(
                    f"mask= is traced within jax.jit for {where}, must be known before"
                )
            if not is_bool(leaf) or np.shape(leaf):
                raise InputError(f"mask= has {shown(leaf)} for {where}, must have True or False")
        return jax.tree.map(bool, chosen)

    return whole


def make_weight_perturbation(
    name: str,
    gamma: float | None = None,
    steps: int | None = None,
    c_min: float | None = None,
    accumulate: str = "reference",
    lsc_low: float = 0.0,
    lsc_high: float = float("inf"),
    mask: Any = kernels,
) -> WeightPerturbation:
    """Builds a weight perturbation.

    Args:
      name: `none`, `awp` or `rwp`.
      gamma: relative norm of the perturbation, ||v|| = gamma ||w||, in [0, 1000]; required for
        awp and rwp.
      steps: K2 of Algorithm 1, at least 0; required for rwp, while awp always takes one step.
      c_min: rwp's Loss Stationary Condition, in [0, inf]: only examples with loss < c_min are ascended. 0
        excludes all examples, inf none, which is the default. awp has no such condition.
      accumulate: how rwp accumulates its steps, `reference` (the authors' code) or `paper` (Algorithm 1).
      lsc_low: p, in [0, inf), of a range [p, q) in which losses must also lie (awp with a range is Figure
        1(c)).
      lsc_high: q of that range, in [p, inf].
      mask: which tensors are perturbed and enter the norms, as an optax mask: a tree of bool with the
        structure of the parameters, a prefix of such a tree, or a function params -> such a tree; by
        default tensors of rank > 1.

    Raises:
      InputError: if the name is unknown, a value is out of range or a required one is missing.
      RunWarning: a warning, issued if rwp has no c_min or awp is given one, or a number of steps.
    """
    perturbation = from_settings(name, gamma, steps, c_min, accumulate, lsc_low, lsc_high, mask)
    if name == "rwp" and c_min is None:
        warnings.warn(
            "c_min= is missing: rwp perturbs on all examples, without the Loss Stationary Condition; give "
            "c_min (1.7 for AT on CIFAR-10 in the paper), or inf",
            RunWarning,
            stacklevel=2,
        )
    if name == "awp":
        for key, value in (("steps", steps), ("c_min", c_min)):
            if value is not None:
                warnings.warn(
                    f"{key}={value} is ignored: awp takes one step on all examples; rwp takes steps on "
                    "those with losses below c_min",
                    RunWarning,
                    stacklevel=2,
                )
    return perturbation


def from_settings(
    name: str, gamma, steps, c_min, accumulate: str, lsc_low, lsc_high, mask=kernels
) -> WeightPerturbation:
    """As `make_weight_perturbation`, without warnings, as a config holds the settings of all methods."""
    check_choice("name", name, NAMES)
    check_choice("accumulate", accumulate, ACCUMULATE)
    given = {"gamma": gamma, "steps": steps, "c_min": c_min}
    missing = [key for key, value in given.items() if value is None]
    gamma, steps = 0.0 if gamma is None else gamma, 0 if steps is None else steps
    accepted = f"in [0, {LARGEST_GAMMA}]"
    gamma = check_number("gamma", gamma, accepted, lambda value: 0 <= value <= LARGEST_GAMMA)
    steps = check_integer("steps", steps, 0)
    c_min = math.inf if c_min is None else c_min
    c_min = check_number("c_min", c_min, "in [0, inf]", lambda value: value >= 0)
    lsc_low = check_number("lsc_low", lsc_low, "in [0, inf)", lambda value: 0 <= value < math.inf)
    lsc_high = check_number("lsc_high", lsc_high, "in [0, inf]", lambda value: value >= 0)
    if lsc_low > lsc_high:
        raise InputError(
            f"lsc_low={lsc_low} and lsc_high={lsc_high} must satisfy 0 <= lsc_low <= lsc_high"
        )
    if "gamma" in missing and name != "none":
        raise InputError(f"gamma= is missing: {name} needs it, 0.01 in the paper")
    if "steps" in missing and name == "rwp":
        raise InputError("steps= is missing: rwp needs it, 10 in the paper")
    if mask is None or isinstance(mask, str | bytes | int | float) and not isinstance(mask, bool):
        raise InputError(
            f"mask={shown(mask)} must be a tree of True and False, or a function that makes one"
        )
    return perturbing(name, gamma, steps, c_min, accumulate, lsc_low, lsc_high, mask)


def perturbing(
    name: str, gamma, steps: int, c_min, accumulate: str, lsc_low, lsc_high, mask=kernels
) -> WeightPerturbation:
    """As `make_weight_perturbation`, without checks of values; gamma and c_min may be traced."""
    mask = _whole_mask(mask)
    if name == "awp":
        return WeightPerturbation(
            1, _range_gate(lsc_low, lsc_high), _raw_sum, _scale_by_layer(gamma), mask
        )
    return WeightPerturbation(
        steps if name == "rwp" else 0,
        _range_gate(lsc_low, lsc_high, c_min),
        _raw_sum if accumulate == "reference" else _rescaled_sum,
        _scale_globally(gamma, mask),
        mask,
    )
