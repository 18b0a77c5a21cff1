"""The network as AutoAttack uses it: a pure function and the arrays that it closes over."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from rwp_jax.attacks.arguments import check_logits, logits_fn_named
from rwp_jax.attacks.autoattack.kept import differentiated, program_key
from rwp_jax.distributed.devices import replicate_on_this_host
from rwp_jax.models.traced import program_digest, same_arrays


class Model(NamedTuple):
    """A network whose weights are arguments of the compiled programs, not constants inside them.

    Programs thus stay small and serve other checkpoints of the same network. On CPUs, whose compiler
    rearranges constant weights in advance, weights are arguments only on demand: with wrn-10-2, a forward
    pass took 0.6 ms per image with constants and 1.1 ms with arguments (jaxlib 0.10.2, 2 cores).

    Attributes:
      weights: arrays that the user's function closes over, on all devices; empty if they are constants.
      apply: (weights, images [B, H, W, C], key) -> logits [B, classes], in the dtype of the images.
      num_classes: number of classes.
      randomized: whether the user's function takes a key.
      program: the network as traced for two images.
      digest: digest of its operations, those of its derivative and the arrays that they close over.
      program_key: key of its compiled programs, see `kept.program_key`.
      no_gradient: reason why it has no derivative with respect to images; empty if it has one.
    """

    weights: Any
    apply: Callable
    num_classes: int
    randomized: bool
    program: ClosedJaxpr
    digest: str
    program_key: str | None
    no_gradient: str


def make_model(
    logits_fn: Callable,
    image_shape: tuple[int, ...],
    randomized: bool,
    platform: str | None = None,
    reuse: bool = False,
) -> Model:
    """Wraps logits_fn, a function of (images) or, if `randomized`, of (images, key).

    Args:
      logits_fn: the network.
      image_shape: (H, W, C).
      randomized: whether logits_fn takes a key.
      platform: platform of the programs, by default JAX's default backend.
      reuse: whether weights are arguments on the CPU too.

    Raises:
      InputError: if logits_fn cannot be traced or does not return floating-point logits [B, classes] of at
        least two classes.
    """

    def takes_key(images, key):
        logits = logits_fn(images, key) if randomized else logits_fn(images)
        if not isinstance(logits, jax.Array | np.ndarray):
            check_logits(logits, images.shape)
        return logits

    def trace(images, key):
        return jax.make_jaxpr(takes_key)(
            jax.ShapeDtypeStruct(images.shape, images.dtype), jax.random.key(0)
        )

    def apply(weights, images, key):
        if not weights:
            return takes_key(images, key).astype(images.dtype)
        # Traced anew for each batch size; the order of the closed-over arrays is always the same.
        program = ClosedJaxpr(trace(images, key).jaxpr, weights)
        (logits,) = jaxpr_as_fun(program)(images, key)
        return logits.astype(images.dtype)

    images_of = lambda count: jax.ShapeDtypeStruct((count, *image_shape), jnp.float32)
    with logits_fn_named((2, *image_shape), "(images, key)" if randomized else "(images)"):
        probe, other = (trace(images_of(count), None) for count in (2, 3))
    num_classes = check_logits(probe.out_avals[0], (2, *image_shape))
    # Constants that depend on the number of images are not weights.
    platform = platform or jax.default_backend()
    hoist = (reuse or platform != "cpu") and same_arrays(probe.consts, other.consts)
    weights = replicate_on_this_host(probe.consts) if hoist else ()
    constant = differentiated(probe, False)
    derivative = differentiated(probe, True) if hoist else constant
    key = program_key((probe, other), derivative, hoist)
    digest = program_digest(probe)
    if constant.program is not None:
        digest = hashlib.sha256((digest + program_digest(constant.program)).encode()).hexdigest()
    return Model(weights, apply, num_classes, randomized, probe, digest, key, constant.error)
