"""A network as AutoAttack sees it: a pure function, and the arrays that it closes over."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from rwp_jax.errors import InputError


class Model(NamedTuple):
    """A network whose weights are arguments of the compiled programs, not constants inside them.

    So programs stay small, and another checkpoint of the same network needs no new ones. Not so on the
    CPU, whose compiler arranges constant weights beforehand: with wrn-10-2 a forward pass took 0.6 ms an
    image, as an argument 1.1 ms (jaxlib 0.10.2, 2 cores).

    Attributes:
      weights: arrays that the user's function closes over; none on the CPU.
      apply: (weights, images [B, H, W, C], key) -> logits [B, classes], in the dtype of the images.
      num_classes: width of the logits.
      randomized: whether the user's function takes a key.
    """

    weights: Any
    apply: Callable
    num_classes: int
    randomized: bool


def make_model(logits_fn: Callable, image_shape: tuple[int, ...], randomized: bool) -> Model:
    """Wraps logits_fn, of (images) or, where `randomized`, of (images, key).

    Raises:
      InputError: unless it returns floating-point logits [B, classes] with two classes at least.
    """
    takes_key = logits_fn if randomized else lambda images, key: logits_fn(images)

    def trace(images, key):
        return jax.make_jaxpr(takes_key)(
            jax.ShapeDtypeStruct(images.shape, images.dtype), jax.random.key(0)
        )

    def apply(weights, images, key):
        if not weights:
            return takes_key(images, key).astype(images.dtype)
        # Traced anew for each batch size; what is closed over comes in the same order every time.
        program = ClosedJaxpr(trace(images, key).jaxpr, weights)
        (logits,) = jaxpr_as_fun(program)(images, key)
        return logits.astype(images.dtype)

    probe = trace(jax.ShapeDtypeStruct((2, *image_shape), jnp.float32), None)
    outputs = probe.out_avals
    described = ", ".join(f"{o.dtype}{list(o.shape)}" for o in outputs)
    if (
        len(outputs) != 1
        or outputs[0].ndim != 2
        or outputs[0].shape[0] != 2
        or outputs[0].shape[1] < 2
        or not jnp.issubdtype(outputs[0].dtype, jnp.floating)
    ):
        raise InputError(
            f"logits_fn returns {described} for two images: it must return floating-point logits "
            "[B, classes] with two classes at least"
        )
    weights = () if jax.default_backend() == "cpu" else probe.consts
    return Model(weights, apply, outputs[0].shape[1], randomized)
