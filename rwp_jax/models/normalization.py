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

from rwp_jax.models.moments import AXES, batch_moments, over_several, sums_of_both

# Name of the batch's moments for policies of jax.checkpoint, which may keep them: they are small, and
# computing them again would take another pass over the input and another exchange between devices.
MOMENTS = "moments"


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
    sum_dz = dz.sum(AXES)
    sum_dz_normal = (dz * _affine(x, inverse, -mean * inverse)).sum(AXES)
    dx = (dz * a).astype(x.dtype)
    return dx, sum_dz_normal, sum_dz, -sum_dz * a, -0.5 * sum_dz_normal * scale * inverse**2


normalize.defvjp(_normalize, _normalize_gradients)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize_by_batch(x, scale, bias, activation: Callable, epsilon: float, axis_name: str | None):
    """As `normalize`, by the batch's moments over all devices of `axis_name`; returns (values, mean, var).

    mean and var (biased) are [C] in the dtype of scale, and carry no gradient.
    """
    mean, var = batch_moments(x, scale.dtype, axis_name)
    return normalize(x, scale, bias, mean, var, activation, epsilon), mean, var


def _by_batch(x, scale, bias, activation, epsilon, axis_name):
    moments = batch_moments(x, scale.dtype, axis_name)
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
    several = over_several(axis_name)
    repeated = dz
    if activation is silu:
        # XLA for GPUs would write dz to memory rather than repeat an exponential for the second sum. Behind
        # the barrier it is another array, and both are fused: 1.4 times faster on an H200 (jax 0.11).
        barrier = lambda *arrays: lax.optimization_barrier(arrays)
        behind = lax.platform_dependent(
            x, cotangents[0], cuda=barrier, rocm=barrier, default=lambda *arrays: arrays
        )
        normal, repeated = normal_and_dz(*behind)
    own = total = sums_of_both(dz, repeated * normal, stacked=several)
    count = x.size // x.shape[-1]
    if several:
        # One exchange for both, as devices wait for each exchange.
        devices = lax.axis_size(axis_name)
        total, count = lax.psum(own, axis_name), count * devices
        # The gradients of scale and bias are summed over devices later. An equal share of the total does
        # as well as the device's own sums, which XLA for GPUs would copy to keep them over the exchange.
        equal = lambda own, total: total / devices
        own = lax.platform_dependent(
            own, total, cuda=equal, rocm=equal, default=lambda own, total: own
        )
    # The barrier separates the two uses: a shared mask would be written to memory and read again.
    x, cotangent, total = lax.optimization_barrier((x, cotangents[0], total))
    mean_dz, mean_dz_normal = (value / count for value in total)
    c, d = -a * mean_dz_normal, -a * mean_dz
    normal, dz = normal_and_dz(x, cotangent)
    dx = dz * a + (normal * c + d)
    return dx.astype(x.dtype), own[1], own[0]


normalize_by_batch.defvjp(_by_batch, _by_batch_gradients)
