"""BPDA: a backward pass through a substitute function (Athalye et al., 2018, arXiv:1802.00420)."""

from collections.abc import Callable
from typing import Any

import jax

from rwp_jax.attacks.arguments import check_logits, logits_fn_named
from rwp_jax.errors import InputError, check_function, function_of_the_user


def with_backward(
    logits_fn: Callable, gradient_fn: Any, image_shape: tuple[int, ...], randomized: bool
) -> Callable:
    """Returns logits_fn with the gradients of gradient_fn with respect to images.

    Args:
      logits_fn: (images) or, if `randomized`, (images, key) -> logits.
      gradient_fn: differentiable function of the same arguments; None leaves logits_fn unchanged.
      image_shape: (H, W, C).
      randomized: whether both take a key.

    Raises:
      InputError: if gradient_fn is not a function, fails or does not return logits of the same classes.
    """
    if gradient_fn is None:
        return logits_fn
    check_function("gradient_fn", gradient_fn)
    images = jax.ShapeDtypeStruct((2, *image_shape), "float32")
    keys = (jax.eval_shape(lambda: jax.random.key(0)),) if randomized else ()
    takes, classes = "(images, key)" if randomized else "(images)", {}
    for name, function in {"logits_fn": logits_fn, "gradient_fn": gradient_fn}.items():
        with logits_fn_named(images.shape, takes, name):
            logits = jax.eval_shape(function, images, *keys)
        classes[name] = check_logits(logits, images.shape, name)
    if classes["gradient_fn"] != classes["logits_fn"]:
        raise InputError(
            f"gradient_fn= returns logits of {classes['gradient_fn']} classes, must return "
            f"{classes['logits_fn']} classes as logits_fn does"
        )

    def pulled_back(images, *key):
        logits, pullback = jax.vjp(lambda images: gradient_fn(images, *key), images)
        return pullback(logits)

    with function_of_the_user("gradient_fn"):  # which may have no derivative
        jax.eval_shape(pulled_back, images, *keys)

    @jax.custom_vjp
    def network(images, *key):
        return logits_fn(images, *key)

    def forward(images, *key):
        return logits_fn(images, *key), (images, *key)

    def backward(residuals, cotangent):
        images, *key = residuals
        logits, pullback = jax.vjp(lambda images: gradient_fn(images, *key), images)
        return (*pullback(cotangent.astype(logits.dtype)), *(None for _ in key))

    network.defvjp(forward, backward)
    return network
