"""FAB, the fast adaptive boundary attack (Croce and Hein, 2020, arXiv:1907.02044), as the official code."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.box_projection import project_onto_plane
from rwp_jax.attacks.autoattack.margins import logits_of


class FabResult(NamedTuple):
    """What one restart found.

    Attributes:
      x_adv: the closest misclassified image found; the clean one where there was none.
      distance: [B] its distance from the clean image, inf where there was none.
    """

    x_adv: jnp.ndarray
    distance: jnp.ndarray


def _flat(x):
    return x.reshape(len(x), -1)


def _length(delta, norm: str):
    """Norms [B] of perturbations [B, ...]."""
    flat = _flat(delta)
    return jnp.abs(flat).max(-1) if norm == "Linf" else jnp.sqrt(jnp.square(flat).sum(-1))


def targeted_boundary(logits_fn: Callable, y, targets) -> Callable:
    """x -> (z_t - z_y [B], its gradient): the boundary to one class."""

    def boundary(x):
        def total(x):
            logits = logits_fn(x)
            difference = logits_of(logits, targets) - logits_of(logits, y)
            return difference.sum(), difference

        gradient, difference = jax.grad(total, has_aux=True)(x)
        return difference, gradient

    return boundary


def nearest_boundary(logits_fn: Callable, y, norm: str) -> Callable:
    """x -> (z_c - z_y [B], its gradient) of the class c whose linearised boundary is nearest."""

    def boundary(x):
        logits, pullback = jax.vjp(logits_fn, x)
        classes = logits.shape[-1]
        one_hot = jax.nn.one_hot(y, classes, dtype=logits.dtype)
        cotangent = lambda c: jax.nn.one_hot(c, classes, dtype=logits.dtype) - one_hot
        gradients = lax.map(lambda c: pullback(cotangent(c))[0], jnp.arange(classes))
        differences = logits - jnp.sum(logits * one_hot, -1, keepdims=True)
        flat = gradients.reshape(classes, len(x), -1)
        dual = jnp.abs(flat).sum(-1) if norm == "Linf" else jnp.sqrt(jnp.square(flat).sum(-1))
        distances = jnp.where(one_hot > 0, jnp.inf, jnp.abs(differences) / (dual.T + 1e-12))
        nearest = jnp.argmin(distances, -1)
        rows = jnp.arange(len(x))
        return differences[rows, nearest], gradients[nearest, rows]

    return boundary


def fab(
    logits_fn: Callable,
    boundary: Callable,
    x,
    y,
    *,
    norm: str,
    steps: int = 100,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> FabResult:
    """One restart of FAB from the clean image.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes]; examples must not interact.
      boundary: see `targeted_boundary` and `nearest_boundary`.
      x: clean images, classified as y.
      y: labels [B].
      norm: `Linf` or `L2`, of the distance that is minimised.
      steps: iterations.
      alpha_max: largest share of the clean image's projection in a step.
      eta: overshoot over the linearised boundary.
      beta: how far back towards the clean image a misclassified point is drawn.
    """
    per_image = lambda values: values.reshape(-1, *[1] * (x.ndim - 1))

    def step(_, carry):
        point, result = carry
        difference, gradient = boundary(point)
        w = _flat(gradient)
        offset = jnp.sum(w * _flat(point), -1) - difference
        to_plane = lambda start: project_onto_plane(_flat(start), w, offset, norm).reshape(x.shape)
        d_point, d_clean = to_plane(point), to_plane(x)
        a_point, a_clean = (jnp.maximum(_length(d, norm), 1e-8) for d in (d_point, d_clean))
        alpha = per_image(jnp.minimum(a_point / (a_point + a_clean), alpha_max))
        mixed = (point + eta * d_point) * (1 - alpha) + (x + eta * d_clean) * alpha
        point = jnp.clip(mixed, 0, 1)

        fooled = jnp.argmax(logits_fn(point), -1) != y
        distance = _length(point - x, norm)
        closer = fooled & (distance < result.distance)
        result = FabResult(
            jnp.where(per_image(closer), point, result.x_adv),
            jnp.where(closer, distance, result.distance),
        )
        return jnp.where(per_image(fooled), x + beta * (point - x), point), result

    nothing = FabResult(x, jnp.full(len(x), jnp.inf, x.dtype))
    return lax.fori_loop(0, steps, step, (x, nothing))[1]
