"""Sums over a batch of activations, and its moments over all devices.

Each way to compute them reads the activations once. XLA's compilers fuse and vectorise differently, so each
platform has its own.
"""

import functools
from typing import TypeGuard

import jax.numpy as jnp
from jax import lax

AXES = (0, 1, 2)  # of examples and positions, in activations [N, H, W, C]
_SUMS_AT_ONCE = 2**15  # parts times channels: fills an H100, at 64 to 640 channels


def sums_separately(one, two):
    """Returns the sums [C] of two arrays [N, H, W, C], by one reduction for each."""
    return one.sum(AXES), two.sum(AXES)


def _reduce_both(one, two, axes):
    """Returns both sums over the axes, by one reduction."""
    zero = jnp.zeros((), one.dtype)
    add = lambda these, those: (these[0] + those[0], these[1] + those[1])
    return tuple(lax.reduce((one, two), (zero, zero), add, axes))


def sums_together(one, two):
    """Returns the sums of `sums_separately` by one reduction."""
    return _reduce_both(one, two, AXES)


def sums_in_parts(one, two, *beside, stacked: bool = False):
    """Returns the sums of `sums_separately` by one reduction of parts and one of their sums.

    Args:
      one: [N, H, W, C].
      two: [N, H, W, C].
      *beside: rows [C] to stack below both sums.
      stacked: whether to stack the sums and these rows. Stacking them after the last reduction would take
        another kernel.
    """
    examples, channels = one.size // one.shape[-1], one.shape[-1]
    enough = -(-_SUMS_AT_ONCE // channels)
    parts = next((n for n in range(enough, examples) if examples % n == 0), 1)
    one, two = (array.reshape(parts, -1, channels) for array in (one, two))
    first, second = _reduce_both(one, two, (1,))
    if stacked:
        rows = [jnp.pad(row[None], ((0, parts - 1), (0, 0))) for row in beside]
        return jnp.concatenate([first, second, *rows], axis=1).sum(0).reshape(-1, channels)
    return _reduce_both(first, second, (0,))


def sums_of_both(one, two, *beside, stacked: bool = False):
    """Returns the sums [C] of two arrays [N, H, W, C] by the fastest way on the platform.

    The CPU compiler does not vectorise a reduction of two arrays. On TPUs, it halves the number of
    kernels. XLA for GPUs fuses the summands into a reduction only if that has enough parts to fill the
    device; otherwise it writes them to memory first.

    Args:
      one: [N, H, W, C].
      two: [N, H, W, C].
      *beside: rows [C] to stack below both sums.
      stacked: whether to stack the sums and these rows.
    """

    def by(sums):
        return lambda one, two, *beside: (
            jnp.stack([*sums(one, two), *beside]) if stacked else sums(one, two)
        )

    in_parts = functools.partial(sums_in_parts, stacked=stacked)
    return lax.platform_dependent(
        *(one, two, *beside),
        cpu=by(sums_separately),
        cuda=in_parts,
        rocm=in_parts,
        default=by(sums_together),
    )


def over_several(axis_name: str | None) -> TypeGuard[str]:
    """Returns whether the axis has several devices; for a single one, an exchange would cost kernels."""
    return axis_name is not None and lax.axis_size(axis_name) > 1


def _variance(first, second):
    return jnp.maximum(second - jnp.square(first), 0)


def _combined_means(difference, squares, shift, count: int, axis_name: str):
    """Returns a shift common to all devices, and the global means of x - shift and of (x - shift)².

    Args:
      difference: [N, H, W, C], x minus this device's shift.
      squares: [N, H, W, C], of the differences.
      shift: [C], of this device.
      count: N H W.
      axis_name: axis of the devices.
    """
    # One exchange for all rows, as devices wait for each exchange.
    rows = sums_of_both(difference, squares, shift, stacked=True)
    first, second, shifts = lax.all_gather(rows, axis_name, axis=1)
    first, second = first / count, second / count
    between = shifts - shifts[0]
    # The mean of (difference + between)², expanded: so written, XLA computes all of this in one kernel.
    return shifts[0], (between + first).mean(0), (second + between * (between + 2 * first)).mean(0)


def _shift(x, dtype):
    """Returns [C], estimates of the channels' means.

    With the mean of eight values, which is rarely two standard deviations from the channel's, variances are
    within one part in a million. With one value, which may be four from it, 1% of them were off by up to
    five.
    """
    spots = sorted({tuple(size * i // 8 for size in x.shape[:3]) for i in range(8)})
    return sum(x[spot].astype(dtype) for spot in spots) / len(spots)


def batch_moments(x, dtype, axis_name: str | None):
    """Returns mean and biased variance [C] over examples, positions and devices, in one pass over x.

    The variance is computed from differences to an estimate of the mean, so that it loses few digits if the
    mean is many standard deviations from zero.
    """
    shift = _shift(x, dtype)
    if not over_several(axis_name):
        # On an H100 (jax 0.11), sums over a batch with the slice fused into them took twice as long as sums
        # over twice the data without it. The barrier makes the estimate a kernel of its own.
        gpu = {"cuda": lax.optimization_barrier, "rocm": lax.optimization_barrier}
        shift = lax.platform_dependent(shift, **gpu, default=lambda shift: shift)
    difference = x.astype(dtype) - shift
    count = x.size // x.shape[-1]
    squares = jnp.square(difference)
    if over_several(axis_name):
        shift, first, second = _combined_means(difference, squares, shift, count, axis_name)
    else:
        first, second = (total / count for total in sums_of_both(difference, squares))
    return shift + first, _variance(first, second)
