"""Weight ascent and the gradient at the perturbed weights, in one loop (Yu et al., 2022, Algorithm 1)."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.arguments import check_traced
from rwp_jax.errors import (
    InputError,
    RunWarning,
    check_function,
    check_integer,
    function_of_the_user,
    shown,
)
from rwp_jax.training.gradient_sum import GradientSum
from rwp_jax.training.weight_perturbation import WeightPerturbation

# What errors of Flax in per_example suggest.
_CAUSES = {
    "ModifyScopeVariableError": "BatchNorm in training mode? Then return (losses, statistics) with the "
    "statistics of model.apply(..., mutable=['batch_stats'])",
    "TraceContextError": "a flax.nnx module from outside? Merge it in per_example: "
    "nnx.merge(graph, params, batch_stats, copy=True)",
}


class Perturbed(NamedTuple):
    """Result of `perturb_and_differentiate`, over all devices except for values [B] and aux.

    Attributes:
      v: the weight perturbation, zero for tensors that are not perturbed.
      gradient: of the batch's mean loss at w + v, for the update.
      loss: [B] per-example losses at w + v.
      aux: the aux of `per_example` at w + v; None if it returns none.
      aux_unperturbed: aux at w.
      steps: k, the number of ascent steps taken.
      gate_open: number of examples that pass the gate at w, before the first step.
      gate_left: number of examples that pass the gate at w + v.

    Losses that are NaN never pass a gate; `loss` and `gradient` show them.
    """

    v: Any
    gradient: Any
    loss: jnp.ndarray
    aux: Any
    aux_unperturbed: Any
    steps: jnp.ndarray
    gate_open: jnp.ndarray
    gate_left: jnp.ndarray


def _loss_and_aux(per_example: Callable) -> Callable:
    """Returns params -> (loss, aux), with aux None if `per_example` returns none."""

    def both(params):
        result = per_example(params)
        if not isinstance(result, tuple):
            return result, None
        if len(result) != 2:
            raise InputError(
                f"per_example= returns {len(result)} values, must be loss or (loss, aux)"
            )
        return result

    return both


def _check_params(params) -> None:
    """Raises InputError unless all leaves are floating-point, so that they have gradients."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        held: Any
        try:
            held = jnp.result_type(leaf)
        except TypeError:  # such as a string
            held = f"a {type(leaf).__name__}"
        if isinstance(held, str) or not jnp.issubdtype(held, jnp.floating):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            is_nnx = any("nnx" in base.__module__ for base in type(params).__mro__)
            hint = "; nnx.split(model, nnx.Param, ...) separates the parameters" if is_nnx else ""
            raise InputError(
                f"params= holds {held} in {name}, must hold floating-point arrays{hint}"
            )


def _check_axis(name) -> None:
    """Raises InputError unless the name is None or an axis that is mapped around this call."""
    if not isinstance(name, str | None):
        raise InputError(f"axis_name={shown(name)} must be the name of a mapped axis, or None")
    try:
        name and lax.axis_size(name)
    except NameError:
        raise InputError(
            f"axis_name={name!r} is not mapped around this call: jax.shard_map or jax.pmap map axes"
        ) from None


def _check(params, perturbation: WeightPerturbation, max_steps, loss, gate_loss, axis_name) -> None:
    """Raises InputError for losses or a mask that cannot be used."""
    for name, values in (("per_example", loss), ("gate_loss", gate_loss)):
        is_array = hasattr(values, "dtype")
        if not is_array or values.ndim != 1 or not jnp.issubdtype(values.dtype, jnp.floating):
            given = f"{values.dtype}{list(values.shape)}" if is_array else type(values).__name__
            raise InputError(
                f"{name}= gives {given}, must give floating-point losses [B], one per example"
            )
    # With check_vma=True, pullbacks in jax.shard_map return gradients that are already summed.
    if getattr(getattr(loss, "manual_axis_type", None), "varying", None):
        raise InputError(
            "per_example= runs in a jax.shard_map with check_vma=True: pass check_vma=False there and "
            "its axis_name= here"
        )
    if loss.shape != gate_loss.shape:
        raise InputError(
            f"gate_loss= gives {gate_loss.shape[0]} losses for {loss.shape[0]} examples"
        )
    if not loss.size:
        raise InputError("per_example= gives no loss: the batch is empty")
    if loss.size == 1 and axis_name is None:
        warnings.warn(
            "per_example= gives one loss: unless the batch is one example, return the losses of all "
            "examples, not their mean, from which c_min cannot choose",
            RunWarning,
            stacklevel=3,
        )
    none = isinstance(max_steps, int) and max_steps == 0  # it may be traced
    if not none and not any(jax.tree.leaves(perturbation.mask(params))):
        raise InputError(
            "mask= perturbs no tensor of params; by default those of rank > 1 are perturbed"
        )


