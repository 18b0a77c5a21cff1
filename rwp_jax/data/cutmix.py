"""CutMix: a box of one image replaces that of another (Yun et al., 2019, arXiv:1905.04899)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rwp_jax.errors import check_number


def make_cutmix(alpha: float, dtype: str = "float32") -> Callable | None:
    """Makes CutMix, with a box of its own for every image.

    The box of an image H x W has the sides H sqrt(1 - l) and W sqrt(1 - l), rounded down to whole pixels,
    with l ~ Beta(alpha, alpha); its centre is drawn uniformly over the pixels, and the image's edge clips
    it. Rebuffi et al. (2021, arXiv:2103.01946) use alpha = 1.

    Args:
      alpha: of the Beta distribution; 0 for no CutMix.
      dtype: dtype of the run. In a float64 run, numbers of 64 bits are drawn.

    Returns:
      (keys [B], images [B, H, W, C], partners of the same shape) -> (images with the boxes of their
      partners, share of each image's pixels that is left [B]); None for alpha = 0.

    Raises:
      InputError: if alpha is out of range.
    """
    key = "config.augment.cutmix"
    check_number(key, alpha, "in [0, inf)", lambda number: 0 <= number < float("inf"))
    if not alpha:
        return None
    wide = dtype == "float64"  # explicit dtypes, as in `augment`
    whole, number = (jnp.int64, jnp.float64) if wide else (jnp.int32, jnp.float32)

    def cutmix_one(key, image, partner):
        share_key, centre_key = jax.random.split(key)
        both = jnp.asarray(alpha, number)
        cut = jnp.sqrt(1 - jax.random.beta(share_key, both, both, (), number))
        sizes = jnp.asarray(image.shape[:2], whole)
        half = (sizes * cut).astype(whole) // 2
        centre = jax.random.randint(centre_key, (2,), jnp.zeros_like(sizes), sizes, whole)
        low, high = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, sizes)
        rows, columns = (jnp.arange(size, dtype=whole) for size in image.shape[:2])
        inside_rows = (rows >= low[0]) & (rows < high[0])
        inside = inside_rows[:, None] & ((columns >= low[1]) & (columns < high[1]))
        left = 1 - jnp.mean(inside, dtype=number)
        return jnp.where(inside[..., None], partner, image), left

    return jax.vmap(cutmix_one)
