"""Wide residual networks (Zagoruyko & Komodakis, 2016, arXiv:1605.07146) of any depth and width."""

from rwp_jax.models.preact_resnet import PreActResNet


def wide_resnet(depth: int, width: int, **common) -> PreActResNet:
    """Returns WRN-depth-width; `common` are fields of `PreActResNet`.

    `depth` is 6 n + 4: three groups of n blocks with 16, 32 and 64 times `width` features.
    """
    stages = ((16 * width, 1), (32 * width, 2), (64 * width, 2))
    blocks = (depth - 4) // 6
    return PreActResNet(
        stem=16, stages=stages, blocks=blocks, stage_name="block", zero_bias=True, **common
    )
