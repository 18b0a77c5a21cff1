"""Linen and nnx modules as pure functions of trees of arrays."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx

from rwp_jax.errors import InputError, first_line
from rwp_jax.names import by_path


class Functions(NamedTuple):
    """A module as functions of trees of arrays; `batch_stats` is empty if it keeps none.

    Attributes:
      init: (key, image_shape) -> (params, batch_stats).
      train: (params, batch_stats, images) -> (logits, updated batch_stats).
      eval: (params, batch_stats, images) -> logits.
    """

    init: Callable
    train: Callable
    eval: Callable


def linen_functions(make: Callable[[], linen.Module], name: str) -> Functions:
    module = _made(make, name, linen.Module)
    if "train" not in inspect.signature(type(module).__call__).parameters:
        raise InputError(f"make_module={name}: its __call__ must take train, True while training")

    def init(key, image_shape):
        variables = module.init(key, jnp.zeros((1, *image_shape)), train=False)
        others = sorted(variables.keys() - {"params", "batch_stats"})
        if others:
            raise InputError(
                f"make_module={name}: it keeps {', '.join(others)} in addition to params and batch_stats"
            )
        return variables.get("params", {}), variables.get("batch_stats", {})

    def train(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, updated.get("batch_stats", {})

    def evaluate(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return module.apply(variables, images, train=False)

    return Functions(init, train, evaluate)


def nnx_functions(make: Callable[..., nnx.Module], name: str) -> Functions:
    module = nnx.eval_shape(lambda: _made(lambda: make(rngs=nnx.Rngs(0)), name, nnx.Module))
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    params, batch_stats, others = states
    if jax.tree.leaves(others):
        raise InputError(
            f"make_module={name}: it keeps {', '.join(sorted(_flat(others)))} in addition to nnx.Param "
            "and nnx.BatchStat (random draws, as of dropout, are not supported)"
        )

    def merged(flat_params, flat_stats):
        return nnx.merge(graph, _like(params, flat_params), _like(batch_stats, flat_stats))

    def init(key, image_shape):
        del image_shape  # an nnx module has its sizes from its constructor
        _, *states = nnx.split(make(rngs=nnx.Rngs(key)), nnx.Param, nnx.BatchStat)
        return tuple(map(_flat, states))

    def train(flat_params, flat_stats, images):
        module = merged(flat_params, flat_stats)
        module.train()
        logits = module(images)
        return logits, _flat(nnx.state(module, nnx.BatchStat))

    def evaluate(flat_params, flat_stats, images):
        module = merged(flat_params, flat_stats)
        module.eval()
        return module(images)

    return Functions(init, train, evaluate)


def _made(make: Callable, name: str, kind: type):
    """Makes the module; raises InputError if that fails or gives another kind of module."""
    try:
        module = make()
    except Exception as error:  # whatever the user's module raises
        described = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"make_module={name} cannot be called: {described}") from error
    if not isinstance(module, kind):
        wanted = f"{kind.__module__.split('.')[1]}.Module"
        raise InputError(
            f"make_module={name} makes a {type(module).__name__}, must make a {wanted}"
        )
    return module


def _flat(state) -> dict[str, Any]:
    """Flattens an nnx state to one dict, path -> array: checkpoints do not support numbers in paths."""
    return by_path(state, ".")


def _like(state, flat: dict[str, Any]):
    """Returns the arrays of a dict from `_flat` as a state with the structure of `state`."""
    return jax.tree.unflatten(jax.tree.structure(state), [flat[name] for name in _flat(state)])
