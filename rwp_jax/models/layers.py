"""Layers with PyTorch's semantics, and the way batch moments reach the running statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.models.convolution import conv2d

# What torch.nn.Conv2d and torch.nn.Linear draw from, kaiming_uniform(a=sqrt(5)): U(+-1/sqrt(fan_in)).
torch_default_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# torch.nn.init.kaiming_normal_(mode="fan_out").
kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

RUNNING_MOMENTUM = 0.1


def torch_bias_init(fan_in: int):
    """Bias of torch.nn.Linear: U(+-1/sqrt(fan_in))."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class Conv(nn.Module):
    """[N, H, W, C] -> [N, H', W', features]: square kernel, zero padding of kernel_size // 2, no bias."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    kernel_init: nn.initializers.Initializer = torch_default_init
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel_shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        return conv2d(
            x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.kernel_size // 2
        )


class BatchNorm(nn.Module):
    """torch.nn.BatchNorm2d over the global batch, for [N, H, W, C] inputs.

    With `use_running_average` it normalises by the collection `batch_stats`. Without, it normalises by
    the moments of the batch (over `axis_name` as well) and hands them out in the collection `moments`,
    mean and unbiased variance as they enter the running statistics; it never updates those itself.
    `fold_moments` does, as often as the training step asks for.
    """

    use_running_average: bool
    axis_name: str | None = None
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        x = x.astype(self.param_dtype)  # reductions of bfloat16 activations are float32
        if self.use_running_average or self.is_initializing():
            mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype).value
            var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype).value
        if not self.use_running_average:
            mean, var, count = self._batch_moments(x)
            if self.is_mutable_collection("moments"):
                self.put_variable("moments", "mean", mean)
                self.put_variable("moments", "var", var * (count / max(count - 1, 1)))
        inverse = scale * lax.rsqrt(var + self.epsilon)
        return (x * inverse + (bias - mean * inverse)).astype(self.dtype)

    def _batch_moments(self, x):
        """Mean and biased variance [C] over examples, positions and devices, and how many values."""
        mean = x.mean((0, 1, 2))
        var = jnp.square(x - mean).mean((0, 1, 2))
        count = x.size // x.shape[-1]
        if self.axis_name and not self.is_initializing():
            # One exchange for both, and one in the backward pass; each is waited for.
            means, variances = lax.all_gather(jnp.stack([mean, var]), self.axis_name, axis=1)
            mean = means.mean(0)
            var = (variances + jnp.square(means - mean)).mean(0)
            count *= lax.axis_size(self.axis_name)
        return mean, var, count


def fold_moments(batch_stats, moments):
    """Running statistics after one training-mode forward: 0.9 running + 0.1 batch, as PyTorch."""
    return jax.tree.map(
        lambda running, batch: (1 - RUNNING_MOMENTUM) * running + RUNNING_MOMENTUM * batch,
        batch_stats,
        moments,
    )
