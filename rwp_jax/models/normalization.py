"""Normalisation with its activation as one differentiable function, which saves its input alone.

Autodiff saves masks and normalised values for the backward pass, and reads activations for each of them.
Here the backward pass computes both again from the input: two sums over it and one elementwise pass. The
batch's moments take one pass forward.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_AXES = (0, 1, 2)
_SUMS_AT_ONCE = 2**15  # parts times channels: enough for an H100, at 64 to 640 channels


@jax.custom_jvp
def relu(z):
    """max(z, 0), with derivative 0 at 0 as PyTorch's.

    The derivative is computed without a comparison, whose result XLA for GPUs would write out.
    """
    return jnp.maximum(z, 0)


@relu.defjvp
def _relu_derivative(primals, tangents):
    value = relu(*primals)
    # Times the largest number, every value above 0 that is no subnormal number is 1 at least.
    largest = jnp.finfo(value.dtype).max
    return value, tangents[0] * jnp.minimum(lax.stop_gradient(value) * largest, 1)


def _affine(x, a, b):
    """a x + b in the dtype of a, which is float32 at least."""
    return x.astype(a.dtype) * a + b


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def normalize(x, scale, bias, mean, var, activation: Callable, epsilon: float):
    """activation(scale (x - mean) / sqrt(var + epsilon) + bias), in the dtype of x.

    Args:
      x: [N, H, W, C].
      scale: [C], as bias, mean and var.
      bias: see there.
      mean: of the running statistics, no function of x.
      var: likewise.
      activation: elementwise.
      epsilon: below the root.
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
    """Sums [2, C] of two arrays [N, H, W, C], each by a reduction of its own."""
    return jnp.stack([one.sum(_AXES), two.sum(_AXES)])


def _reduce_both(one, two, axes):
    """Both sums by one reduction."""
    zero = jnp.zeros((), one.dtype)
    add = lambda these, those: (these[0] + those[0], these[1] + those[1])
    return lax.reduce((one, two), (zero, zero), add, axes)


def sums_together(one, two):
    """The same by one reduction."""
    return jnp.stack(_reduce_both(one, two, _AXES))


def sums_in_parts(one, two):
    """The same by one reduction of parts, and one of their sums."""
    examples, channels = one.size // one.shape[-1], one.shape[-1]
    enough = -(-_SUMS_AT_ONCE // channels)
    parts = next((n for n in range(enough, examples) if examples % n == 0), 1)
    one, two = (array.reshape(parts, -1, channels) for array in (one, two))
    sums = jnp.concatenate(_reduce_both(one, two, (1,)), axis=1)
    return sums.sum(0).reshape(2, channels)


def _sums(one, two):
    """Sums [2, C] of two arrays [N, H, W, C], in the way that a platform does best.

    The CPU's compiler makes no vector instructions of a reduction of two arrays. On TPUs it halves the
    kernels. XLA for GPUs fuses what is summed into a reduction only where that has parts enough to fill the
    device, and else writes it out before.
    """
    return lax.platform_dependent(
        one,
        two,
        cpu=sums_separately,
        cuda=sums_in_parts,
        rocm=sums_in_parts,
        default=sums_together,
    )


def _moments(x, dtype, axis_name: str | None):
    """Mean and biased variance [C] over examples, positions and devices, in one pass over x.

    The variance is that of differences from a value of the channel, so that it loses no digits where the
    mean is many standard deviations from zero.
    """
    middle = tuple(size // 2 for size in x.shape[:3])
    shift = x[middle].astype(dtype)
    difference = x.astype(dtype) - shift
    count = x.size // x.shape[-1]
    first, second = (total / count for total in _sums(difference, jnp.square(difference)))
    mean, var = shift + first, jnp.maximum(second - jnp.square(first), 0)
    if axis_name:
        # One exchange for both; each is waited for.
        means, variances = lax.all_gather(jnp.stack([mean, var]), axis_name, axis=1)
        difference = means - means[0]
        mean = means[0] + difference.mean(0)
        var = (variances + jnp.square(difference)).mean(0) - jnp.square(difference.mean(0))
    return mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize_by_batch(x, scale, bias, activation: Callable, epsilon: float, axis_name: str | None):
    """The same by the moments of the batch, over all devices of `axis_name`; returns (values, mean, var).

    var is biased, both are [C] in the dtype of scale. They carry no gradient.
    """
    mean, var = _moments(x, scale.dtype, axis_name)
    return normalize(x, scale, bias, mean, var, activation, epsilon), mean, var


def _by_batch(x, scale, bias, activation, epsilon, axis_name):
    values, mean, var = normalize_by_batch(x, scale, bias, activation, epsilon, axis_name)
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
    sums = _sums(dz, dz * normal)
    count = x.size // x.shape[-1]
    total = sums
    if axis_name:
        total, count = lax.psum(sums, axis_name), count * lax.axis_size(axis_name)
    # Behind barriers of their own the two uses share nothing: a mask would be written out and read again.
    x, cotangent, total = lax.optimization_barrier((x, cotangents[0], total))
    mean_dz, mean_dz_normal = total / count
    c, d = -a * mean_dz_normal, -a * mean_dz
    normal, dz = normal_and_dz(x, cotangent)
    dx = dz * a + (normal * c + d)
    return dx.astype(x.dtype), sums[1], sums[0]


normalize_by_batch.defvjp(_by_batch, _by_batch_gradients)
