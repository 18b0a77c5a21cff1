"""Finds the decays of a module's running statistics by running it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.errors import InputError

_LARGE = 1e3  # a statistic far from all moments here
_ROUNDING = 1e-3  # tolerance of decays, for bfloat16


def _filled(shapes, value):
    """Returns a tree of arrays of these shapes, filled with `value`."""
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), shapes)


def _drawn(shapes, rng=None):
    """Returns a tree of arrays of these shapes, normally distributed."""
    rng = rng or np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.asarray(rng.standard_normal(leaf.shape), leaf.dtype), shapes
    )


def find_decays(train: Callable, params, batch_stats, images: np.ndarray, name: str):
    """Returns the decay of each running statistic: the factor that a training-mode forward applies.

    Args:
      train: as `modules.Functions.train`.
      params: shapes of its parameters.
      batch_stats: shapes of its running statistics.
      images: zeros, two images [2, H, W, C].
      name: name of the module, for messages.

    Returns:
      Tree of NumPy arrays in [0, 1], of the structure of batch_stats.

    Raises:
      InputError: if the statistics are not moving averages of batch moments, or affect the logits.
    """
    run = jax.jit(train)
    # Zero weights and images have zero moments, so only the decayed statistic is left. A module that
    # divides weights by their norm gives NaN for zeros, and for ones if it first subtracts their mean.
    for weights in (_filled(params, 0), _filled(params, 1), _drawn(params)):
        stats = [_filled(batch_stats, value) for value in (0, 1, _LARGE)]
        at = jax.device_get([run(weights, before, images)[1] for before in stats])
        if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(at)):
            break
    decays = jax.tree.map(lambda zero, one: one - zero, *at[:2])
    straight = lambda zero, decay, large: np.allclose(large - zero, _LARGE * decay)
    if not all(jax.tree.leaves(jax.tree.map(straight, at[0], decays, at[2]))):
        raise _no_moving_averages(name)
    for decay in jax.tree.leaves(decays):
        if not (decay.min(initial=0) >= -_ROUNDING and decay.max(initial=0) <= 1 + _ROUNDING):
            wrong = decay.flat[np.abs(decay - 0.5).argmax()]
            raise InputError(
                f"make_module={name}: a forward multiplies its running statistics by {wrong:.3g}, must be "
                "the decay of a moving average, in [0, 1]"
            )
    _check(run, decays, params, batch_stats, images, name)
    return decays


def _no_moving_averages(name: str) -> InputError:
    return InputError(
        f"make_module={name}: its running statistics are not moving averages of batch moments"
    )


def _check(run: Callable, decays, params, batch_stats, images, name: str) -> None:
    """Raises InputError unless the decays also hold for random weights, images and statistics."""
    rng = np.random.default_rng(0)
    params, images = _drawn(params, rng), _drawn(images, rng)
    # Not multiples of each other, which would hide a statistic that is a direction (SpectralNorm's).
    befores = [_filled(batch_stats, 0)] + [_drawn(batch_stats, rng) for _ in range(2)]
    logits, updated = zip(*jax.device_get([run(params, b, images) for b in befores]), strict=True)
    if not all(np.array_equal(logits[0], other, equal_nan=True) for other in logits[1:]):
        raise InputError(
            f"make_module={name}: its logits while training depend on its running statistics; "
            "BatchNorm must normalise by the batch's moments there (use_running_average=not train)"
        )
    for before, after in zip(befores[1:], updated[1:], strict=True):
        expected = jax.tree.map(lambda r, b, decay: r + decay * b, updated[0], before, decays)
        close = lambda a, b: np.allclose(
            a, b, equal_nan=True, rtol=1e-3, atol=1e-3 * (1 + np.abs(b).max(initial=0))
        )
        if not all(jax.tree.leaves(jax.tree.map(close, after, expected))):
            raise _no_moving_averages(name)
