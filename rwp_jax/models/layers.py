"""Layers with PyTorch's semantics, and the update of running statistics by batch moments."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.models.convolution import conv2d
from rwp_jax.models.normalization import normalize, normalize_by_batch

# What torch.nn.Conv2d and torch.nn.Linear draw from, kaiming_uniform(a=sqrt(5)): U(+-1/sqrt(fan_in)).
torch_default_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# torch.nn.init.kaiming_normal_(mode="fan_out").
kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

RUNNING_MOMENTUM = 0.1  # default of torch.nn.BatchNorm2d: the weight of the batch's moments


def torch_bias_init(fan_in: int):
    """Returns the bias initialiser of torch.nn.Linear: U(+-1/sqrt(fan_in))."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class Conv(nn.Module):
    """[N, H, W, C] -> [N, H', W', features]: square kernel, no bias.

    It pads kernel_size // 2 zeros on each side or, if `same`, as TensorFlow's SAME does for even sizes:
    kernel_size - stride zeros in all, the odd one behind.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    same: bool = False
    kernel_init: nn.initializers.Initializer = torch_default_init
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel_shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        zeros = self.kernel_size // 2 * 2
        if self.same:
            zeros = max(self.kernel_size - self.stride, 0)
        padding = (zeros // 2, zeros - zeros // 2)
        return conv2d(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)


class BatchNorm(nn.Module):
    """torch.nn.BatchNorm2d over the global batch, for [N, H, W, C] inputs, followed by the activation.

    With `use_running_average` it normalises by the collection `batch_stats`. Without, it normalises by
    the moments of the batch (over `axis_name` as well) and stores them in the collection `moments`:
    mean and unbiased variance, as they enter the running statistics. It never updates those itself;
    `fold_moments` does, as often as the training step requires.
    """

    use_running_average: bool
    axis_name: str | None = None
    activation: Callable = lambda z: z
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if self.use_running_average or self.is_initializing():
            mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype).value
            var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype).value
        if self.use_running_average:
            return normalize(x, scale, bias, mean, var, self.activation, self.epsilon)
        axis_name = None if self.is_initializing() else self.axis_name
        activated, mean, var = normalize_by_batch(
            x, scale, bias, self.activation, self.epsilon, axis_name
        )
        if self.is_mutable_collection("moments"):
            count = x.size // x.shape[-1] * (lax.axis_size(axis_name) if axis_name else 1)
            self.put_variable("moments", "mean", mean)
            self.put_variable("moments", "var", var * (count / max(count - 1, 1)))
        return activated


def fold_moments(batch_stats, moments, momentum: float = RUNNING_MOMENTUM):
    """Returns the running statistics after a training-mode forward, by PyTorch's rule and momentum."""
    return jax.tree.map(
        lambda running, batch: (1 - momentum) * running + momentum * batch, batch_stats, moments
    )