def perturb_and_differentiate(
    per_example: Callable,
    params,
    perturbation: WeightPerturbation,
    *,
    gate_loss: Callable | None = None,
    max_steps=None,
    axis_name: str | None = None,
    gradient_dtype: str = "",
) -> Perturbed:
    """Ascends v, then differentiates the loss at w + v: Algorithm 1 from line 6 on, as one loop.

    Works with any network and any loss. A training step, within `jax.jit`, is

        perturbed = perturb_and_differentiate(per_example, params, perturbation)
        w_plus_v = jax.tree.map(jnp.add, params, perturbed.v)
        updates, opt_state = optimizer.update(perturbed.gradient, opt_state, w_plus_v)
        params = optax.apply_updates(params, updates)

    where per_example(params) returns the losses on adversarial examples made beforehand. Applying the
    updates to w instead of w + v removes v.

    Every iteration evaluates the per-example losses at w + v once. While examples pass the gate and steps
    are left, it ascends along the gradient of their losses; otherwise it computes the gradient of the mean
    loss, for the update, and ends the loop. So k steps cost k + 1 passes, and only one forward and backward
    is compiled. The number of passes is known only on the device, so the result cannot be differentiated
    in reverse mode. On CPUs, give layers `rwp_jax.conv_general_dilated`: in loops, XLA computes the
    gradients of its own convolution slowly.

    Args:
      per_example: params -> loss [B], or (loss [B], aux), on this device's part of the batch. aux is any
        tree of arrays, such as updated running statistics.
      params: w, a tree of floating-point arrays.
      perturbation: see `make_weight_perturbation`.
      gate_loss: (loss, aux) -> [B], the values that the gate tests; by default the loss itself.
      max_steps: overrides `perturbation.steps`; integer, at least 0 (which switches the perturbation off),
        may be traced.
      axis_name: mapped axis over which the batch is split, None on a single device. `jax.shard_map` needs
        check_vma=False, because gradients are summed here.
      gradient_dtype: `bfloat16` to sum gradients over devices in bfloat16; "" for their own dtype.

    Returns:
      `Perturbed`: v and the gradient for the update.

    Raises:
      InputError: if an argument is invalid, per_example does not return losses [B], the mask does not fit
        params, or this runs in a `jax.shard_map` with check_vma=True.
    """
    if not isinstance(perturbation, WeightPerturbation):
        raise InputError(
            f"perturbation={shown(perturbation)} must be made by make_weight_perturbation"
        )
    check_function("per_example", per_example)
    if gate_loss is not None:
        check_function("gate_loss", gate_loss)
    if not isinstance(gradient_dtype, str) or gradient_dtype not in ("", "bfloat16"):
        raise InputError(
            f"gradient_dtype={shown(gradient_dtype)} must be '' (no conversion) or 'bfloat16'"
        )
    max_steps = perturbation.steps if max_steps is None else max_steps
    if not isinstance(max_steps, jax.core.Tracer):
        max_steps = check_integer("max_steps", max_steps, 0)
    else:
        check_traced("max_steps", max_steps, "an integer", jnp.integer)
    _check_axis(axis_name)
    per_example, gate_loss = _loss_and_aux(per_example), gate_loss or (lambda loss, aux: loss)
    _check_params(params)
    with function_of_the_user("per_example", _CAUSES):
        shapes = jax.eval_shape(per_example, params)
    with function_of_the_user("gate_loss"):
        gate_shape = jax.eval_shape(gate_loss, *shapes)
    _check(params, perturbation, max_steps, shapes[0], gate_shape, axis_name)
    mask = perturbation.mask(params)
    scale = perturbation.scale(params)
    total = lambda value: lax.psum(value, axis_name) if axis_name else value

    gradient_sum = GradientSum(params, axis_name, gradient_dtype)

    def iterate(carry):
        direction, k, _, previous = carry
        v = scale(direction)
        w_plus_v = jax.tree.map(jnp.add, params, v)
        loss, pullback, aux = jax.vjp(per_example, w_plus_v, has_aux=True)
        gate = perturbation.gate(gate_loss(loss, aux))
        # The global count decides, so that all devices take the same branch.
        gate_open = total(jnp.sum(gate, dtype=jnp.int32))
        ascend = (k < max_steps) & (gate_open > 0)
        weight = 1 / total(loss.size)  # summed over devices, the shares give the global mean
        cotangent = jnp.where(jnp.where(ascend, gate, True), jnp.asarray(weight, loss.dtype), 0)
        gradient = gradient_sum.add_devices(pullback(cotangent)[0], previous.gradient)

        ascent = jax.tree.map(
            lambda g, perturbed: jnp.where(ascend, g, 0) if perturbed else jnp.zeros_like(g),
            gradient_sum.tree(gradient),
            mask,
        )
        ascended = perturbation.accumulate(direction, v, ascent)
        # Unchanged without ascent: v is not carried but recomputed from the direction.
        direction = jax.tree.map(lambda a, b: jnp.where(ascend, a, b), ascended, direction)
        first = lambda now, before: jax.tree.map(lambda a, b: jnp.where(k == 0, a, b), now, before)
        current = Perturbed(
            v=(),
            gradient=gradient,
            loss=loss,
            aux=aux,
            aux_unperturbed=first(aux, previous.aux_unperturbed),
            steps=k,
            gate_open=first(gate_open, previous.gate_open),
            gate_left=gate_open,
        )
        return direction, k + ascend, ~ascend, current

    counter = jnp.zeros((), jnp.int32)
    loss, aux = jax.tree.map(jnp.zeros_like, shapes)
    zeros = gradient_sum.zeros
    nothing = Perturbed((), zeros, loss, aux, aux, counter, counter, counter)
    carry = (zeros.tree, counter, jnp.asarray(False), nothing)
    with jax.named_scope("perturb"):  # the loop's name in profiles and compiled programs
        direction, *_, result = lax.while_loop(lambda carry: ~carry[2], iterate, carry)
    return result._replace(v=scale(direction), gradient=gradient_sum.tree(result.gradient))
