"""Cache of compiled functions that evaluations share, and the keys that identify them."""

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

_MOST = 32  # functions; each holds its compiled programs and the network they were made from
_kept: collections.OrderedDict = collections.OrderedDict()


def kept(key: Hashable | None, make: Callable[[], Any]) -> Any:
    """Returns the cached result of `make` for an equal key on the same devices, or calls `make`.

    With key None, nothing is cached.
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
    """Empties the cache."""
    _kept.clear()


class Latest:
    """The network of the latest evaluation, from which cached functions trace new shapes."""

    def __init__(self, model: Any):
        self.model, self.randomized = model, model.randomized

    def apply(self, weights, images, key):
        return self.model.apply(weights, images, key)


def kept_for(model: Any, key: Hashable, make: Callable[[Latest], Any]) -> Any:
    """Returns `kept` for a network and a further key; `make` takes the network to trace."""

    def remember():
        latest = Latest(model)
        return latest, make(latest)

    latest, functions = kept(model.program_key and (model.program_key, key), remember)
    latest.model = model
    return functions


class Derivative(NamedTuple):
    """Derivative of a network with respect to images.

    Attributes:
      program: traced derivative; None if the network has none.
      error: reason why it has none.
    """

    program: ClosedJaxpr | None
    error: str = ""


def differentiated(program: ClosedJaxpr, weights_are_arguments: bool) -> Derivative:
    """Traces the derivative of (images, key) -> logits.

    It identifies custom derivatives, which the text of the traced network does not show. If weights are
    arguments, the derivative closes over only the arrays of custom derivatives, which stay constants of
    compiled programs.
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
    except Exception as error:  # raised by the user's function
        return Derivative(None, f"{type(error).__name__}: {first_line(error)}")


def program_key(
    programs: Sequence[ClosedJaxpr], derivative: Derivative, as_arguments: bool
) -> str | None:
    """Returns a key that is equal for networks that can share compiled programs.

    Args:
      programs: the network as traced for several numbers of images.
      derivative: derivative of the network, see `differentiated`.
      as_arguments: whether the arrays that it closes over are arguments of the compiled programs.

    Returns:
      A digest, or None for networks that cannot be identified: those with Python callbacks or without a
      gradient.
    """
    if derivative.program is None or any(map(calls_back, (*programs, derivative.program))):
        return None
    digest = operations_digest if as_arguments else program_digest
    texts = [digest(program) for program in programs] + [program_digest(derivative.program)]
    shapes = [(np.shape(array), jnp.result_type(array)) for array in programs[0].consts]
    return hashlib.sha256(f"{texts} {shapes if as_arguments else ''}".encode()).hexdigest()
