"""SGD with the semantics of torch.optim.SGD and torch.nn.utils.clip_grad_norm_."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rwp_jax.errors import InputError


class CycledTrace(NamedTuple):
    """State of a momentum that changes from step to step: steps done, and the velocity."""

    count: Any
    trace: Any


def _cycled_trace(momentum: Callable, nesterov: bool) -> optax.GradientTransformation:
    """velocity = momentum(step) * velocity + gradient; the update is the velocity, or Nesterov's."""

    def init(params):
        return CycledTrace(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradient, state, params=None):
        del params
        step = lambda g, v: g + jnp.asarray(momentum(state.count), v.dtype) * v
        trace = jax.tree.map(step, gradient, state.trace)
        updates = jax.tree.map(step, gradient, trace) if nesterov else trace
        return updates, CycledTrace(state.count + 1, trace)

    return optax.GradientTransformation(init, update)


def _clipped(largest: float) -> optax.GradientTransformation:
    """Scales gradients of a larger global norm down to `largest`, with PyTorch's 1e-6 beside the norm."""

    def clip(gradient, params=None):
        del params
        share = jnp.minimum(1, largest / (optax.tree.norm(gradient) + 1e-6))
        return jax.tree.map(lambda g: g * share.astype(g.dtype), gradient)

    return optax.stateless(clip)


def check_pattern(pattern: str) -> None:
    """Raises InputError unless `no_decay` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"config.optimizer.no_decay={pattern!r} must be a regular expression ({error})"
        ) from None


def decayed(params, no_decay: str):
    """Returns a tree of bools: whether a parameter decays, as `no_decay` is not found in its path.

    Paths are those of the checkpoint, such as `block1_0/bn1/scale`.

    Raises:
      InputError: if it is found in no path.
    """
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    decays = jax.tree_util.tree_map_with_path(
        lambda path, _: not re.search(no_decay, name(path)), params
    )
    if all(jax.tree.leaves(decays)):
        example = name(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise InputError(
            f"config.optimizer.no_decay={no_decay!r} is found in no path of a parameter, such as {example}"
        )
    return decays


def make_sgd(
    schedule,
    momentum: float | Callable = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    clip_norm: float = 0.0,
    no_decay: str = "",
) -> optax.GradientTransformation:
    """Returns SGD with PyTorch's momentum and weight decay.

    Args:
      schedule: learning rate, or a function of the step.
      momentum: in [0, 1), or a function of the step, see `schedules.momentum_schedule`.
      weight_decay: added to the gradient, times the parameter.
      nesterov: whether the update is Nesterov's.
      clip_norm: largest global norm of the gradient, before weight decay; 0 for any.
      no_decay: regular expression; parameters in whose path it is found do not decay. "" for none of them.
    """
    mask = (lambda params: decayed(params, no_decay)) if no_decay else None
    parts = [optax.add_decayed_weights(weight_decay, mask)]
    if clip_norm:
        parts.insert(0, _clipped(clip_norm))
    if callable(momentum):
        cycled = _cycled_trace(momentum, nesterov), optax.scale_by_learning_rate(schedule)
        return optax.chain(*parts, optax.chain(*cycled))
    return optax.chain(*parts, optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov))
