"""The decays of a module's running statistics, found by running it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.errors import InputError


def _filled(shapes, value):
    """A tree of arrays of these shapes that hold `value`."""
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), shapes)


def find_decays(train: Callable, params, batch_stats, images: np.ndarray, name: str):
    """How much of each running statistic a forward in training mode leaves.

    Args:
      train: as `modules.Functions.train`.
      params: shapes of its parameters.
      batch_stats: shapes of its running statistics.
      images: zeros, two images [2, H, W, C].
      name: of the module, in messages.

    Returns:
      Tree of NumPy arrays in [0, 1], of the structure of batch_stats.

    Raises:
      InputError: where the statistics are no moving averages of batch moments, or enter the logits.
    """
    run = jax.jit(train)
    # Weights and images of zero have moments of zero: what is left of a statistic is the decay.
    # A module that divides a weight by its norm gives NaN there; its weights are one.
    for weight in (0, 1):
        weights, stats = _filled(params, weight), [_filled(batch_stats, v) for v in (0, 1, 2)]
        at = jax.device_get([run(weights, before, images)[1] for before in stats])
        if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(at)):
            break
    _check_uses_batch_moments(run, params, batch_stats, images, name)
    decays = jax.tree.map(lambda zero, one: one - zero, *at[:2])
    straight = jax.tree.map(lambda zero, one, two: np.allclose(two - one, one - zero), *at)
    if not all(jax.tree.leaves(straight)):
        raise InputError(
            f"make_module={name}: its running statistics are no moving averages of batch moments"
        )
    return decays


def _check_uses_batch_moments(run: Callable, params, batch_stats, images, name: str) -> None:
    """Raises InputError where running statistics, zero here while training, enter the logits."""
    draw = np.random.default_rng(0).standard_normal
    drawn = lambda leaf: np.asarray(draw(leaf.shape), leaf.dtype)
    params, images = jax.tree.map(drawn, params), drawn(images)
    one, two = (np.asarray(run(params, _filled(batch_stats, v), images)[0]) for v in (1, 2))
    if not np.array_equal(one, two, equal_nan=True):
        raise InputError(
            f"make_module={name}: its logits while training depend on its running statistics; "
            "BatchNorm must normalise by the batch's moments there (use_running_average=not train)"
        )
