"""Parts of APGD common to all norms: loss and gradient of points, and the record of the best points."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.attacks.autoattack.margins import misclassified
from rwp_jax.attacks.autoattack.search import Job, per_image, tamed


class ApgdResult(NamedTuple):
    """Result of one restart.

    Attributes:
      robust: [B] bool, whether no iterate was misclassified.
      x_adv: the last misclassified iterate, or the start if there was none.
      x_best: the iterate with the largest loss, misclassified or not.
      loss_best: [B] loss of x_best.
    """

    robust: jnp.ndarray
    x_adv: jnp.ndarray
    x_best: jnp.ndarray
    loss_best: jnp.ndarray


def nothing_yet(start) -> ApgdResult:
    """The result before the start [B, H, W, C] is evaluated."""
    per_example = lambda value, dtype: jnp.full(len(start), value, dtype)
    return ApgdResult(per_example(True, bool), start, start, per_example(-jnp.inf, start.dtype))


def evaluate(loss: Callable, eot: int, logits_fn: Callable, job: Job, point, key):
    """Returns losses [B], their gradients, and whether each point is classified as y.

    Args:
      loss: (logits, job) -> [B].
      eot: number of evaluations of a randomised network over which each gradient is averaged.
      logits_fn: (images, key) -> logits.
      job: images, labels and targets of the searches.
      point: points [B, H, W, C].
      key: random key of a randomised network.
    """

    def once(key):
        def total(point):
            logits = logits_fn(point, key)
            losses = loss(logits, job).astype(point.dtype)
            return losses.sum(), (losses, ~misclassified(logits, job.y))

        gradient, aux = jax.grad(total, has_aux=True)(point)
        return gradient * per_image(tamed(gradient)), aux  # only its direction matters

    if eot == 1:
        gradient, (losses, correct) = once(key)
        return losses, gradient, correct

    def add(total, key):
        gradient, aux = once(key)
        return total + gradient, aux

    # As in the official code, losses and verdicts are those of the last evaluation.
    gradient, aux = lax.scan(add, jnp.zeros_like(point), jax.random.split(key, eot))
    losses, correct = (values[-1] for values in aux)
    return losses, gradient / eot, correct


def keep(result: ApgdResult, gradient_best, point, losses, gradient, correct):
    """Updates the result, and the gradient at its best point, with a newly evaluated point."""
    better = losses > result.loss_best
    gradient_best = jnp.where(per_image(better), gradient, gradient_best)
    result = ApgdResult(
        robust=result.robust & correct,
        x_adv=jnp.where(per_image(correct), result.x_adv, point),
        x_best=jnp.where(per_image(better), point, result.x_best),
        loss_best=jnp.maximum(losses, result.loss_best),
    )
    return result, gradient_best
