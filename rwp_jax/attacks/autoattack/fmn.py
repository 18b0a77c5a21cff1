"""FMN, the fast minimum-norm attack (Pintor et al., 2021, arXiv:2102.12827, Algorithm 1)."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.fab import FabResult
from rwp_jax.attacks.autoattack.l1_projection import l1_correction
from rwp_jax.attacks.autoattack.margins import margin, misclassified
from rwp_jax.attacks.autoattack.search import per_image, tamed
from rwp_jax.attacks.threat_model import l_2_norms

_EPS = 1e-12
_DUAL = {"l_inf": "l_1", "l_2": "l_2", "l_1": "l_inf"}


class FmnSettings(NamedTuple):
    """Settings of FMN, by default the paper's. Step size and gamma decay along half a cosine.

    Attributes:
      step_size: initial length of a step in L_2; the final length is a hundredth of it.
      gamma: initial relative change of the radius.
      last_gamma: final relative change of the radius.
    """

    step_size: float = 1.0
    gamma: float = 0.05
    last_gamma: float = 0.001


def norms(delta, norm: str):
    """Norms [B] of perturbations [B, H, W, C]."""
    size = jnp.abs(delta)
    if norm == "l_2":
        return l_2_norms(delta)[:, 0, 0, 0]
    return size.max((1, 2, 3)) if norm == "l_inf" else size.sum((1, 2, 3))


def project(delta, x, norm: str, radius):
    """Projects perturbations into balls of radius [B] around x."""
    if norm == "l_1":
        return delta + l1_correction(x, delta, radius)
    radius = per_image(radius)
    if norm == "l_inf":
        return jnp.clip(delta, -radius, radius)
    return delta * jnp.minimum(1, radius / jnp.maximum(l_2_norms(delta), _EPS))


def fmn(
    loss_and_gradient: Callable,
    x,
    *,
    norm: str,
    steps: int = 100,
    settings: FmnSettings | None = None,
) -> FabResult:
    """Finds the closest misclassified image by gradient descent in a ball of changing radius.

    Until a misclassified point is found, the ball extends to the linearised boundary. A misclassified point
    shrinks the ball; a correctly classified one enlarges it.

    Args:
      loss_and_gradient: points [B, H, W, C] -> (margin [B], its gradient, whether misclassified [B]).
      x: clean images in [0, 1].
      norm: norm of the distance to minimise, `l_inf`, `l_2` or `l_1`.
      steps: number of iterations.
      settings: settings of FMN; default the paper's.
    """
    settings = settings or FmnSettings()
    furthest = norms(jnp.maximum(x, 1 - x), norm)

    def step(i, carry):
        delta, radius, best = carry
        point = jnp.clip(x + delta, 0, 1)
        margins, gradient, fooled = loss_and_gradient(point)
        scale = tamed(gradient)
        gradient, margins = gradient * per_image(scale), margins * scale
        size = norms(point - x, norm)
        closer = fooled & ~(size >= best.distance)  # includes NaN, which the caller detects
        best = FabResult(
            jnp.where(per_image(closer), point, best.x_adv), jnp.where(closer, size, best.distance)
        )

        falling = (1 + jnp.cos(jnp.pi * i / steps)) / 2
        gamma = settings.last_gamma + (settings.gamma - settings.last_gamma) * falling
        length = settings.step_size * (0.01 + 0.99 * falling)
        to_boundary = jnp.abs(margins) / (norms(gradient, _DUAL[norm]) + _EPS)
        found = jnp.isfinite(best.distance)
        # Unlike in the paper, the ball exceeds the boundary by gamma: on it, a linear network never errs.
        reach = jnp.where(found, radius, size + to_boundary) * (1 + gamma)
        radius = jnp.where(
            fooled, jnp.minimum(radius * (1 - gamma), best.distance * (1 - gamma)), reach
        )
        radius = jnp.minimum(radius, furthest).astype(x.dtype)
        descent = -gradient / (l_2_norms(gradient) + _EPS)
        delta = project(delta + (length * descent).astype(x.dtype), x, norm, radius)
        return jnp.clip(x + delta, 0, 1) - x, radius, best

    nothing = FabResult(x, jnp.full(len(x), jnp.inf, x.dtype))
    begin = jnp.zeros_like(x), jnp.full(len(x), jnp.inf, x.dtype), nothing
    return lax.fori_loop(0, steps, step, begin)[2]


def margins_of(logits, y):
    """Returns margins [B], positive for correct examples, and whether each example is misclassified."""
    return margin(logits, y), misclassified(logits, y)
