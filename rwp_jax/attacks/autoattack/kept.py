"""Compiled functions that are kept from one evaluation to the next, and by what they are told apart."""

import collections
import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from rwp_jax.attacks.autoattack.equations import calls_back
from rwp_jax.errors import first_line
from rwp_jax.models.traced import operations_digest, program_digest

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


class Latest:
    """The network of the latest evaluation, by which kept functions trace new shapes."""

    def __init__(self, model: Any):
        self.model, self.randomized = model, model.randomized

    def apply(self, weights, images, key):
        return self.model.apply(weights, images, key)


def kept_for(model: Any, key: Hashable, make: Callable[[Latest], Any]) -> Any:
    """`kept` for a network and whatever else `key` tells apart; `make` is given the network to trace."""

    def remember():
        latest = Latest(model)
        return latest, make(latest)

    latest, functions = kept(model.program_key and (model.program_key, key), remember)
    latest.model = model
    return functions


class Derivative(NamedTuple):
    """Of a network with respect to images.

    Attributes:
      program: as traced; None where there is none.
      error: why there is none.
    """

    program: ClosedJaxpr | None
    error: str = ""


def differentiated(program: ClosedJaxpr, weights_are_arguments: bool) -> Derivative:
    """The traced derivative of (images, key) -> logits, whose custom derivatives a text does not show.

    Where weights are arguments, arrays that it still closes over are those of custom derivatives: they stay
    constants of compiled programs.
    """
    images, logits = program.in_avals[0], program.out_avals[0]
    shape = lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype)

    def gradient(weights, images, cotangent):
        inner = ClosedJaxpr(program.jaxpr, weights)
        logits_of = lambda images: jaxpr_as_fun(inner)(images, jax.random.key(0))[0]
        return jax.vjp(logits_of, images)[1](cotangent)

    arguments = shape(images), shape(logits)
    try:
        if weights_are_arguments:
            weights = [jax.ShapeDtypeStruct(np.shape(w), w.dtype) for w in program.consts]
            return Derivative(jax.make_jaxpr(gradient)(weights, *arguments))
        constant = lambda *arguments: gradient(program.consts, *arguments)
        return Derivative(jax.make_jaxpr(constant)(*arguments))
    except Exception as error:  # of the user's function
        return Derivative(None, f"{type(error).__name__}: {first_line(error)}")


def program_key(
    programs: Sequence[ClosedJaxpr], derivative: Derivative, as_arguments: bool
) -> str | None:
    """What is equal for networks that the same compiled programs serve.

    Args:
      programs: the network as traced for several numbers of images.
      derivative: see `differentiated`.
      as_arguments: whether the arrays that it closes over are arguments of the compiled programs.

    Returns:
      None for networks that cannot be told apart so: with callbacks to Python, or without a gradient.
    """
    if derivative.program is None or any(map(calls_back, (*programs, derivative.program))):
        return None
    digest = operations_digest if as_arguments else program_digest
    texts = [digest(program) for program in programs] + [program_digest(derivative.program)]
    shapes = [(np.shape(array), jnp.result_type(array)) for array in programs[0].consts]
    return hashlib.sha256(f"{texts} {shapes if as_arguments else ''}".encode()).hexdigest()
