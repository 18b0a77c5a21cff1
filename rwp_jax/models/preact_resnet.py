"""Pre-activation residual networks (He et al., 2016, arXiv:1603.05027) for small images."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from rwp_jax.models.layers import torch_bias_init, torch_default_init
from rwp_jax.models.normalization import MOMENTS


class PreActBlock(nn.Module):
    """BN - 3x3 - BN - 3x3, with an activation in each BN, and a shortcut where shapes change.

    The shortcut is a 1x1 convolution of the activated input or, if `raw_shortcut`, a 3x3 one of the input.
    """

    features: int
    stride: int
    conv: Callable
    norm: Callable
    raw_shortcut: bool = False

    @nn.compact
    def __call__(self, x):
        out = self.norm(name="bn1")(x)
        if self.stride != 1 or x.shape[-1] != self.features:
            size, shortcut_of = (3, x) if self.raw_shortcut else (1, out)
            x = self.conv(self.features, size, self.stride, name="shortcut")(shortcut_of)
        out = self.conv(self.features, 3, self.stride, name="conv1")(out)
        out = self.norm(name="bn2")(out)
        return self.conv(self.features, name="conv2")(out) + x


class PreActResNet(nn.Module):
    """[N, H, W, C] normalised images -> [N, num_classes] logits in `param_dtype`; H, W >= 8.

    Attributes:
      num_classes: width of the logits.
      stem: features of the first convolution.
      stages: (features, stride of the first block) of each stage.
      blocks: blocks per stage.
      stage_name: blocks are named STAGE_NAMEi_j, with stages i counted from 1 and blocks j from 0.
      zero_bias: whether the classifier's bias starts at zero instead of PyTorch's random values.
      conv: `layers.Conv` with padding, dtypes and initialiser set.
      norm: `layers.BatchNorm` with activation, mode, axis and dtypes set.
      raw_shortcut: see `PreActBlock`.
      remat: whether a backward pass recomputes each block from its input, instead of keeping what the block
        computed.
      param_dtype: dtype of parameters and logits.
    """

    num_classes: int
    stem: int
    stages: tuple[tuple[int, int], ...]
    blocks: int
    stage_name: str
    zero_bias: bool
    conv: Callable
    norm: Callable
    raw_shortcut: bool = False
    remat: bool = False
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        keeping = jax.checkpoint_policies.save_only_these_names(MOMENTS)
        kind = nn.remat(PreActBlock, policy=keeping) if self.remat else PreActBlock
        block = partial(kind, conv=self.conv, norm=self.norm, raw_shortcut=self.raw_shortcut)
        x = self.conv(self.stem, name="conv1")(x)
        for i, (features, stride) in enumerate(self.stages, 1):
            for j in range(self.blocks):
                name = f"{self.stage_name}{i}_{j}"
                x = block(features, 1 if j else stride, name=name)(x)
        x = self.norm(name="bn")(x)
        x = x.astype(self.param_dtype).mean((1, 2))
        return nn.Dense(
            self.num_classes,
            kernel_init=torch_default_init,
            bias_init=nn.initializers.zeros if self.zero_bias else torch_bias_init(x.shape[-1]),
            param_dtype=self.param_dtype,
            name="linear",
        )(x)


def preact_resnet18(**common) -> PreActResNet:
    """Returns PreActResNet-18; `common` are fields of `PreActResNet`."""
    stages = ((64, 1), (128, 2), (256, 2), (512, 2))
    return PreActResNet(
        stem=64, stages=stages, blocks=2, stage_name="layer", zero_bias=False, **common
    )
