"""SGD with the semantics of torch.optim.SGD and torch.nn.utils.clip_grad_norm_."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rwp_jax.errors import InputError
from rwp_jax.names import by_path


def _cycled_sgd(schedule, momentum: Callable, nesterov: bool) -> optax.GradientTransformation:
    """optax.sgd, with the same state, whose momentum is a function of the step too."""

    def update(gradient, state, params=None):
        _, counted = state
        now = momentum(counted.count).astype(jax.tree.leaves(gradient)[0].dtype)
        return optax.sgd(schedule, now, nesterov).update(gradient, state, params)

    return optax.GradientTransformation(optax.sgd(schedule, 0.0, nesterov).init, update)


def _clip_and_decay(largest: float, weight_decay: float, no_decay: str):
    """Clips the gradient, with PyTorch's 1e-6 beside the norm, then adds the decay of some parameters."""

    def change(gradient, params):
        if largest:
            share = jnp.minimum(1, largest / (optax.tree.norm(gradient) + 1e-6))
            gradient = jax.tree.map(lambda g: g * share.astype(g.dtype), gradient)
        add = lambda g, p, decays: g + weight_decay * p if decays else g
        return jax.tree.map(add, gradient, params, decayed(params, no_decay))

    def init(params):
        decayed(params, no_decay)  # refuses a pattern that is found nowhere
        return optax.EmptyState()

    return optax.GradientTransformation(init, optax.stateless(change).update)


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
      InputError: if it is not "" and found in no path.
    """
    if not no_decay:
        return jax.tree.map(lambda _: True, params)
    names = list(by_path(params))
    decays = [not re.search(no_decay, name) for name in names]
    if all(decays):
        raise InputError(
            f"config.optimizer.no_decay={no_decay!r} is found in no path of a parameter, such as {names[0]}"
        )
    return jax.tree.unflatten(jax.tree.structure(params), decays)


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
    before = optax.add_decayed_weights(weight_decay)
    if clip_norm or no_decay:  # with the same state: a run may go on with another value
        before = _clip_and_decay(clip_norm, weight_decay, no_decay)
    if callable(momentum):
        return optax.chain(before, _cycled_sgd(schedule, momentum, nesterov))
    return optax.chain(before, optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov))
