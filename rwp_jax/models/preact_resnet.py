"""Pre-activation ResNet-18 (He et al., 2016, arXiv:1603.05027) for small images."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from rwp_jax.models.layers import torch_bias_init, torch_default_init

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # features, stride of the first block
BLOCKS_PER_STAGE = 2


class PreActBlock(nn.Module):
    """BN - ReLU - 3x3 - BN - ReLU - 3x3; a 1x1 shortcut of the activated input where shapes change."""

    features: int
    stride: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x):
        out = nn.relu(self.norm(name="bn1")(x))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, self.stride, name="shortcut")(out)
        out = self.conv(self.features, 3, self.stride, name="conv1")(out)
        out = nn.relu(self.norm(name="bn2")(out))
        return self.conv(self.features, name="conv2")(out) + x


class PreActResNet18(nn.Module):
    """[N, H, W, C] normalised images -> [N, num_classes] logits in `param_dtype`; H, W >= 8."""

    num_classes: int
    conv: Callable
    norm: Callable
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = self.conv(STAGES[0][0], name="conv1")(x)
        for stage, (features, stride) in enumerate(STAGES, 1):
            for block in range(BLOCKS_PER_STAGE):
                x = PreActBlock(
                    features,
                    stride if block == 0 else 1,
                    self.conv,
                    self.norm,
                    name=f"layer{stage}_{block}",
                )(x)
        x = nn.relu(self.norm(name="bn")(x))
        x = x.astype(self.param_dtype).mean((1, 2))
        return nn.Dense(
            self.num_classes,
            kernel_init=torch_default_init,
            bias_init=torch_bias_init(x.shape[-1]),
            param_dtype=self.param_dtype,
            name="linear",
        )(x)
