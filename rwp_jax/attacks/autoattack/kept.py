"""Compiled functions that are kept from one evaluation to the next, and by what they are told apart."""

import collections
import hashlib
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from rwp_jax.attacks.autoattack.equations import calls_back
from rwp_jax.models.traced import operations_digest, program_digest, same_arrays

_MOST = 32  # functions; each holds its compiled programs and the network that they were made from
_kept: collections.OrderedDict = collections.OrderedDict()


def kept(key: Hashable | None, make: Callable[[], Any]) -> Any:
    """What `make` returned for an equal key before, on the same devices, or what it returns now.

    With the key None nothing is kept.
    """
    if key is None:
        return make()
    key = key, tuple(jax.local_devices())
    if key not in _kept:
        _kept[key] = make()
        if len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def forget() -> None:
    """Frees what is kept."""
    _kept.clear()


def program_key(network: Callable, program: ClosedJaxpr, as_arguments: bool) -> str | None:
    """What is equal for networks that the same compiled programs serve.

    The text of a traced function names custom derivatives, it does not show them: the key is of the traced
    derivative too.

    Args:
      network: images float32 [B, H, W, C] -> logits [B, classes].
      program: as traced.
      as_arguments: whether the arrays that it closes over are arguments of the compiled programs.

    Returns:
      None for networks that cannot be told apart so: with callbacks to Python, or without a gradient.
    """
    if calls_back(program):
        return None
    images, logits = program.in_avals[0], program.out_avals[0]
    shape = lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype)

    def gradient(images, cotangent):
        return jax.vjp(network, images)[1](cotangent)

    try:
        derivative = jax.make_jaxpr(gradient)(shape(images), shape(logits))
    except Exception:  # of the user's function
        return None
    if calls_back(derivative):
        return None
    if not as_arguments:
        return program_digest(program) + program_digest(derivative)
    # Arrays of the derivative alone stay constants of the compiled programs.
    of_network = lambda array: any(same_arrays([array], [other]) for other in program.consts)
    others = [array for array in derivative.consts if not of_network(array)]
    text = operations_digest(program) + operations_digest(derivative, others)
    shapes = [(array.shape, jnp.result_type(array)) for array in program.consts]
    return hashlib.sha256(f"{text} {shapes}".encode()).hexdigest()
