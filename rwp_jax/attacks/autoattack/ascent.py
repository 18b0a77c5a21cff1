"""What APGD has in every norm: a loss with its gradient, and what is kept of the points it evaluates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.margins import misclassified
from rwp_jax.attacks.autoattack.search import Job, per_image, tamed


class ApgdResult(NamedTuple):
    """What one restart found.

    Attributes:
      robust: [B] bool, whether no iterate was misclassified.
      x_adv: the last misclassified iterate; where there was none, the start.
      x_best: the iterate of the largest loss, misclassified or not.
      loss_best: [B] its loss.
    """

    robust: jnp.ndarray
    x_adv: jnp.ndarray
    x_best: jnp.ndarray
    loss_best: jnp.ndarray


def nothing_yet(start) -> ApgdResult:
    """Before the start [B, H, W, C] is evaluated."""
    per_example = lambda value, dtype: jnp.full(len(start), value, dtype)
    return ApgdResult(per_example(True, bool), start, start, per_example(-jnp.inf, start.dtype))


def evaluate(loss: Callable, eot: int, logits_fn: Callable, job: Job, point, key):
    """Losses [B], their gradients, and whether each point is classified as y.

    Args:
      loss: (logits, job) -> [B].
      eot: evaluations of a randomised network that a gradient is averaged over.
      logits_fn: (images, key) -> logits.
      job: whom the points are for.
      point: [B, H, W, C].
      key: of a randomised network.
    """

    def once(key):
        def total(point):
            logits = logits_fn(point, key)
            losses = loss(logits, job).astype(point.dtype)
            return losses.sum(), (losses, ~misclassified(logits, job.y))

        gradient, aux = jax.grad(total, has_aux=True)(point)
        return gradient * per_image(tamed(gradient)), aux  # its direction counts

    if eot == 1:
        gradient, (losses, correct) = once(key)
        return losses, gradient, correct

    def add(total, key):
        gradient, aux = once(key)
        return total + gradient, aux

    # As the official code: of losses and verdicts, the last evaluation's count.
    gradient, aux = lax.scan(add, jnp.zeros_like(point), jax.random.split(key, eot))
    losses, correct = (values[-1] for values in aux)
    return losses, gradient / eot, correct


def keep(result: ApgdResult, gradient_best, point, losses, gradient, correct):
    """Result, and gradient at its best point, with one more point that was evaluated."""
    better = losses > result.loss_best
    gradient_best = jnp.where(per_image(better), gradient, gradient_best)
    result = ApgdResult(
        robust=result.robust & correct,
        x_adv=jnp.where(per_image(correct), result.x_adv, point),
        x_best=jnp.where(per_image(better), point, result.x_best),
        loss_best=jnp.maximum(losses, result.loss_best),
    )
    return result, gradient_best
