"""Weight perturbations: none, AWP (Wu et al., 2020) and RWP (Yu et al., 2022, Algorithm 1).

All three ascend the loss of gated examples in weight space and scale the result to a norm relative to
the weights'. They differ in the gate, in the number of steps and in what the norm is taken over.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rwp_jax.errors import InputError

NAMES = ("none", "awp", "rwp")
ACCUMULATE = ("reference", "paper")
LARGEST_GAMMA = 1000  # float32 holds gamma ||w|| / _EPS
_EPS = 1e-20  # of the authors' code: a zero direction stays zero


class WeightPerturbation(NamedTuple):
    """A weight perturbation as data.

    Attributes:
      steps: K2, the most ascent steps; 0 perturbs nothing.
      gate: loss [B] -> [B] bool, the examples whose loss is ascended.
      accumulate: (direction, v, gradient) -> direction after a step.
      scale: (params, direction) -> v, of the wanted norm.
    """

    steps: int
    gate: Callable
    accumulate: Callable
    scale: Callable


def is_perturbed(tensor) -> bool:
    """Convolution and linear kernels are perturbed and enter the norms; biases and BN's vectors not."""
    return tensor.ndim > 1


def perturbed_norm(tree):
    """L_2 norm over all perturbed tensors together."""
    return optax.tree.norm([t for t in jax.tree.leaves(tree) if is_perturbed(t)])


def _scale_globally(gamma):
    """gamma ||w|| along the direction, one norm over all perturbed tensors (RWP)."""

    def scale(params, direction):
        factor = gamma * perturbed_norm(params) / (perturbed_norm(direction) + _EPS)
        return jax.tree.map(lambda d: factor * d, direction)

    return scale


def _scale_by_layer(gamma):
    """gamma ||w_l|| along the direction in every tensor l (AWP)."""

    def scale(params, direction):
        norm = jnp.linalg.norm
        return jax.tree.map(
            lambda w, d: gamma * norm(w.ravel()) / (norm(d.ravel()) + _EPS) * d, params, direction
        )

    return scale


def _range_gate(low, high):
    """low <= loss < high; low = 0 is no bound at all, so that rounding below 0 closes no gate."""
    return lambda loss: (loss < high) & ((loss >= low) | (low == 0))


def _raw_sum(direction, v, gradient):
    """The authors' code: raw gradients add up, only their sum is scaled."""
    del v
    return jax.tree.map(jnp.add, direction, gradient)


def _rescaled_sum(direction, v, gradient):
    """Algorithm 1 as printed: the gradient is added to the scaled v."""
    del direction
    return jax.tree.map(jnp.add, v, gradient)


def make_weight_perturbation(
    name: str,
    gamma: float = 0.0,
    steps: int = 0,
    c_min: float = float("inf"),
    accumulate: str = "reference",
    lsc_low: float = 0.0,
    lsc_high: float = float("inf"),
) -> WeightPerturbation:
    """Builds a weight perturbation.

    Args:
      name: `none`, `awp` or `rwp`.
      gamma: relative norm of the perturbation, ||v|| = gamma ||w||, in [0, 1000].
      steps: K2 of Algorithm 1 (rwp; awp takes one step).
      c_min: rwp's Loss Stationary Condition: only examples with loss < c_min are ascended. 0 perturbs
        nothing, inf everything.
      accumulate: how rwp's steps add up, `reference` (the authors' code) or `paper` (Algorithm 1).
      lsc_low: p of a range [p, q) that losses must lie in besides (awp on a range is Figure 1(c)).
      lsc_high: q of that range.

    Raises:
      InputError: for an unknown name or a value out of range.
    """
    key = "config.weight_perturbation"
    if name not in NAMES:
        raise InputError(f"{key}.name={name!r} must be one of {', '.join(NAMES)}")
    if accumulate not in ACCUMULATE:
        raise InputError(f"{key}.accumulate={accumulate!r} must be one of {', '.join(ACCUMULATE)}")
    if not 0 <= gamma <= LARGEST_GAMMA:
        raise InputError(f"{key}.gamma={gamma} must be in [0, {LARGEST_GAMMA}]")
    if steps < 0:
        raise InputError(f"{key}.steps={steps} must be at least 0")
    if not c_min >= 0:
        raise InputError(f"{key}.c_min={c_min} must be in [0, inf]")
    if not 0 <= lsc_low <= lsc_high:
        raise InputError(
            f"{key}.lsc_low={lsc_low} and lsc_high={lsc_high} must satisfy 0 <= lsc_low <= lsc_high"
        )
    if name == "awp":
        return WeightPerturbation(
            1, _range_gate(lsc_low, lsc_high), _raw_sum, _scale_by_layer(gamma)
        )
    return WeightPerturbation(
        steps if name == "rwp" else 0,
        _range_gate(lsc_low, min(lsc_high, c_min)),
        _raw_sum if accumulate == "reference" else _rescaled_sum,
        _scale_globally(gamma),
    )


