"""Finds images at which a network gives the attacks no gradient to follow."""

import jax
import numpy as np

from rwp_jax.attacks.autoattack.kept import kept_for
from rwp_jax.attacks.autoattack.margins import margin
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.distributed import devices


def without_gradient(model: Model, x: np.ndarray, y: np.ndarray, size: int) -> int:
    """Counts the images whose margin has a gradient of exactly zero.

    The margin, a difference of two logits, does not vanish by rounding as the cross-entropy of a confident
    network does.

    Args:
      model: the network.
      x: images float32 [N, H, W, C].
      y: labels [N].
      size: number of images at a time, a multiple of the number of devices.
    """

    def make(latest):
        def is_zero(weights, images, labels):
            total = lambda points: margin(
                latest.apply(weights, points, jax.random.key(0)), labels
            ).sum()
            return (jax.grad(total)(images) == 0).all((1, 2, 3))

        return devices.over_examples(is_zero, (False, True, True))

    is_zero, count = kept_for(model, ("margin gradient",), make), 0
    for i in range(0, len(x), size):
        part = np.arange(i, min(i + size, len(x)))
        padded = np.concatenate([part, np.repeat(part[:1], size - len(part))])
        count += int(np.asarray(is_zero(model.weights, x[padded], y[padded]))[: len(part)].sum())
    return count
