"""Normalisation and activation as one differentiable function that saves only its input.

Autodiff saves masks and normalised values for the backward pass, and reads activations for each of them.
Here the backward pass recomputes both, and SiLU's derivative, from the input: two sums over it and one
elementwise pass. In the forward pass, the batch's moments take one pass over the input.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

# Name of the batch's moments for policies of jax.checkpoint, which may keep them: they are small, and
# computing them again would take another pass over the input and another exchange between devices.
MOMENTS = "moments"
_AXES = (0, 1, 2)
_SUMS_AT_ONCE = 2**15  # parts times channels: fills an H100, at 64 to 640 channels


@jax.custom_jvp
def relu(z):
    """max(z, 0), with derivative 0 at 0 as in PyTorch.

    The derivative avoids a comparison, whose result XLA for GPUs would write to memory.
    """
    return jnp.maximum(z, 0)


@relu.defjvp
def _relu_derivative(primals, tangents):
    value = relu(*primals)
    # Every positive normal number times the largest finite number is at least 1.
    largest = jnp.finfo(value.dtype).max
    return value, tangents[0] * jnp.minimum(lax.stop_gradient(value) * largest, 1)


def silu(z):
    """z sigmoid(z), as torch.nn.SiLU: the Swish of Gowal et al. (2020)."""
    return z * lax.logistic(z)


ACTIVATIONS: dict[str, Callable] = {"relu": relu, "silu": silu}


def _affine(x, a, b):
    """Returns a x + b in the dtype of a, which is at least float32."""
    return x.astype(a.dtype) * a + b


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def normalize(x, scale, bias, mean, var, activation: Callable, epsilon: float):
    """activation(scale (x - mean) / sqrt(var + epsilon) + bias), in the dtype of x.

    Args:
      x: [N, H, W, C].
      scale: [C].
      bias: [C].
      mean: [C], treated as independent of x in the gradient.
      var: [C], likewise.
      activation: elementwise function.
      epsilon: added to var.
    """
    a = scale * lax.rsqrt(var + epsilon)
    return activation(_affine(x, a, bias - mean * a)).astype(x.dtype)


def _normalize(x, scale, bias, mean, var, activation, epsilon):
    return normalize(x, scale, bias, mean, var, activation, epsilon), (x, scale, bias, mean, var)


def _normalize_gradients(activation, epsilon, residuals, cotangent):
    x, scale, bias, mean, var = residuals
    inverse = lax.rsqrt(var + epsilon)
    a = scale * inverse
    _, pullback = jax.vjp(activation, _affine(x, a, bias - mean * a))
    (dz,) = pullback(cotangent.astype(a.dtype))
    sum_dz = dz.sum(_AXES)
    sum_dz_normal = (dz * _affine(x, inverse, -mean * inverse)).sum(_AXES)
    dx = (dz * a).astype(x.dtype)
    return dx, sum_dz_normal, sum_dz, -sum_dz * a, -0.5 * sum_dz_normal * scale * inverse**2


normalize.defvjp(_normalize, _normalize_gradients)


def sums_separately(one, two):
    """Returns the sums [C] of two arrays [N, H, W, C], by one reduction for each."""
    return one.sum(_AXES), two.sum(_AXES)


def _reduce_both(one, two, axes):
    """Returns both sums over the axes, by one reduction."""
    zero = jnp.zeros((), one.dtype)
    add = lambda these, those: (these[0] + those[0], these[1] + those[1])
    return tuple(lax.reduce((one, two), (zero, zero), add, axes))


def sums_together(one, two):
    """Returns the sums of `sums_separately` by one reduction."""
    return _reduce_both(one, two, _AXES)


def sums_in_parts(one, two, stacked: bool = False):
    """Returns the sums of `sums_separately`, or [2, C], by one reduction of parts and one of their sums."""
    examples, channels = one.size // one.shape[-1], one.shape[-1]
    enough = -(-_SUMS_AT_ONCE // channels)
    parts = next((n for n in range(enough, examples) if examples % n == 0), 1)
    one, two = (array.reshape(parts, -1, channels) for array in (one, two))
    first, second = _reduce_both(one, two, (1,))
    if stacked:  # before the last reduction: stacking after it would take another kernel
        return jnp.concatenate([first, second], axis=1).sum(0).reshape(2, channels)
    return _reduce_both(first, second, (0,))


def _sums(one, two, stacked: bool = False):
    """Returns the sums [C] of two arrays [N, H, W, C], stacked or not, by the fastest way on the platform.

    The CPU compiler does not vectorise a reduction of two arrays. On TPUs, it halves the number of
    kernels. XLA for GPUs fuses the summands into a reduction only if that has enough parts to fill the
    device; otherwise it writes them to memory first.
    """
    out = jnp.stack if stacked else tuple
    in_parts = functools.partial(sums_in_parts, stacked=stacked)
    return lax.platform_dependent(
        one,
        two,
        cpu=lambda one, two: out(sums_separately(one, two)),
        cuda=in_parts,
        rocm=in_parts,
        default=lambda one, two: out(sums_together(one, two)),
    )


def _several(axis_name: str | None) -> bool:
    """Returns whether the axis has several devices; for a single one, an exchange would cost kernels."""
    return axis_name is not None and lax.axis_size(axis_name) > 1


def _moments(x, dtype, axis_name: str | None):
    """Returns mean and biased variance [C] over examples, positions and devices, in one pass over x.

    The variance is computed from differences to one value of the channel, so that it loses no digits if
    the mean is many standard deviations from zero.
    """
    middle = tuple(size // 2 for size in x.shape[:3])
    shift = x[middle]
    if not _several(axis_name):
        # On an H100 (jax 0.11), sums over a batch with the slice fused into them took twice as long as sums
        # over twice the data without it. The barrier makes the slice a kernel of its own.
        gpu = {"cuda": lax.optimization_barrier, "rocm": lax.optimization_barrier}
        shift = lax.platform_dependent(shift, **gpu, default=lambda shift: shift)
    shift = shift.astype(dtype)
    difference = x.astype(dtype) - shift
    count = x.size // x.shape[-1]
    first, second = (total / count for total in _sums(difference, jnp.square(difference)))
    mean, var = shift + first, jnp.maximum(second - jnp.square(first), 0)
    if _several(axis_name):
        # One exchange for both, as devices wait for each exchange.
        means, variances = lax.all_gather(jnp.stack([mean, var]), axis_name, axis=1)
        difference = means - means[0]
        mean = means[0] + difference.mean(0)
        var = (variances + jnp.square(difference)).mean(0) - jnp.square(difference.mean(0))
    return mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize_by_batch(x, scale, bias, activation: Callable, epsilon: float, axis_name: str | None):
    """As `normalize`, by the batch's moments over all devices of `axis_name`; returns (values, mean, var).

    mean and var (biased) are [C] in the dtype of scale, and carry no gradient.
    """
    mean, var = _moments(x, scale.dtype, axis_name)
    return normalize(x, scale, bias, mean, var, activation, epsilon), mean, var


def _by_batch(x, scale, bias, activation, epsilon, axis_name):
    moments = _moments(x, scale.dtype, axis_name)
    mean, var = (checkpoint_name(moment, MOMENTS) for moment in moments)
    values = normalize(x, scale, bias, mean, var, activation, epsilon)
    return (values, mean, var), (x, scale, bias, mean, var)


def _by_batch_gradients(activation, epsilon, axis_name, residuals, cotangents):
    x, scale, bias, mean, var = residuals
    inverse = lax.rsqrt(var + epsilon)
    a = scale * inverse

    def normal_and_dz(x, cotangent):
        normal = _affine(x, inverse, -mean * inverse)
        z = normal * scale + bias
        return normal, jax.vjp(activation, z)[1](cotangent.astype(z.dtype))[0]

    normal, dz = normal_and_dz(x, cotangents[0])
    several = _several(axis_name)
    repeated = dz
    if activation is silu:
        # XLA for GPUs would write dz to memory rather than repeat an exponential for the second sum. Behind
        # the barrier it is another array, and both are fused: 1.4 times faster on an H200 (jax 0.11).
        barrier = lambda *arrays: lax.optimization_barrier(arrays)
        behind = lax.platform_dependent(
            x, cotangents[0], cuda=barrier, rocm=barrier, default=lambda *arrays: arrays
        )
        normal, repeated = normal_and_dz(*behind)
    sums = _sums(dz, repeated * normal, stacked=several)
    count = x.size // x.shape[-1]
    total = sums
    if several:
        # One exchange for both, as devices wait for each exchange.
        total, count = lax.psum(sums, axis_name), count * lax.axis_size(axis_name)
    # The barrier separates the two uses: a shared mask would be written to memory and read again.
    x, cotangent, total = lax.optimization_barrier((x, cotangents[0], total))
    mean_dz, mean_dz_normal = (value / count for value in total)
    c, d = -a * mean_dz_normal, -a * mean_dz
    normal, dz = normal_and_dz(x, cotangent)
    dx = dz * a + (normal * c + d)
    return dx.astype(x.dtype), sums[1], sums[0]


normalize_by_batch.defvjp(_by_batch, _by_batch_gradients)