class Perturbed(NamedTuple):
    """Result of `perturb_and_differentiate`. Numbers are over all devices unless they are [B].

    Attributes:
      v: the weight perturbation, zero for tensors that are not perturbed.
      gradient: of the batch's mean loss at w + v, for the update.
      loss: [B] per-example losses at w + v.
      aux: the objective's aux at w + v.
      aux_unperturbed: the same at w.
      steps: k, ascent steps taken.
      gate_open: examples whose gate was open at w, before the first step.
      gate_left: examples whose gate is still open at w + v.
    """

    v: Any
    gradient: Any
    loss: jnp.ndarray
    aux: Any
    aux_unperturbed: Any
    steps: jnp.ndarray
    gate_open: jnp.ndarray
    gate_left: jnp.ndarray


def perturb_and_differentiate(
    per_example: Callable,
    params,
    perturbation: WeightPerturbation,
    *,
    max_steps=None,
    axis_name: str | None = None,
    gradient_dtype: str = "",
) -> Perturbed:
    """Ascends v, then differentiates the loss at w + v: Algorithm 1 from line 6 on, as one loop.

    Every iteration evaluates the per-example losses at w + v once. While a gate is open and steps are
    left it pulls back the gate and ascends; otherwise it pulls back the mean, which is the update's
    gradient, and leaves. So k steps cost k + 1 passes, and one forward and backward is compiled.

    Args:
      per_example: params -> (loss [B], aux) on this device's part of the batch; aux.gate_loss [B] is
        what the gate looks at, the loss itself or the loss without the examples' weights.
      params: w.
      perturbation: see `make_weight_perturbation`.
      max_steps: overrides `perturbation.steps`; may be traced (0 switches the perturbation off).
      axis_name: mapped axis over which the batch is split, None on a single device.
      gradient_dtype: of gradients while they are summed over devices; "" for their own.
    """
    max_steps = perturbation.steps if max_steps is None else max_steps
    total = lambda value: lax.psum(value, axis_name) if axis_name else value

    def total_gradient(gradient):
        if not (gradient_dtype and axis_name and lax.axis_size(axis_name) > 1):
            return total(gradient)
        narrow = jax.tree.map(lambda g: g.astype(gradient_dtype), gradient)
        return jax.tree.map(lambda g, n: n.astype(g.dtype), gradient, total(narrow))

    def iterate(carry):
        direction, k, _, previous = carry
        v = perturbation.scale(params, direction)
        w_plus_v = jax.tree.map(jnp.add, params, v)
        loss, pullback, aux = jax.vjp(per_example, w_plus_v, has_aux=True)
        gate = perturbation.gate(aux.gate_loss)
        # Every device must take the same branch, so the number that decides is the global one.
        gate_open = total(jnp.sum(gate, dtype=jnp.int32))
        ascend = (k < max_steps) & (gate_open > 0)
        weight = 1 / total(loss.size)  # the global mean is a sum of shares of it
        cotangent = jnp.where(jnp.where(ascend, gate, True), jnp.asarray(weight, loss.dtype), 0)
        gradient = total_gradient(pullback(cotangent)[0])

        ascent = jax.tree.map(
            lambda g: jnp.where(ascend, g, 0) if is_perturbed(g) else jnp.zeros_like(g), gradient
        )
        direction = perturbation.accumulate(direction, v, ascent)
        first = lambda now, before: jax.tree.map(lambda a, b: jnp.where(k == 0, a, b), now, before)
        current = Perturbed(
            v=v,
            gradient=gradient,
            loss=loss,
            aux=aux,
            aux_unperturbed=first(aux, previous.aux_unperturbed),
            steps=k,
            gate_open=first(gate_open, previous.gate_open),
            gate_left=gate_open,
        )
        return direction, k + ascend, ~ascend, current

    zeros = jax.tree.map(jnp.zeros_like, params)
    counter = jnp.zeros((), jnp.int32)
    loss, aux = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(per_example, params)
    )
    nothing = Perturbed(zeros, zeros, loss, aux, aux, counter, counter, counter)
    carry = (zeros, counter, jnp.asarray(False), nothing)
    with jax.named_scope("perturb"):  # the loop's name in profiles and compiled programs
        *_, result = lax.while_loop(lambda carry: ~carry[2], iterate, carry)
    return result
