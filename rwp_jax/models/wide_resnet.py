"""Wide residual networks (Zagoruyko & Komodakis, 2016, arXiv:1605.07146) of any depth and width."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from rwp_jax.models.layers import torch_default_init


class WideBlock(nn.Module):
    """BN - ReLU - 3x3 - BN - ReLU - 3x3; a 1x1 shortcut of the activated input where widths differ."""

    features: int
    stride: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x):
        out = nn.relu(self.norm(name="bn1")(x))
        # As in the reference, the width alone decides: wrn-D-1's first block keeps its identity.
        if x.shape[-1] != self.features:
            x = self.conv(self.features, 1, self.stride, name="shortcut")(out)
        out = self.conv(self.features, 3, self.stride, name="conv1")(out)
        out = nn.relu(self.norm(name="bn2")(out))
        return self.conv(self.features, name="conv2")(out) + x


class WideResNet(nn.Module):
    """[N, H, W, C] normalised images -> [N, num_classes] logits in `param_dtype`; H, W >= 8.

    `depth` is 6 n + 4; the three groups of n blocks have 16, 32 and 64 times `width` features.
    """

    depth: int
    width: int
    num_classes: int
    conv: Callable
    norm: Callable
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = self.conv(16, name="conv1")(x)
        for group, (features, stride) in enumerate(((16, 1), (32, 2), (64, 2)), 1):
            for block in range((self.depth - 4) // 6):
                x = WideBlock(
                    features * self.width,
                    stride if block == 0 else 1,
                    self.conv,
                    self.norm,
                    name=f"block{group}_{block}",
                )(x)
        x = nn.relu(self.norm(name="bn")(x))
        x = x.astype(self.param_dtype).mean((1, 2))
        return nn.Dense(
            self.num_classes,
            kernel_init=torch_default_init,
            param_dtype=self.param_dtype,
            name="linear",
        )(x)
