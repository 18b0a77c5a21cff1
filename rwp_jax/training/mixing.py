"""CutMix over the global batch: every image receives a box of the next one (Yun et al., 2019)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.training.objective import Mixed


def _with_next(values, axis_name: str | None):
    """Returns this device's values [B] of the global batch and the one after them, [B + 1], cyclically."""
    first = values[:1]
    if axis_name:
        count = lax.axis_size(axis_name)
        first = lax.ppermute(first, axis_name, [((i + 1) % count, i) for i in range(count)])
    return jnp.concatenate([values, first])


def mixed_batch(
    cutmix: Callable,
    augment: Callable,
    images,
    labels,
    weights,
    position,
    step_key,
    axis_name: str | None,
):
    """Returns this device's part of a batch whose images are mixed with the next ones.

    The order of a batch is random, so the next example is a random one. Both images are augmented before,
    as without CutMix. The weight of a mixed example is the mean of both, by the shares of the images.

    Args:
      cutmix: (keys [B], images, partners) -> (images, share of each image that is its own), see
        `data.cutmix`.
      augment: (keys [B], images uint8 [B, H, W, C]) -> images of the same kind.
      images: this device's part of the batch, uint8 [B, H, W, C].
      labels: of these images [B], not -1.
      weights: of their losses [B].
      position: [B] of these images in the global batch.
      step_key: random key of the step.
      axis_name: mapped axis over which the batch is split, None on a single device.

    Returns:
      Images uint8 [B, H, W, C], the labels [B] of their larger shares, weights [B], and `Mixed`.
    """
    parts = images, labels, weights, position
    images, labels, weights, position = (_with_next(values, axis_name) for values in parts)
    keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(position)
    # The first two keys of an example are those of its augmentation and of its random start.
    own = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
    cut = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys[:-1])
    images = augment(own, images)
    images, kept = cutmix(cut, images[:-1], images[1:])
    weights = weights.astype(kept.dtype)
    weight = kept * weights[:-1] + (1 - kept) * weights[1:]
    larger = kept >= 0.5  # of the two, the image's own share
    y = jnp.where(larger, labels[:-1], labels[1:])
    other = jnp.where(larger, labels[1:], labels[:-1])
    return images, y, weight, Mixed(other, jnp.maximum(kept, 1 - kept))
